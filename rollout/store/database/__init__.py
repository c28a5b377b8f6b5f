"""Sessions, drivers, migrations and locks."""
