"""Console pages: sign-in, users, keys and settings."""
