"""Values and functions that decide: no I/O, no clock, no randomness, no framework."""
