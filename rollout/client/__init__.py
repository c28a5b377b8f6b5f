"""Who decides, judged where the case is: a snapshot of the scope, used for as long as its lease."""
