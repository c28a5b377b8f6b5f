"""Cases to look at again: the model was sure and wrong, people differ, a person may have slipped.

"Sure" is measured by the model's own habits, label by label: a version is sure of an answer when
its confidence reaches the mean that it gives to that answer on the cases which people called so.
So a shy model and a loud one are held against themselves, and a label that is always hard against
its own cases. This is the threshold of confident learning (Northcutt, Jiang and Chuang, Journal
of Artificial Intelligence Research 70 (2021) 1373), written anew for records that hold only the
confidence of the answer given: of any other label it then is at most 1 − confidence, and that much
is assumed. A model that is sure does not prove a person wrong; without a witness (the outcome, or
other people) a case is listed under what people said.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import log

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import FAILED
from rollout.core.policy.policy import Policy
from rollout.reports.inputs.pairs import UNSEEN, Pairs, about_of, case_facts, compared
from rollout.tally.frames import VALUE, Records

WRONG = "confident and wrong"
SPLIT = "people split"
SLIP = "suspected human error"
KINDS = (WRONG, SPLIT, SLIP)
DIFFER = "people said otherwise"
"""The kind of a pair whose loss was kept when it was counted: how sure is sure follows from all
pairs of a span, an outcome comes later, and so may what other people say."""

TOP = 20  # of each kind, version and lever
SMALLEST = 1e-6  # a probability below counts as this: records carry six digits at most
ROUNDING = 1e-9  # a mean of equal confidences may lie a rounding above each of them
NO_CONFIDENCES = "no confidences were sent"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Loss:
    """One case that deserves a second look.

    Attributes:
        case_key, version, lever: whose answer to what.
        site, window, occurred_at: where and when; None where the case has no usable time.
        human: what people said who differ from the model, the most frequent such answer; where
            all agree with it and the outcome proves them wrong, what they said.
        model, confidence: what the model said, and how sure it was; None where it did not say.
        loss: surprise in nats, −ln of the probability that the model left for people's answer
            (`people split`: mean over their answers). None without confidence.
        cost: of doing what was wrong: the model's answer, or under `suspected human error`
            people's, in the policy's unit.
        kind: one of `KINDS`.
        outcome: what turned out to be true; None where nobody knows.
        votes: every answer that people gave without the model's in sight, most frequent first.
        about: the case's attributes.
    """

    case_key: str
    version: str
    lever: str
    site: str | None
    window: str | None
    occurred_at: datetime | None
    human: str
    model: str
    confidence: float | None
    loss: float | None
    cost: float
    kind: str
    outcome: str | None
    votes: tuple[tuple[str, int], ...]
    about: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class SureFrom:
    """From which confidence on a version counts as sure of a label, over how many cases."""

    label: str
    confidence: float
    n: int


@dataclass(frozen=True, slots=True)
class Losses:
    """The losses of one version on one lever.

    Attributes:
        version, lever: whose answers.
        compared: cases that the version answered and people judged unseen.
        without_confidence: of these, the ones of which it did not say how sure it was.
        said: words for what the figures cannot say; empty where all is there.
        sure_from: per label; empty without confidences. For numbers one row, label `any`.
        counts: cases of each kind.
        top: at most 20 of each kind, those first whose cost times loss is largest.
    """

    version: str
    lever: str
    compared: int
    without_confidence: int
    said: str
    sure_from: tuple[SureFrom, ...]
    counts: dict[str, int]
    top: tuple[Loss, ...]


def losses_of(
    pairs: Pairs, records: Records, cases: pl.DataFrame, policy: Policy
) -> tuple[Losses, ...]:
    """Return the losses of every version and lever, versions in order."""
    facts = case_facts(records, cases)
    return tuple(
        _losses(pairs, records, facts, version, lever)
        for version in pairs.predicted
        for lever in policy.levers
    )


def top_losses(
    pairs: Pairs,
    records: Records,
    cases: pl.DataFrame,
    policy: Policy,
    *,
    most: int | None = TOP,
) -> tuple[Loss, ...]:
    """Return the losses of all versions and levers, of each kind those first that cost most.

    Args:
        pairs: of the same records; the model's habits are read off them.
        records: for every verdict, outcome and attribute.
        cases: the cases that could be placed.
        policy: for levers and costs.
        most: of each version, lever and kind; None for all of them.
    """
    facts = case_facts(records, cases)
    return tuple(
        loss
        for version in pairs.predicted
        for lever in policy.levers
        for loss in _listed(_judged(pairs, records, version, lever), facts, records, most)
    )


def described(found: pl.DataFrame, records: Records, cases: pl.DataFrame) -> tuple[Loss, ...]:
    """Return losses that are known, in their order, with what records say of their cases.

    Args:
        found: columns case_key, version, lever, human, model, confidence, loss, cost and kind.
        records: of these cases.
        cases: those of them that could be placed.
    """
    levers = found["lever"].unique().to_list()
    outcomes = {
        lever: dict(records.outcomes.select("case_key", VALUE + lever).iter_rows())
        for lever in levers
    }
    votes = {lever: _votes_by_case(records, lever, found) for lever in levers}
    joined = found.join(
        case_facts(records, cases), on="case_key", how="left", maintain_order="left"
    )
    return tuple(
        _loss(
            {**row, "outcome": outcomes[row["lever"]].get(row["case_key"])},
            votes[row["lever"]].get(row["case_key"], ()),
        )
        for row in joined.iter_rows(named=True)
    )


def surprise(confidence: float) -> float:
    """Return −ln of the probability that a version left for any answer but its own, in nats.

    >>> round(surprise(0.9), 6), round(surprise(1.0), 6)
    (2.302585, 13.815511)
    """
    return -log(max(1 - confidence, SMALLEST))


def sure_from(pairs: pl.DataFrame, lever: Lever) -> tuple[SureFrom, ...]:
    """Return from which confidence on a version is sure of each label.

    Args:
        pairs: of one version and lever, with human, model, agrees and confidence.
        lever: for numbers all answers share one threshold, since no two need be alike.

    >>> rows = {"human": ["a", "a", "b"], "model": ["a", "b", "b"], "confidence": [0.9, 0.8, 0.6]}
    >>> frame = pl.DataFrame(rows).with_columns(agrees=pl.col("human") == pl.col("model"))
    >>> [(s.label, round(s.confidence, 3), s.n) for s in sure_from(frame, Lever("x", ("a", "b")))]
    [('a', 0.55, 2), ('b', 0.6, 1)]
    """
    answered = pairs.filter((pl.col("model") != FAILED) & pl.col("confidence").is_not_null())
    probability = pl.when("agrees").then(pl.col("confidence")).otherwise(1 - pl.col("confidence"))
    label = pl.col("human") if lever.number is None else pl.lit("any")
    thresholds = (
        answered.group_by(label=label).agg(mean=probability.mean(), n=pl.len()).sort("label")
    )
    return tuple(SureFrom(*row) for row in thresholds.iter_rows())


def _losses(
    pairs: Pairs, records: Records, facts: pl.DataFrame, version: str, lever: Lever
) -> Losses:
    classified = _judged(pairs, records, version, lever)
    missing = classified["confidence"].null_count()
    counts = dict(classified.drop_nulls("kind").group_by("kind").len().iter_rows())
    return Losses(
        version=version,
        lever=lever.id,
        compared=classified.height,
        without_confidence=missing,
        said=NO_CONFIDENCES if classified.height and missing == classified.height else "",
        sure_from=sure_from(pairs.of(version, lever.id), lever),
        counts={kind: counts.get(kind, 0) for kind in KINDS},
        top=tuple(_listed(classified, facts, records, TOP)),
    )


def _judged(pairs: Pairs, records: Records, version: str, lever: Lever) -> pl.DataFrame:
    """Return every case that the version answered and people judged, with its kind of loss.

    Columns: case_key, version, lever, model, confidence, outcome, human, kind, loss, cost.
    """
    answers = _answered(records, version, lever)
    votes = _votes(records, lever).join(answers.select("case_key", "model"), on="case_key")
    votes = votes.join(_alike(lever, votes, "label"), on=["label", "model"])
    reviewed = _people(votes).join(answers, on="case_key")
    with_outcome = reviewed.filter(pl.col("outcome").is_not_null())
    proven = _alike(lever, with_outcome, "outcome").rename({"agrees": "proven"})
    reviewed = reviewed.join(proven, on=["outcome", "model"], how="left")
    reviewed = reviewed.join(_habits(pairs, version, lever), on="habit", how="left")
    classified = reviewed.with_columns(
        kind=_kind(numbers=lever.number is not None), loss=_surprise()
    )
    return _costed(classified, lever)


def _answered(records: Records, version: str, lever: Lever) -> pl.DataFrame:
    column = VALUE + lever.id
    outcomes = records.outcomes.select("case_key", outcome=column)
    threshold_label = pl.col("model") if lever.number is None else pl.lit("any")
    predictions = records.predictions.filter(pl.col("version") == version).drop_nulls(column)
    predictions = predictions.select(
        "case_key", "version", "confidence", lever=pl.lit(lever.id), model=column
    )
    return predictions.join(outcomes, on="case_key", how="left").with_columns(habit=threshold_label)


def _votes(records: Records, lever: Lever) -> pl.DataFrame:
    """Return how many people gave each answer to each case unseen: case_key, label, n."""
    decisions = records.decisions.filter(pl.col("exposure").is_in(UNSEEN))
    decisions = decisions.select("case_key", label=VALUE + lever.id).drop_nulls()
    return decisions.group_by("case_key", "label").agg(n=pl.len())


def _alike(lever: Lever, frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Return for each different pair of `column` and model whether they agree."""
    pairs = frame.select(human=column, model="model")
    return compared(lever, pairs).select(pl.col("human").alias(column), "model", "agrees")


def _people(votes: pl.DataFrame) -> pl.DataFrame:
    """Return per case how many people are with and against the model, and what those say."""
    against = pl.col("label").filter(~pl.col("agrees"))
    ordered = votes.sort("n", "label", descending=[True, False])
    return ordered.group_by("case_key").agg(
        labels=pl.len(),
        n_with=pl.col("n").filter("agrees").sum(),
        n_against=pl.col("n").filter(~pl.col("agrees")).sum(),
        human=pl.coalesce(against.first(), pl.col("label").first()),
    )


def _habits(pairs: Pairs, version: str, lever: Lever) -> pl.DataFrame:
    rows = [(s.label, s.confidence) for s in sure_from(pairs.of(version, lever.id), lever)]
    return pl.DataFrame(rows, schema={"habit": pl.String, "sure": pl.Float64}, orient="row")


def _kind(*, numbers: bool) -> pl.Expr:
    """Return the kind of loss, null for a case that needs no second look.

    A label that people never gave has no threshold, so the model is never sure of it.
    """
    is_sure = (pl.col("confidence") >= pl.col("sure") - ROUNDING).fill_null(value=False)
    has_no_confidence = pl.col("confidence").is_null()
    is_proven, has_proof = pl.col("proven"), pl.col("proven").is_not_null()
    some_with, some_against = pl.col("n_with") > 0, pl.col("n_against") > 0
    is_majority = ~has_proof & some_with & (pl.col("n_with") >= pl.col("n_against"))
    is_slip = some_against & ((is_proven & (is_sure | has_no_confidence)) | (is_majority & is_sure))
    is_wrong = is_sure & ((has_proof & ~is_proven) | (~has_proof & some_against & ~some_with))
    is_split = (some_with & some_against) if numbers else pl.col("labels") > 1
    return (
        pl.when(is_slip.fill_null(value=False))
        .then(pl.lit(SLIP))
        .when(is_wrong.fill_null(value=False))
        .then(pl.lit(WRONG))
        .when(is_split)
        .then(pl.lit(SPLIT))
    )


def _surprise() -> pl.Expr:
    """Return the loss: of a split case the mean over its people, else of the other answer."""
    own_probability = pl.col("confidence").clip(SMALLEST, 1.0)
    other_probability = (1 - pl.col("confidence")).clip(SMALLEST, 1.0)
    vote_count = pl.col("n_with") + pl.col("n_against")
    mixed = (
        -(pl.col("n_with") * own_probability.log() + pl.col("n_against") * other_probability.log())
        / vote_count
    )
    return (
        pl.when((pl.col("n_with") > 0) & (pl.col("n_against") > 0))
        .then(mixed)
        .otherwise(-other_probability.log())
    )


def _costed(judged: pl.DataFrame, lever: Lever) -> pl.DataFrame:
    """Add what doing the wrong thing costs: the model's answer, or a slip of people's."""
    is_slip = pl.col("kind") == SLIP
    correct_label = pl.coalesce("outcome", "human")
    actions = judged.drop_nulls("kind").select(
        "case_key",
        human=pl.when(is_slip).then("model").otherwise(correct_label),
        model=pl.when(is_slip).then("human").otherwise("model"),
    )
    costs = compared(lever, actions).select("human", "model", "cost")
    case_costs = actions.join(costs, on=["human", "model"]).select("case_key", "cost")
    return judged.join(case_costs, on="case_key", how="left")


def _listed(
    judged: pl.DataFrame, facts: pl.DataFrame, records: Records, most: int | None
) -> Iterator[Loss]:
    """Yield the losses kind by kind, those first whose cost times loss is largest."""
    ordered = judged.drop_nulls("kind").with_columns(weight=pl.col("cost") * pl.col("loss"))
    sort_keys = ["weight", "loss", "cost", "case_key"]
    ordered = ordered.sort(sort_keys, descending=[True, True, True, False], nulls_last=True)
    parts = [ordered.filter(pl.col("kind") == kind).head(most or ordered.height) for kind in KINDS]
    joined = pl.concat(parts).join(facts, on="case_key", how="left", maintain_order="left")
    lever = str(joined["lever"][0]) if joined.height else ""
    votes = _votes_by_case(records, lever, joined) if joined.height else {}
    for row in joined.iter_rows(named=True):
        yield _loss(row, votes[row["case_key"]])


def _votes_by_case(
    records: Records, lever: str, listed: pl.DataFrame
) -> dict[str, tuple[tuple[str, int], ...]]:
    decisions = records.decisions.filter(pl.col("exposure").is_in(UNSEEN)).join(
        listed.select("case_key"), on="case_key", how="semi"
    )
    counts = decisions.drop_nulls(VALUE + lever).group_by("case_key", VALUE + lever).len()
    votes: dict[str, tuple[tuple[str, int], ...]] = {}
    for key, label, n in counts.sort("len", VALUE + lever, descending=[True, False]).iter_rows():
        votes[key] = (*votes.get(key, ()), (label, n))
    return votes


def _loss(row: dict[str, object], votes: tuple[tuple[str, int], ...]) -> Loss:
    names = ("case_key", "version", "lever", "site", "window", "human", "model", "confidence",
             "loss", "cost", "kind", "outcome")  # fmt: skip
    at = None if row["t"] is None else EPOCH + timedelta(microseconds=int(str(row["t"])))
    values = {name: row[name] for name in names}
    return Loss(**values, occurred_at=at, votes=votes, about=about_of(row))  # type: ignore[arg-type]
