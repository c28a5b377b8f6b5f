"""Bodies that more than one route speaks."""
