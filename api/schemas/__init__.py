"""Schemas that several routes share."""
