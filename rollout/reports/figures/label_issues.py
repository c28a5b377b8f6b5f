"""Cleaning: the work list that top losses make, and what the choices would do to the headline.

What a version gets most wrong is often a label that people got wrong. Whoever goes through such a
list has seen what the model said, so agreement after it has risen by looking alone: it is said
apart, it is never evidence, and it proves nothing about the version.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.core.records.label_cleaning import CHOICES, DROP, RELABEL, Choice, Place, holding
from rollout.reports.inputs.inputs import Inputs
from rollout.reports.inputs.losses import Loss, top_losses
from rollout.reports.inputs.pairs import Pairs, compare, pair_up
from rollout.reports.statistics.intervals import Share, clustered_share
from rollout.tally.frames import Records

MOST = 200  # of each version, lever and kind


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A case that deserves a second look, and what was chosen about it, if anything."""

    loss: Loss
    choice: Choice | None

    @property
    def name(self) -> str:
        """Return what tells it apart from all others of the list, of one length always."""
        text = f"{self.loss.version}\x1f{self.loss.lever}\x1f{self.loss.case_key}"
        return sha256(text.encode()).hexdigest()


def work_items(
    records: Records,
    cases: pl.DataFrame,
    policy: Policy,
    choices: Mapping[Place, Choice],
) -> list[WorkItem]:
    """Return the work list, the dearest first: those whose cost times loss is largest.

    Args:
        records: a history, or the closed cases of a live rollout.
        cases: those that could be placed.
        policy: for levers and costs.
        choices: those that hold.
    """
    pairs = pair_up(records, cases, policy)
    losses = top_losses(pairs, records, cases, policy, most=MOST)
    costliest = sorted(losses, key=lambda loss: -loss.cost * (loss.loss or 0.0))
    return [WorkItem(loss, choices.get((loss.case_key, loss.lever))) for loss in costliest]


def as_rows(items: Sequence[WorkItem]) -> Iterator[dict[str, object]]:
    """Yield the list as rows of a table to fill in: the last three are what is chosen."""
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
class Headline:
    """Agreement of one version before and after people's choices, on record-level pairs.

    Attributes:
        version, lever: whose.
        before: agreement on the pairs as people first judged them.
        after: the same without dropped cases, with new labels; no evidence.
        relabelled, dropped, kept: pairs by what was chosen about them.
        to_model: of the relabelled, those whose new label is what this version said. Where it is
            nearly all of them, the list may have talked people round.
    """

    version: str
    lever: str
    before: Share
    after: Share
    relabelled: int
    dropped: int
    kept: int
    to_model: int


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What people chose so far. A replay knows of no choices: `known` is False."""

    known: bool
    choices: int
    headlines: tuple[Headline, ...]


def cleaning_of(inputs: Inputs, pairs: Pairs) -> Cleaning:
    """Return what the choices that hold do to the figures; nothing where nobody chose."""
    choices = holding(inputs.cleanings)
    return Cleaning(
        known=not inputs.simulated or bool(choices),
        choices=len(choices),
        headlines=headlines(pairs, inputs.policy.levers, choices) if choices else (),
    )


def headlines(
    pairs: Pairs, levers: Iterable[Lever], choices: Mapping[Place, Choice]
) -> tuple[Headline, ...]:
    """Return the figures of each version and lever about whose pairs something was chosen."""
    effects = (
        _headline(pairs.of(version, lever.id), version, lever, choices)
        for lever in levers
        for version in pairs.predicted
    )
    return tuple(effect for effect in effects if effect.relabelled + effect.dropped + effect.kept)


def _headline(
    pairs: pl.DataFrame, version: str, lever: Lever, choices: Mapping[Place, Choice]
) -> Headline:
    before = pairs.select("case_key", "unit", "agrees", "model")
    after, counts, to_model = [], dict.fromkeys(CHOICES, 0), 0
    for key, unit, agrees, model in before.iter_rows():
        choice = choices.get((key, lever.id))
        if choice is not None:
            counts[choice.choice] += 1
            to_model += choice.choice == RELABEL and choice.label == model
        if choice is None or choice.choice != DROP:
            after.append((unit, _agrees(lever, choice, model) if choice else agrees, agrees))
    remaining = pl.DataFrame(after, schema=["unit", "chosen", "was"], orient="row")
    return Headline(
        version=version,
        lever=lever.id,
        before=_share(before.select("unit", "agrees")),
        after=_share(remaining.select("unit", agrees=pl.coalesce("chosen", "was"))),
        relabelled=counts["relabel"],
        dropped=counts["drop"],
        kept=counts["keep"],
        to_model=to_model,
    )


def _agrees(lever: Lever, choice: Choice, model: str) -> bool | None:
    """Say whether the model agrees with a new label; None where people kept theirs."""
    return compare(lever, choice.label, model)[0] if choice.label is not None else None


def _share(rows: pl.DataFrame) -> Share:
    units = rows.group_by("unit").agg(pl.col("agrees").sum(), size=pl.len()).sort("unit")
    return clustered_share(units["agrees"].to_numpy(), units["size"].to_numpy())
