"""DVC's experiments as data, and what several of them show."""
