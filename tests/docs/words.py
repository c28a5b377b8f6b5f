"""Counts the words of a page that a person wrote."""

import re


def words_of(page):
    """Return the words of a page: not those of commands, outputs and diagrams, which run."""
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    prose = re.sub(r"\]\([^)]*\)", "]", prose)
    return len([word for word in prose.split() if re.search(r"\w", word)])
