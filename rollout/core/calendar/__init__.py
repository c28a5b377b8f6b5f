"""Sites, windows, time zones, opening hours and the sun."""
