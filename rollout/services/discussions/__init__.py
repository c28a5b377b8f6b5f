"""Discussions of proposals and incidents: comments that users write and answer."""
