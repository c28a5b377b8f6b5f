"""Cases, predictions, decisions, actions and outcomes as values."""
