"""One module a noun; each says who may do what in one sentence and calls one service."""
