"""The engine over recorded history, in simulated time: the same functions as live, no server."""
