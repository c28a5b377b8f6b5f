"""Where versions and people differ."""
