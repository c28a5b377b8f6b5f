"""Sites, windows, timezones, opening hours and the sun."""
