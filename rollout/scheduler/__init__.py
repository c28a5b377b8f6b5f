"""What wakes by itself. It only wakes: who does a slot is decided in the database."""
