"""Columns of tables of counted pairs, apart from what loads a data frame library."""

KEY_COLUMNS = ("version", "lever", "site", "window", "human", "model")
COUNT_COLUMN = "n"
