"""Everything that only the train stage needs."""
