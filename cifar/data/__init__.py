"""Fetching and preprocessing: archives, records and pictures in, arrays out."""
