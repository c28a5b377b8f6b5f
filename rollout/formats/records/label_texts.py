"""Labels that mean "no answer", and fields that hold several labels."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING

from rollout.formats.records.reading_questions import ReadingQuestion

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

UNSURE_WORDS = frozenset(
    {
        *("unknown", "unsure", "undecided", "uncertain", "unclear", "not sure", "don't know"),
        *("can't tell", "cannot tell", "skip", "skipped", "abstain", "abstained", "n/a", "?"),
    }
)
_STRONG, _WEAK = re.compile(r"[;|]"), re.compile(r"[;|,+/]")


def recognize_unsure(
    decided: Collection[str], predicted: Collection[str], file: str
) -> tuple[str, ...] | ReadingQuestion:
    """Return the labels of reviewers that mean "no answer", or what is open.

    If the model predicts such a label too, it can be a label like the others.

    >>> recognize_unsure(["bear", "Unsure"], ["bear"], "decisions.csv")
    ('Unsure',)
    """
    words = sorted(label for label in decided if label.strip().lower() in UNSURE_WORDS)
    shared = [label for label in words if label in predicted]
    if not shared:
        return tuple(words)
    text = (
        f"{file}: {shared[0]!r} can mean that the reviewer was unsure, or be a label, because the"
        " model predicts it too"
    )
    return ReadingQuestion("--unsure", text, (shared[0], ""))


def find_several_labels(labels: Collection[str]) -> str | None:
    """Return a field that holds several labels, or None.

    Those are JSON lists, and labels joined by a sign of which a part is a label elsewhere.

    >>> find_several_labels(["bear", "deer", "bear;deer"]), find_several_labels(["a, b", "c"])
    ('bear;deer', None)
    """
    parts_by_label = {label: _split_label(label, _WEAK) for label in labels}
    counts = Counter(part for parts in parts_by_label.values() for part in set(parts))
    return next(iter(_iterate_several(parts_by_label, counts)), None)


def _iterate_several(parts_by_label: dict[str, list[str]], counts: Counter[str]) -> Iterator[str]:
    for label, parts in parts_by_label.items():
        if _is_json_list(label):
            yield label
        elif len(parts) > 1:
            shared = [part in parts_by_label or counts[part] > 1 for part in parts]
            if any(shared) if _STRONG.search(label) else all(shared):
                yield label


def _split_label(label: str, separators: re.Pattern[str]) -> list[str]:
    return [part.strip() for part in separators.split(label) if part.strip()]


def _is_json_list(label: str) -> bool:
    if not label.startswith("["):
        return False
    try:
        value = json.loads(label)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, list) and len(value) > 1
