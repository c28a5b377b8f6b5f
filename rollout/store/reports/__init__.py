"""Sealed reports and their deliveries."""
