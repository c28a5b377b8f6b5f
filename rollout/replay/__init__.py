"""Replay of recorded history in simulated time, with the live engine's functions."""
