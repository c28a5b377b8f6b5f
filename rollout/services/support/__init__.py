"""Clock, channels and files that other services use."""
