"""From logits to numbers, tables and charts."""
