"""Columns of tables of counted pairs."""

KEY_COLUMNS = ("version", "lever", "site", "window", "human", "model")
COUNT_COLUMN = "n"
