"""Label cleaning: the list of likely label issues, and the effect of choices on agreement.

The largest losses of a version are often human label errors. Users who clean this list see the
model's answers, which alone raises agreement: it is reported separately and is never evidence.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

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
from rollout.reports.inputs.inputs import ReportInputs
from rollout.reports.inputs.losses import UNSURE, Loss, list_top_losses
from rollout.reports.inputs.pairs import Pairs, build_pairs, compare_answers
from rollout.reports.statistics.intervals import Share, compute_unit_share
from rollout.tally.frames import RecordFrames


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """A case to look at again, and the choice about it, if any."""

    loss: Loss
    choice: CleaningChoice | None

    @property
    def name(self) -> str:
        """Return an identifier of fixed length, unique in the list."""
        text = f"{self.loss.version}\x1f{self.loss.lever}\x1f{self.loss.case_key}"
        return sha256(text.encode()).hexdigest()


def build_cleaning_items(
    records: RecordFrames,
    cases: pl.DataFrame,
    policy: Policy,
    choices: Mapping[LabelKey, CleaningChoice],
) -> list[LabelIssue]:
    """Return all label issues: unsure ones last, then the largest cost times loss first.

    `records`: a history, or the closed cases of a live rollout.
    `cases`: the cases in a cell.
    `choices`: the final choice of each label.
    """
    pairs = build_pairs(records, cases, policy)
    losses = list_top_losses(pairs, records, cases, policy, limit=None)
    costliest = sorted(
        losses, key=lambda loss: (loss.kind == UNSURE, -loss.cost * (loss.loss or 0.0))
    )
    return [LabelIssue(loss, choices.get((loss.case_key, loss.lever))) for loss in costliest]


def build_item_rows(items: Sequence[LabelIssue]) -> Iterator[dict[str, object]]:
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
