"""What the product knows, as values and functions: no I/O, no clock, no chance, no framework."""
