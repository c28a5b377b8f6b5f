"""What a user decided about recorded files, beside how each is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rollout.formats.records.questions import Choice


@dataclass(frozen=True, slots=True)
class FileChoices:
    """Answers to questions, by option.

    Attributes:
        label: texts such as `none` that are labels.
        unsure: texts that mean: no answer.
    """

    label: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()

    def add(self, choice: Choice) -> FileChoices:
        """Return these choices with one more."""
        match choice.option:
            case "--label":
                return replace(self, label=(*self.label, choice.value))
            case "--unsure":
                return replace(self, unsure=(*self.unsure, choice.value))
        raise ValueError(f"{choice.option} is no choice about recorded files")


NO_CHOICES = FileChoices()
