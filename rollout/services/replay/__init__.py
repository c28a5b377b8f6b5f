"""Replay recorded files and play the demo."""
