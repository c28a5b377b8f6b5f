"""Sets of labels in a file of pairs: the labels it has, and one text for each set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from rollout.formats.records.label_set_texts import list_set_labels, rewrite_sets

if TYPE_CHECKING:
    from collections.abc import Collection

SIDES = ("human", "model")


def rewrite_set_pairs(pairs: pl.LazyFrame, labels: Collection[str]) -> pl.LazyFrame:
    """Return streamed pairs with canonical texts of sets; what is no set of the labels stays."""
    columns = [
        (side, texts, rewrite_sets(texts, labels))
        for side in SIDES
        for texts in [_collect_texts(pairs, side)]
    ]
    replaced = [pl.col(side).replace(texts, sets) for side, texts, sets in columns if len(texts)]
    return pairs.with_columns(replaced)


def list_pair_labels(pairs: pl.LazyFrame) -> tuple[str, ...]:
    """Return the labels of all sets in streamed pairs.

    Raises:
        ValueError: a label is blank.
    """
    texts = {text for side in SIDES for text in _collect_texts(pairs, side)}
    labels = list_set_labels(texts)
    if labels is None:
        raise ValueError(
            "a label of a set is blank; join the labels of a set with one `;`, each once, and write"
            " [] for none of them"
        )
    return labels


def _collect_texts(pairs: pl.LazyFrame, side: str) -> pl.Series:
    """Return the different answers of one side, without blank ones."""
    answer = pl.col(side)
    texts = pairs.select(answer.filter(answer.str.strip_chars() != "").unique())
    return texts.collect(engine="streaming").to_series().sort()
