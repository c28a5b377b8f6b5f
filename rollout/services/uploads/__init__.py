"""Recorded files that a user uploads: drafted, planned and replayed without a shell."""
