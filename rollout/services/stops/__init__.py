"""Stops, narrowings and how soon they hold."""
