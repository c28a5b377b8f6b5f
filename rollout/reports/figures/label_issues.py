"""Label cleaning: the list of likely label issues, and the effect of choices on agreement.

The largest losses of a version are often human label errors. Users who clean this list see the
model's answers, which alone raises agreement: it is reported separately and is never evidence.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, overload

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.core.records.label_cleaning import (
    CHOICES,
    DROP,
    RELABEL,
    CleaningChoice,
    LabelKey,
    find_final_choices,
)
from rollout.reports.inputs.divergence_columns import Loss
from rollout.reports.inputs.inputs import ReportInputs
from rollout.reports.inputs.losses import build_losses, rank_losses
from rollout.reports.inputs.pairs import Pairs, compare_answers
from rollout.reports.statistics.intervals import Share, compute_unit_share
from rollout.tally.frames import RecordFrames

ROWS_AT_ONCE: Final = 10_000  # of a list that is read to its end


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """A case to look at again, and the choice about it, if any."""

    loss: Loss
    choice: CleaningChoice | None

    @property
    def name(self) -> str:
        """Return an identifier of fixed length, unique in the list."""
        return _name_issue(self.loss.version, self.loss.lever, self.loss.case_key)


def _name_issue(version: str, lever: str, case_key: str) -> str:
    return sha256(f"{version}\x1f{lever}\x1f{case_key}".encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class WorkList(Sequence[LabelIssue]):
    """Label issues in order; they are built when they are asked for, a page at once.

    Attributes:
        losses: the rows of the list.
        records, cases: what is known of their cases.
        choices: the final choice of each label.
    """

    losses: pl.DataFrame
    records: RecordFrames
    cases: pl.DataFrame
    choices: Mapping[LabelKey, CleaningChoice]

    @property
    def case_keys(self) -> list[str]:
        """The cases, in order."""
        return self.losses["case_key"].to_list()

    def __len__(self) -> int:
        """Return the number of issues."""
        return self.losses.height

    @overload
    def __getitem__(self, place: int) -> LabelIssue: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[LabelIssue]: ...

    def __getitem__(self, place: int | slice) -> LabelIssue | Sequence[LabelIssue]:
        """Return an issue, or those of a page."""
        if isinstance(place, slice):
            return self._build(self.losses[place])
        return self._build(self.losses[range(len(self))[place], :])[0]

    def __iter__(self) -> Iterator[LabelIssue]:
        """Yield all issues."""
        for rows in self.losses.iter_slices(ROWS_AT_ONCE):
            yield from self._build(rows)

    def _build(self, rows: pl.DataFrame) -> list[LabelIssue]:
        losses = build_losses(rows, self.records, self.cases)
        return [LabelIssue(loss, self.choices.get((loss.case_key, loss.lever))) for loss in losses]

    def count_kinds(self) -> Mapping[str, int]:
        """Return the number of issues of each kind, in the order of the list."""
        return dict(self.losses.group_by("kind", maintain_order=True).len().iter_rows())

    def find_place_after(self, name: str | None) -> int:
        """Return the place after an issue; 0 for None, or if the list has none of this name."""
        if name is None:
            return 0
        rows = self.losses.select("version", "lever", "case_key").iter_rows()
        return next(
            (place for place, row in enumerate(rows, start=1) if _name_issue(*row) == name), 0
        )

    def select_sites(self, is_readable: Callable[[str], bool]) -> "WorkList":
        """Return the issues at sites for which a function is true; a case may have none, ""."""
        sites = {"", *self.records.cases["site"].drop_nulls().unique()}
        readable_sites = [site for site in sites if is_readable(site)]
        if len(readable_sites) == len(sites):
            return self
        case_sites = self.records.cases.select("case_key", "site")
        placed = self.losses.join(case_sites, on="case_key", how="left", maintain_order="left")
        is_listed = placed["site"].fill_null("").is_in(readable_sites)
        return replace(self, losses=self.losses.filter(is_listed))

    def select_chosen(self, *, has_choice: bool) -> "WorkList":
        """Return the issues with a choice, or without."""
        schema = {"case_key": pl.String, "lever": pl.String}
        chosen = pl.DataFrame(list(self.choices), schema=schema, orient="row")
        losses = self.losses.join(
            chosen,
            on=list(schema),
            how="semi" if has_choice else "anti",
            maintain_order="left",
        )
        return replace(self, losses=losses)


def build_work_list(
    records: RecordFrames,
    cases: pl.DataFrame,
    policy: Policy,
    choices: Mapping[LabelKey, CleaningChoice],
) -> WorkList:
    """Return all label issues: unsure ones last, then the largest cost times loss first.

    `records`: a history, or the closed cases of a live rollout.
    `cases`: the cases in a cell.
    `choices`: the final choice of each label.
    """
    return WorkList(rank_losses(records, policy), records, cases, choices)


def build_item_rows(items: Iterable[LabelIssue]) -> Iterator[dict[str, object]]:
    """Yield the rows of a table to fill in; the last three columns are the choice."""
    for item in items:
        loss, choice = item.loss, item.choice
        yield {
            "case_key": loss.case_key,
            "version": loss.version,
            "lever": loss.lever,
            "site": loss.site,
            "window": loss.window,
            "occurred_at": None if loss.occurred_at is None else loss.occurred_at.isoformat(),
            "human": loss.human,
            "model": loss.model,
            "confidence": loss.confidence,
            "outcome": loss.outcome,
            "loss": loss.loss,
            "cost": loss.cost,
            "kind": loss.kind,
            "choice": None if choice is None else choice.choice,
            "label": None if choice is None else choice.label,
            "reason": None if choice is None else choice.reason,
        }


@dataclass(frozen=True, slots=True)
class CleaningEffect:
    """Agreement of one version before and after cleaning.

    Attributes:
        version, lever: whose answers.
        before: agreement with the first labels.
        after: agreement with new labels and without dropped cases; never evidence.
        relabelled, dropped, kept: pairs by choice.
        relabelled_to_model: relabelled pairs whose new label is this version's answer. If nearly
            all are, the list may have biased the choices.
    """

    version: str
    lever: str
    before: Share
    after: Share
    relabelled: int
    dropped: int
    kept: int
    relabelled_to_model: int


@dataclass(frozen=True, slots=True)
class CleaningFigures:
    """Choices so far; `has_choices` is False for a replay without choices."""

    has_choices: bool
    choices: int
    headlines: tuple[CleaningEffect, ...]


def compute_cleaning(inputs: ReportInputs, pairs: Pairs) -> CleaningFigures:
    """Return the effect of the final choices; no headlines without choices."""
    choices = find_final_choices(inputs.choices)
    return CleaningFigures(
        has_choices=not inputs.is_simulated or bool(choices),
        choices=len(choices),
        headlines=compute_cleaning_effects(pairs, inputs.policy.levers, choices) if choices else (),
    )


def compute_cleaning_effects(
    pairs: Pairs, levers: Iterable[Lever], choices: Mapping[LabelKey, CleaningChoice]
) -> tuple[CleaningEffect, ...]:
    """Return the effect on each version and lever with choices about its pairs."""
    effects = (
        _compute_cleaning_effect(pairs.select(version, lever.id), version, lever, choices)
        for lever in levers
        for version in pairs.predicted
    )
    return tuple(effect for effect in effects if effect.relabelled + effect.dropped + effect.kept)


def _compute_cleaning_effect(
    pairs: pl.DataFrame, version: str, lever: Lever, choices: Mapping[LabelKey, CleaningChoice]
) -> CleaningEffect:
    before = pairs.select("case_key", "unit", "agrees", "model")
    after, counts, to_model = [], dict.fromkeys(CHOICES, 0), 0
    for key, unit, agrees, model in before.iter_rows():
        choice = choices.get((key, lever.id))
        if choice is not None:
            counts[choice.choice] += 1
            to_model += choice.choice == RELABEL and choice.label == model
        if choice is None or choice.choice != DROP:
            after.append(
                (unit, _compare_choice(lever, choice, model) if choice else agrees, agrees)
            )
    remaining = pl.DataFrame(after, schema=["unit", "chosen", "was"], orient="row")
    return CleaningEffect(
        version=version,
        lever=lever.id,
        before=compute_unit_share(before),
        after=compute_unit_share(remaining, pl.coalesce("chosen", "was")),
        relabelled=counts["relabel"],
        dropped=counts["drop"],
        kept=counts["keep"],
        relabelled_to_model=to_model,
    )


def _compare_choice(lever: Lever, choice: CleaningChoice, model: str) -> bool | None:
    """Return whether the model agrees with a new label; None if the label was kept."""
    return compare_answers(lever, choice.label, model)[0] if choice.label is not None else None
