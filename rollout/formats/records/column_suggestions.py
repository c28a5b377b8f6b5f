"""Suggest which of the columns of a file is meant by one of our names."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

SYNONYMS: Mapping[str, Sequence[str]] = {
    "case_key": ("case_id", "case", "id", "key", "item", "item_id", "image", "image_id", "file"),
    "site": ("location", "place", "station", "camera", "facility", "plant", "deployment"),
    "occurred_at": (
        *("event_time", "timestamp", "time", "datetime", "date_time", "captured_at", "date"),
        *("created_at", "taken_at", "recorded_at"),
    ),
    "model_version": ("model", "version", "model_name", "classified_by"),
    "label": (
        *("prediction", "pred_label", "predicted_label", "predicted", "pred", "y_pred", "class"),
        *("dec_label", "decision", "verdict", "answer", "annotation", "y_true", "target"),
        *("category", "species", "scientific_name", "result"),
    ),
    "confidence": ("score", "pred_score", "probability", "prob", "conf", "certainty"),
    "predicted_at": ("pred_time", "prediction_time", "inference_time"),
    "latency_ms": ("latency", "duration_ms", "execution_time_ms"),
    "reviewer": (
        *("annotator", "annotator_id", "reviewer_id", "user", "user_id", "worker", "worker_id"),
        *("labeler", "labeller", "who", "decided_by", "reviewed_by", "annotated_by"),
    ),
    "decided_at": ("dec_time", "decision_time", "reviewed_at", "annotated_at", "completed_at"),
    "exposure": ("shown", "assisted"),
}
CUTOFF = 0.75
"""Similarity from which a name is close."""


def suggest_column(name: str, columns: Collection[str]) -> str | None:
    """Return the column that our `name` probably means, or None.

    >>> suggest_column("label", ["image", "Prediction"]), suggest_column("site", ["a"])
    ('Prediction', None)
    """
    by_plain_name = {_simplify(column): column for column in columns}
    for candidate in (name, *SYNONYMS.get(name, ())):
        column = by_plain_name.get(_simplify(candidate))
        if column is not None:
            return column
    close = get_close_matches(_simplify(name), by_plain_name, n=1, cutoff=CUTOFF)
    return by_plain_name[close[0]] if close else None


def _simplify(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
