"""Feedback: whether the model's actions make the data that the next version learns from.

Three things are looked at. Whose labels the training rows have: what the model made, or people who
had seen its answer, teaches the next version what this one thinks. Whether a hold-out goes to
people unseen. And whether more becomes known, or other things, where the model had a hand than in
the hold-out: the draw knows nothing of the cases, so such a difference was made by who decided.
Who trains on such records teaches a version where the last one looked (Ensign, Friedler, Neville,
Scheidegger and Venkatasubramanian, Proceedings of Machine Learning Research 81 (2018) 160).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.records.label_cleaning import DROP
from rollout.reports.figures.holdout import sides
from rollout.reports.figures.label_sources import (
    FED,
    OUTCOME,
    SOURCES,
    assigned_of,
    labelled,
    verdicts,
)
from rollout.reports.figures.training import SourceCount, source_counts
from rollout.reports.inputs.inputs import Inputs
from rollout.reports.inputs.pairs import OTHER_ACTION
from rollout.reports.statistics.concurrent_change import log_e_concurrent
from rollout.reports.statistics.differences import Difference, period_difference
from rollout.reports.statistics.intervals import Share, clopper_pearson, clustered_share
from rollout.reports.text.formatting import number, per_cent
from rollout.tally.frames import VALUE

RISK = 0.05
NEEDED = -log(RISK)
"""From which log e-value on a difference is told: wrongly for one version and lever in twenty at
most, however often anybody looks."""

NOTHING = "nothing known"  # of a case whose outcome nobody has told
A_NUMBER = "a number"  # of whatever size: no two need be alike
NO_ANSWER = "nobody answered"
SURE = 0.999  # of the interval that the hold-out's share has to lie in
METHOD = "a mixture over Dirichlet concentrations, valid at every look"


@dataclass(frozen=True, slots=True)
class Known:
    """How often something became known where the model had a hand, and in the hold-out.

    `difference` is by how many more of 100 cases where the model had a hand.
    """

    site: str
    label: str
    with_model: int
    held: int
    difference: Difference


@dataclass(frozen=True, slots=True)
class Feedback:
    """What one version has to do with the data that comes after it, on one lever.

    Attributes:
        version, lever: whose.
        charter: how actions shape later cases, in the policy's words; "" where it says nothing.
        sources: training rows by where their label comes from, on the version's cases.
        fed: rows whose label the model made, or people who had seen its answer.
        by_hand: rows whose label is an outcome that became known where the model had a hand.
        held, with_model: units in the hold-out, and units in which the model had a hand.
        without: of the latter, those on a stage that holds nothing out: of them nothing is known.
        shares: which shares of units the policy holds out, where the model had a hand.
        as_drawn: whether the hold-out is as large as drawn; None without one.
        known: what became known on both sides, by site, the surest difference first.
        log_e_known: against "as much becomes known, whoever decides"; None where no test is.
        log_e_actions: against "the same is done, whoever decides"; None where no test is, and of
            numbers, which are their own action. That it is large says only that the model acts
            otherwise than people.
        needed: from which of these on a difference is told.
        feeds: whether a loop feeds itself, as far as this can tell.
        says: what follows, in sentences.
        method: of the two e-values.
    """

    version: str
    lever: str
    charter: str
    sources: tuple[SourceCount, ...]
    fed: Share
    by_hand: Share
    held: int
    with_model: int
    without: int
    shares: tuple[float, ...]
    as_drawn: bool | None
    known: tuple[Known, ...]
    log_e_known: float | None
    log_e_actions: float | None
    needed: float
    feeds: bool
    says: tuple[str, ...]
    method: str


def feedback_of(inputs: Inputs) -> tuple[Feedback, ...]:
    """Return what each version has to do with later data, lever by lever."""
    predictions = inputs.records.predictions.select("case_key", "version")
    assignments = assigned_of(inputs)
    rows = labelled(inputs.records, inputs.policy, inputs.cases, assignments, inputs.cleanings)
    training_rows = rows.filter(
        pl.col("label").is_not_null(), pl.col("cleaned").fill_null("") != DROP
    ).drop("version")
    units = inputs.cases.select("case_key", "unit")
    training_rows = training_rows.join(units, on="case_key", how="left").with_columns(
        unit=pl.coalesce("unit", "case_key")
    )
    parted = sides(inputs)
    versions = predictions["version"].unique().sort().to_list()
    return tuple(
        _feedback(inputs, version, lever, training_rows.join(version_cases, on="case_key"), parted)
        for version in versions
        for version_cases in [predictions.filter(pl.col("version") == version)]
        for lever in inputs.policy.levers
    )


def _feedback(
    inputs: Inputs, version: str, lever: Lever, kept: pl.DataFrame, parted: pl.DataFrame
) -> Feedback:
    rows = kept.filter(pl.col("lever") == lever.id)
    version_units = parted.filter(pl.col("version") == version)
    unit_outcomes = _told(inputs, lever, version_units)
    holdout_count = int(version_units["held"].sum())
    is_as_planned = _as_drawn(version_units)
    is_testable = bool(is_as_planned)
    outcomes = inputs.records.outcomes.drop_nulls(VALUE + lever.id).height
    log_e_known = _log_e(unit_outcomes, ["site", "known"]) if is_testable and outcomes else None
    model_cases = version_units.filter(~pl.col("held")).select("case_key")
    acted_rows = rows.with_columns(hit=pl.col("source") == OUTCOME).join(
        model_cases.with_columns(touched=True), on="case_key", how="left"
    )
    feedback = Feedback(
        version=version,
        lever=lever.id,
        charter=inputs.policy.charter.feedback,
        sources=tuple(source_counts(rows, SOURCES)),
        fed=_share(rows, pl.col("source").is_in(FED)),
        by_hand=_share(acted_rows, pl.col("hit") & pl.col("touched").fill_null(value=False)),
        held=holdout_count,
        with_model=version_units.height - holdout_count,
        without=version_units.filter(pl.col("share").fill_null(0.0) <= 0).height,
        shares=tuple(version_units["share"].unique().sort().drop_nulls()),
        as_drawn=is_as_planned,
        known=tuple(_known(unit_outcomes)),
        log_e_known=log_e_known,
        log_e_actions=(
            _log_e(unit_outcomes, ["action"]) if is_testable and lever.number is None else None
        ),
        needed=NEEDED,
        feeds=log_e_known is not None and log_e_known >= NEEDED,
        says=(),
        method=METHOD,
    )
    return _with_words(feedback)


def _share(rows: pl.DataFrame, hit: pl.Expr) -> Share:
    units = rows.group_by("unit").agg(hits=hit.sum(), size=pl.len()).sort("unit")
    return clustered_share(units["hits"].to_numpy(), units["size"].to_numpy())


def _told(inputs: Inputs, lever: Lever, own: pl.DataFrame) -> pl.DataFrame:
    """Return the units of both sides with what became known of each, and what was done."""
    column = VALUE + lever.id
    policy, records = inputs.policy, inputs.records
    outcomes = records.outcomes.select("case_key", known=column)
    decisions = verdicts(records, column, outside_blind=policy.evidence.outside_blind)
    answers = records.predictions.select("case_key", "version", made=column)
    joined = own.join(outcomes, on="case_key", how="left").join(
        decisions, on="case_key", how="left"
    )
    joined = joined.join(answers, on=["case_key", "version"], how="left")
    by_model = pl.when(~pl.col("held")).then("made")
    answer = pl.coalesce("said", by_model)
    actions = {label: lever.action(label) or OTHER_ACTION for label in lever.labels}
    action = answer.replace_strict(actions, default=OTHER_ACTION, return_dtype=pl.String)
    fallback = lever.unanswered or NO_ANSWER
    outcome = pl.col("known") if lever.number is None else pl.lit(A_NUMBER)
    return joined.with_columns(
        known=pl.when(pl.col("known").is_null()).then(pl.lit(NOTHING)).otherwise(outcome),
        action=pl.when(answer.is_null()).then(pl.lit(fallback)).otherwise(action),
    )


def _as_drawn(own: pl.DataFrame) -> bool | None:
    """Say whether people got the share of units that the draw holds out; None without any."""
    with_share = own.filter(pl.col("share") > 0)
    if with_share.is_empty():
        return None
    for (share,), part in with_share.partition_by("share", as_dict=True).items():
        low, high = clopper_pearson(int(part["held"].sum()), part.height, SURE)
        if not low <= float(share) <= high:
            return False
    return True


def _log_e(told: pl.DataFrame, kind: list[str]) -> float:
    """Return the log e-value over all units; those of another share are another experiment."""
    total = 0.0
    for (share,), part in told.partition_by("share", as_dict=True).items():
        if share is None or not 0 < float(share) < 1:
            continue
        counts = part.group_by(kind).agg(model=(~pl.col("held")).sum(), people=pl.col("held").sum())
        counts = counts.sort(kind)
        group_counts = (counts["model"].to_list(), counts["people"].to_list())
        total += log_e_concurrent(*group_counts, share=1 - float(share))
    return total


def _known(told: pl.DataFrame) -> Iterator[Known]:
    """Yield for each site what became known on both sides, the surest difference first."""
    comparisons = []
    for (site,), part in told.partition_by("site", as_dict=True).items():
        with_model, holdout = part.filter(~pl.col("held")), part.filter("held")
        for label in part["known"].unique().sort():
            if label != NOTHING and with_model.height and holdout.height:
                model_count, holdout_count = (
                    int((side["known"] == label).sum()) for side in (with_model, holdout)
                )
                difference = period_difference(
                    model_count, with_model.height, holdout_count, holdout.height
                )
                comparisons.append(Known(str(site), label, model_count, holdout_count, difference))
    yield from sorted(comparisons, key=_surest_first)


def _surest_first(known: Known) -> tuple[float, str, str]:
    difference = known.difference
    if difference.per_100 is None or difference.low is None or difference.high is None:
        return 0.0, known.site, known.label
    return -abs(difference.per_100) / (difference.high - difference.low), known.site, known.label


# In words


def _with_words(made: Feedback) -> Feedback:
    fields = {name: getattr(made, name) for name in Feedback.__dataclass_fields__}
    return Feedback(**fields | {"says": tuple(_sentences(made))})


def _sentences(made: Feedback) -> Iterator[str]:
    yield _rows_in_words(made)
    if not made.with_model:
        yield "The model had a hand in no case so far: no loop can feed itself yet."
        return
    if not made.held or made.as_drawn is None:
        yield (
            "No hold-out: no unit goes to people unseen, so nobody can see whether what becomes "
            "known depends on who decided. Give the stage a blind share, as `blind: 10%`."
        )
        return
    if made.as_drawn is False:
        yield (
            f"The hold-out is not as drawn: {number(made.held)} of "
            f"{number(made.held + made.with_model)} units "
            f"went to people unseen where {_shares(made)} were to. Somebody chooses them, or "
            "verdicts are lost; until it is as drawn it proves nothing."
        )
        return
    yield from _loop_in_words(made)
    if made.without:
        yield (
            f"{number(made.without)} units were on a stage without a hold-out: of these nothing "
            "can be said. Give it a blind share, as `blind: 10%`."
        )


def _rows_in_words(made: Feedback) -> str:
    influenced_share = made.fed
    if influenced_share.rate is None:
        return "No training row so far."
    return (
        f"{number(influenced_share.count)} of {number(influenced_share.n)} training rows"
        f" ({per_cent(influenced_share.rate)}) have their label from the model, or from somebody"
        " who had seen its answer."
    )


def _loop_in_words(made: Feedback) -> Iterator[str]:
    if made.log_e_known is None:
        yield (
            "No outcomes: whether what becomes known depends on who decided can't be "
            "seen. Send outcomes of the hold-out and of the rest alike."
        )
        return
    evidence = f"e-value {_e(made.log_e_known)}, told from {_e(made.needed)} on"
    if not made.feeds:
        yield (
            f"No sign of a loop: as far as {number(made.held)} units in the hold-out and "
            f"{number(made.with_model)} others tell, as much becomes known whoever decides "
            f"({evidence})."
        )
        return
    yield (
        "A loop feeds itself: what becomes known depends on whether the model had a hand "
        f"({evidence}). A version that learns from these records learns where this one looked."
    )
    if made.known:
        yield _example(made.known[0])
    yield (
        "Train on the hold-out, or weigh by the chance with which each case was looked at; take "
        "no figure of the rest for what is there."
    )


def _example(known: Known) -> str:
    difference = known.difference
    return (
        f"At {known.site}, {known.label} became known in {100 * (difference.first or 0):.0f} of 100"
        f" cases where the model had a hand and in {100 * (difference.second or 0):.0f} of 100 in"
        f" the hold-out (difference {difference.per_100:+.1f}, {difference.low:+.1f} to"
        f" {difference.high:+.1f}, {difference.method})."
    )


def _shares(made: Feedback) -> str:
    return " or ".join(f"{100 * share:g} %" for share in made.shares)


def _e(log_e: float) -> str:
    if log_e > log(1e6):
        return "over 1,000,000"
    return "under 0.01" if log_e < log(0.01) else f"{exp(log_e):,.{0 if log_e > log(10) else 2}f}"
