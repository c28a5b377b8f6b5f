"""Sets of labels in files: `a;b`, or a list of JSON, rewritten to one text for each set."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rollout.kernel.units import EMPTY_SET, SEPARATOR, join_labels, read_label_set

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import polars as pl


def rewrite_sets(column: pl.Series, labels: Collection[str]) -> pl.Series:
    """Return answers as canonical texts; what is no set of the labels stays as it is.

    It then counts as an answer that the lever lacks: it agrees with nothing.
    """
    texts = column.drop_nulls().unique().to_list()
    canonical = {text: _rewrite_set(text, labels) for text in texts}
    changed = {text: new for text, new in canonical.items() if new != text}
    return column.replace(changed) if changed else column


def _rewrite_set(text: str, labels: Collection[str]) -> str:
    try:
        return read_label_set(parse_set(text), labels, "")
    except ValueError:
        return text


def parse_set(text: str) -> str | list[str]:
    """Return the list of a text that is one in JSON, else the text."""
    if not text.startswith("["):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    is_list = isinstance(value, list) and all(isinstance(label, str) for label in value)
    return value if is_list else text


def keep_wrong_set(answer: str | Sequence[str]) -> str:
    """Return an answer that is no set of labels as text that is none either.

    >>> keep_wrong_set(["puma", "adidas"]), keep_wrong_set(["(none of them)"])
    ('adidas;puma', '["(none of them)"]')
    """
    try:
        return join_labels(answer)
    except ValueError:
        return json.dumps(answer, ensure_ascii=False)


def list_set_labels(texts: Collection[str]) -> tuple[str, ...] | None:
    """Return the labels of sets that `;` or a list joins; None if a label is blank.

    >>> list_set_labels(["nike;puma", "[]", "ikea", "(none of them)"])
    ('ikea', 'nike', 'puma')
    """
    labels: set[str] = set()
    for text in texts:
        labels.update(_split_set(text))
    return tuple(sorted(labels)) if "" not in labels else None


def _split_set(text: str) -> Sequence[str]:
    answer = parse_set(text)
    if not isinstance(answer, str):
        return answer
    return [] if answer.strip() == EMPTY_SET else [part.strip() for part in answer.split(SEPARATOR)]
