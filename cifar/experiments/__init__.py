"""Read DVC's experiments as data, compare them, and reproduce them."""
