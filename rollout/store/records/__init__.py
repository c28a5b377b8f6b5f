"""Received records and their keys, exposures and rejected records."""
