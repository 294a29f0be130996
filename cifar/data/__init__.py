"""Fetching and preprocessing: from archives, records and pictures to arrays."""
