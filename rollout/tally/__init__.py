"""From records to units to counts, for replay and the service alike."""
