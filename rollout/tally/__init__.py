"""From records to units to counts, written once: the only place that counts."""
