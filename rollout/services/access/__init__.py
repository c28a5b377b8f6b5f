"""Users, roles, keys and sign-in."""
