"""Notify users of proposals, incidents and reviews, on channels that they choose."""
