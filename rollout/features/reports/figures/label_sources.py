"""Where decisions came from, and the training label of each case and lever, its source and weight.

A case has one label for each lever: outcomes go before human decisions, unassisted decisions before
assisted ones, and all of them before answers of the model. An audited row represents the unaudited
cases of the model, so its weight is one over the audit share; every other row has weight 1. The
weights of rows from outcomes and humans thus add up to all cases.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from rollout.engine.evidence.frames import INSTANT, VALUE_PREFIX, LabelCoverage, RecordFrames
from rollout.engine.evidence.late_senders import LateSenders, SilentSpell
from rollout.engine.evidence.version_uses import DRAWS
from rollout.engine.records.records import RemarkReason
from rollout.engine.records.reviews import DROP, RELABEL, CleaningChoice, find_final_choices
from rollout.engine.words.evidence_text import VouchedUnits, describe_vouched_units
from rollout.engine.words.formatting import (
    format_count,
    format_percent,
    format_quantity,
    join_words,
)
from rollout.features.reports.inputs.inputs import MODEL, ReportInputs, join_stages
from rollout.kernel.policy.evidence_sources import BEFORE_SOURCES, CountedSource, RegisteredUnits
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy.stages import describe_sample_share


@dataclass(frozen=True, slots=True)
class UnsourcedDecisions:
    """Decisions that are no evidence because of their source, with the reason."""

    reason: str
    decisions: int


MIN_MISSING = 0.05
"""Share of predicted cases without a decision from which on a report says what they do."""


@dataclass(frozen=True, slots=True)
class VersionSample:
    """A version that runs on a part of the cases.

    Attributes:
        is_recorded: whether the records say which cases.
    """

    version: str
    share: float
    is_recorded: bool

    @property
    def text(self) -> str:
        """Return what that means for its units, as a sentence."""
        part = describe_sample_share(self.version, self.share)
        if self.is_recorded:
            return f"{part}, sampled by the service; others are no units of it."
        return f"{part}, and no record says on which: each counts, against the model."


@dataclass(frozen=True, slots=True)
class DecisionSources:
    """Decisions by source, most first; () where sources are not distinguished.

    Attributes:
        chosen: the sources that a replay counts; () for all.
        left_out: decisions of its other sources.
        labels: how many predicted cases of recorded files have a decision.
        late: what cases and predictions look like that came after a decision; None if hardly any.
        vouched: units that count only because their senders are vouched for; None without any.
        backtest: predictions of files that count though they were made after the decisions.
        spells: times without a case that cost units; () where most cases come late anyway.
        samples: the versions that run on a part of the cases.
        registered: who registered the cases; () where files don't say it.
    """

    counted: tuple[CountedSource, ...]
    unsourced: tuple[UnsourcedDecisions, ...]
    chosen: tuple[str, ...] = ()
    left_out: int = 0
    labels: LabelCoverage | None = None
    late: LateSenders | None = None
    vouched: VouchedUnits | None = None
    spells: tuple[SilentSpell, ...] = ()
    backtest: int = 0
    samples: tuple[VersionSample, ...] = ()
    registered: tuple[RegisteredUnits, ...] = ()

    @property
    def sample_text(self) -> str:
        """Return which versions run on a part of the cases as sentences, "" for none."""
        return " ".join(sample.text for sample in self.samples)

    @property
    def backtest_text(self) -> str:
        """Return how many predictions a backtest counts as sentences, "" for none."""
        if not self.backtest:
            return ""
        predictions = format_quantity(self.backtest, "prediction was", "predictions were")
        return (
            f"A backtest (--backtest): {predictions} made after the decisions, and count. Every"
            " figure assumes that the model did not see the answers."
        )

    @property
    def vouched_text(self) -> str:
        """Return which units could have been sent with knowledge of the answer, "" for none."""
        return f"{describe_vouched_units(self.vouched)}." if self.vouched else ""

    @property
    def label_text(self) -> str:
        """Return which cases without a decision count, "" for a service's records."""
        return describe_coverage(self.labels)

    @property
    def choice_text(self) -> str:
        """Return which sources a replay counts as sentences, "" for all."""
        if not self.chosen:
            return ""
        used = sum(count.decisions for count in self.counted)
        return (
            f"Only decisions of {join_words(list(self.chosen))} count in this replay (--sources):"
            f" {format_count(used)} of {format_quantity(used + self.left_out, 'decision')}. It says"
            " nothing about the decisions of other sources."
        )


def describe_coverage(labels: LabelCoverage | None) -> str:
    """Return whether labels are a sample, or what cases without a decision do; "" for few.

    >>> describe_coverage(LabelCoverage(200, 200, 0))
    ''
    """
    if labels is None or not (labels.is_sample or labels.missing_share > MIN_MISSING):
        return ""
    if labels.is_sample:
        share = format_percent(labels.labelled / labels.predicted) if labels.predicted else "0 %"
        return (
            f"Labels are a sample (--labels sampled): only the {format_count(labels.labelled)} of"
            f" {format_count(labels.predicted)} predicted cases ({share}) with a decision count."
        )
    return (
        f"{format_count(labels.missing)} of"
        f" {format_quantity(labels.predicted, 'predicted case')} have no decision and count against"
        " the model (--labels all)."
    )


def compute_decision_sources(
    records: RecordFrames,
    chosen_sources: tuple[str, ...] = (),
    late: LateSenders | None = None,
    spells: tuple[SilentSpell, ...] = (),
    vouched: VouchedUnits | None = None,
    shares: Mapping[str, float] | None = None,
    registered: Iterable[RegisteredUnits] = (),
) -> DecisionSources:
    """Return the sources of the decisions, and those of no source by reason."""
    has_sources = bool(chosen_sources) or records.decisions["source"].is_not_null().any()
    counts = (
        records.decisions.group_by(source=pl.col("source").fill_null(BEFORE_SOURCES))
        .agg(decisions=pl.len(), reviewers=pl.col("reviewer").n_unique())
        .sort(["decisions", "source"], descending=[True, False])
    )
    reasons = records.unsourced_decisions.group_by("reason").len().sort("reason")
    return DecisionSources(
        tuple(CountedSource(*row) for row in counts.iter_rows()) if has_sources else (),
        tuple(UnsourcedDecisions(*row) for row in reasons.iter_rows()),
        chosen_sources,
        records.rejected.filter(pl.col("reason") == RemarkReason.OTHER_SOURCE).height
        if chosen_sources
        else 0,
        records.labels,
        late,
        vouched,
        spells,
        records.backtest,
        tuple(
            VersionSample(version, share, records.cases[DRAWS].null_count() < records.cases.height)
            for version, share in (shares or {}).items()
        ),
        tuple(registered),
    )


def count_vouched_units(inputs: ReportInputs) -> VouchedUnits | None:
    """Return the gate units that were sent after a decision, by senders who are vouched for.

    Frames name no senders, so the policy's vouched accounts stand together.
    """
    vouched, records = inputs.policy.evidence.sources.vouched, inputs.records
    if not vouched:
        return None
    is_counted = (pl.col("track") == "gate") & pl.col("excluded").is_null()
    units = (
        inputs.units.filter(is_counted)
        .select(pl.col(("unit", "case_key", "version")).cast(pl.String))
        .unique(["unit", "version"])
    )
    first_times = (
        records.decisions.select("case_key", at=pl.min_horizontal("at", "received_at")),
        records.first_decisions.select("case_key", "at"),
        records.outcomes.select("case_key", "at"),
    )
    decided = pl.concat(first_times).group_by("case_key").agg(decided=pl.col("at").min())
    cases = records.cases.select("case_key", case_at="received_at", case_known="known_at")
    sent = pl.max_horizontal("case_at", pl.coalesce("received_at", "at"))
    known_at = pl.max_horizontal(
        pl.coalesce("case_known", "case_at"), pl.coalesce("known_at", "received_at", "at")
    )
    late = (
        records.predictions.join(cases, on="case_key")
        .join(decided, on="case_key")
        .filter(sent > pl.col("decided"), known_at <= pl.col("decided"))
        .select("case_key", "version")
    )
    count = units.join(late, on=["case_key", "version"], how="semi").height
    longest = max(vouched.values())
    names = join_words(sorted(vouched))
    return VouchedUnits(names, count, units.height, int(longest.total_seconds())) if count else None


BLIND, AUDIT, ASSISTED = "blind", "audit", "assisted"
OUTCOME, UNKNOWN, MODEL_MADE = "outcome", "unknown", "model-made"
SOURCES = (BLIND, AUDIT, ASSISTED, OUTCOME, UNKNOWN, MODEL_MADE)
"""Sources of labels. `unknown`: a human decision with unknown exposure."""

HUMAN_SOURCES = tuple(source for source in SOURCES if source != MODEL_MADE)
"""The default sources of an export."""

MODEL_INFLUENCED = (ASSISTED, MODEL_MADE)
"""Sources that the model influenced."""

TRAINING_SCHEMA = {
    "case_key": pl.String(),
    "site": pl.String(),
    "window": pl.String(),
    "occurred_at": INSTANT,
    "episode": pl.String(),
    "lever": pl.String(),
    "label": pl.String(),
    "source": pl.String(),
    "weight": pl.Float64(),
    "version": pl.String(),
    "cleaned": pl.String(),
}
"""Columns of a training row. `version`: the version that made the label or was audited; `cleaned`:
the choice about it. Both can be null, and so can window, time and episode."""

ASSIGNMENT_SCHEMA = {
    "case_key": pl.String(),
    "version": pl.String(),
    "decider": pl.String(),
    "share": pl.Float64(),
}
"""Columns of assignments: the acting version and the decider; `share` is the audit share of an
audited case, null for all others."""
SOURCE_BY_EXPOSURE = {
    "blind": BLIND,
    "assisted": ASSISTED,
    "revealed": ASSISTED,
    "unknown": UNKNOWN,
}


def build_assignments(inputs: ReportInputs) -> pl.DataFrame:
    """Return who decided each case above shadow, with columns `ASSIGNMENT_SCHEMA`.

    Empty for a replay: its files have exposures but no assignments.
    """
    if inputs.is_simulated:
        return pl.DataFrame(schema=ASSIGNMENT_SCHEMA)
    cases = join_stages(inputs, inputs.decided_cases.filter(pl.col("version").is_not_null()))
    is_audited = pl.col("audited") & (pl.col("decider") == MODEL)
    blind = pl.col("blind")
    share = pl.when(is_audited).then(((pl.col("reviewed_share") - blind) / (1 - blind)).round(12))
    return cases.with_columns(share=share).select(*ASSIGNMENT_SCHEMA)


def build_labelled_rows(
    records: RecordFrames,
    policy: Policy,
    windows: pl.DataFrame,
    assignments: pl.DataFrame,
    choices: Iterable[CleaningChoice] = (),
) -> pl.DataFrame:
    """Return every case and lever with its label, sorted by case key and lever.

    `records`: a history, or some of its cases with all their records.
    `windows`: columns case_key, window; other cases have no window.
    `assignments`: columns of `ASSIGNMENT_SCHEMA`.
    `choices`: cleaning choices in order of time.

    Returns:
        The columns of `TRAINING_SCHEMA`; label and source are null without a label or a majority.
        Dropped cases are included, with `cleaned` `drop`.
    """
    facts = records.cases.join(
        windows.select("case_key", "window"), on="case_key", how="left"
    ).select("case_key", "site", "window", "occurred_at", "episode")
    parts = [
        _build_lever_rows(records, policy, lever.id, facts, assignments).with_columns(
            place=pl.lit(index)
        )
        for index, lever in enumerate(policy.levers)
    ]
    return (
        _apply_choices(pl.concat(parts), choices)
        .sort("case_key", "place")
        .select(*TRAINING_SCHEMA)
        .cast(pl.Schema(TRAINING_SCHEMA))
    )


def _build_lever_rows(
    records: RecordFrames,
    policy: Policy,
    lever: str,
    facts: pl.DataFrame,
    assignments: pl.DataFrame,
) -> pl.DataFrame:
    column = VALUE_PREFIX + lever
    answers = records.predictions.select("case_key", "version", made=column)
    model_answers = (
        assignments.filter(pl.col("decider") == MODEL)
        .drop("decider")
        .join(answers, on=["case_key", "version"], how="left")
    )
    outcomes = records.outcomes.select("case_key", outcome=column).drop_nulls()
    human_labels = find_human_labels(records, column, outside_blind=policy.evidence.outside_blind)
    rows = facts.with_columns(lever=pl.lit(lever))
    for part in (outcomes, human_labels, model_answers):
        rows = rows.join(part, on="case_key", how="left")
    is_audited = pl.col("share").is_not_null() & (pl.col("seen") == BLIND)
    has_version = (pl.col("source") == MODEL_MADE) | (pl.col("source") == AUDIT)
    return rows.with_columns(
        label=pl.coalesce("outcome", "said", "made"),
        source=pl.when(pl.col("outcome").is_not_null())
        .then(pl.lit(OUTCOME))
        .when(pl.col("said").is_not_null())
        .then(pl.when(is_audited).then(pl.lit(AUDIT)).otherwise("seen"))
        .when(pl.col("made").is_not_null())
        .then(pl.lit(MODEL_MADE)),
    ).with_columns(
        weight=pl.when(pl.col("source") == AUDIT).then(1 / pl.col("share")).otherwise(1.0),
        version=pl.when(has_version).then("version"),
    )


def find_human_labels(records: RecordFrames, column: str, *, outside_blind: bool) -> pl.DataFrame:
    """Return the human label of each case: case_key, said, seen.

    It is the majority of the least exposed decisions. Without a majority among blind decisions,
    the assisted or revealed ones decide.
    """
    source_by_exposure = SOURCE_BY_EXPOSURE | ({"unknown": BLIND} if outside_blind else {})
    majority = (
        records.decisions.filter(pl.col(column).is_not_null())
        .select("case_key", said=column, seen=pl.col("exposure").replace_strict(source_by_exposure))
        .group_by("case_key", "seen", "said")
        .len()
        .filter(2 * pl.col("len") > pl.col("len").sum().over("case_key", "seen"))
    )
    ordered = majority.with_columns(
        order=pl.col("seen").replace_strict({BLIND: 0, ASSISTED: 1, UNKNOWN: 2})
    ).sort("case_key", "order")
    return ordered.unique("case_key", keep="first").select("case_key", "said", "seen")


def _apply_choices(rows: pl.DataFrame, choices: Iterable[CleaningChoice]) -> pl.DataFrame:
    """Return the rows with cleaning choices; a new label counts as assisted."""
    final_choices = [
        (choice.key, choice.lever, choice.choice, choice.label)
        for choice in find_final_choices(choices).values()
    ]
    schema = dict.fromkeys(("case_key", "lever", "choice", "better"), pl.String)
    frame = pl.DataFrame(final_choices, schema=schema, orient="row")
    is_relabelled = pl.col("choice") == RELABEL
    return rows.join(frame, on=["case_key", "lever"], how="left").with_columns(
        label=pl.when(is_relabelled).then("better").otherwise("label"),
        source=pl.when(is_relabelled).then(pl.lit(ASSISTED)).otherwise("source"),
        cleaned="choice",
    )


def select_training_rows(rows: pl.DataFrame, sources: Sequence[str]) -> pl.DataFrame:
    """Return the rows to train on: labelled, not dropped, from these sources.

    If labels of the model are included, every audited row has weight 1.

    Raises:
        ValueError: a source is none of `SOURCES`.
    """
    unknown = [source for source in sources if source not in SOURCES]
    if unknown:
        raise ValueError(f"no source {unknown[0]}; there is {', '.join(SOURCES)}")
    selected = rows.filter(
        pl.col("label").is_not_null(),
        pl.col("source").is_in(list(sources)),
        pl.col("cleaned").is_null() | (pl.col("cleaned") != DROP),
    )
    return selected.with_columns(weight=pl.lit(1.0)) if MODEL_MADE in sources else selected
