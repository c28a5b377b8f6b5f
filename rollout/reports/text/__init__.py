"""Events and figures as text."""
