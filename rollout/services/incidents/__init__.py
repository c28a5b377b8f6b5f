"""Incidents and their impact."""
