"""Erasing cases and names, and exporting what is stored about a user."""
