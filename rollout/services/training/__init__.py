"""Cleaning lists and training rows."""
