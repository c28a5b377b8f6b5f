"""Cells and the overview of all rollouts."""
