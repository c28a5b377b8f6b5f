"""Policies as values: gates, guards, measures, levers."""
