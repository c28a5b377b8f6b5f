"""Cases that humans decided because the acting version was not familiar with them."""

import numpy as np
import polars as pl

from rollout.core.policy.familiarity import (
    FamiliarityRule,
    decode_unit_values,
    format_value,
)
from rollout.tally.familiar_history import FamiliarHistory
from rollout.tally.unit_arrays import IntArray
from rollout.tally.unit_values import encode_values


def find_unfamiliar_values(
    cases: pl.DataFrame, occurred: IntArray, history: FamiliarHistory, rule: FamiliarityRule
) -> pl.Series:
    """Return the unfamiliar values of each case in words, null if all were familiar.

    Args:
        cases: of one cell, with their attributes.
        occurred: the slot of each.
        history: of the acting version in the cell.
        rule: of the policy.
    """
    texts = encode_values(cases, rule)
    unfamiliar: list[list[str]] = [[] for _ in range(cases.height)]
    for text in texts.unique(maintain_order=True):
        places = np.flatnonzero((texts == text).to_numpy())
        (values,) = decode_unit_values(f"[{text}]")
        for value in sorted(values):
            is_familiar = history.find_familiar(value, occurred[places])
            for place in places[~is_familiar].tolist():
                unfamiliar[place].append(format_value(value))
    return pl.Series([", ".join(names) or None for names in unfamiliar], dtype=pl.String)
