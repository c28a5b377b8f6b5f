"""Records as they were sent."""
