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
        mappings: rows of a side, as entries of a column map.
        same_form: whether texts that differ in form only are the same; None if nobody said it.
        labels: `sampled` if a sample of the cases was labelled, `all` if decisions are missing.
        equal_sides: whether two sides that agree everywhere are two.
        backtest: whether predictions count that were made after the decisions; None if nobody said
            it.
    """

    label: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()
    mappings: tuple[str, ...] = ()
    same_form: bool | None = None
    labels: str | None = None
    equal_sides: bool = False
    backtest: bool | None = None

    def add(self, choice: Choice) -> FileChoices:
        """Return these choices with one more."""
        match choice.option:
            case "--label":
                return replace(self, label=(*self.label, choice.value))
            case "--unsure":
                return replace(self, unsure=(*self.unsure, choice.value))
            case "--same-form":
                return replace(self, same_form=choice.value == "true")
            case "--labels":
                return replace(self, labels=choice.value)
            case "--equal-sides" | "--backtest":
                return self._add_meaning(choice)
            case "--predictions-where" | "--decisions-where":
                mapping = map_rows_of(choice.option, choice.value)
                return replace(self, mappings=(*self.mappings, mapping))
        raise ValueError(f"{choice.option} is no choice about recorded files")

    def _add_meaning(self, choice: Choice) -> FileChoices:
        """Add what the two sides are."""
        if choice.option == "--equal-sides":
            return replace(self, equal_sides=True)
        return replace(self, backtest=choice.value == "true")

    def list_arguments(self) -> list[str]:
        """Return the options of a command that reads forms and labels in the same way."""
        arguments = [] if self.labels is None else ["--labels", self.labels]
        if self.same_form is not None:
            arguments.append("--same-form" if self.same_form else "--no-same-form")
        return arguments

    def list_replay_arguments(self) -> list[str]:
        """Return the options of a replay of the same files."""
        arguments = self.list_arguments()
        if self.equal_sides:
            arguments.append("--equal-sides")
        if self.backtest is not None:
            arguments.append("--backtest" if self.backtest else "--no-backtest")
        return arguments


NO_CHOICES = FileChoices()


def map_rows_of(option: str, condition: str) -> str:
    """Return the entry of a column map that chooses the rows of a side.

    >>> map_rows_of("--decisions-where", "by!=model")
    'decisions.where=by!=model'
    """
    return f"{option.removeprefix('--').removesuffix('-where')}.where={condition}"
