"""Where the label of a training row comes from: one label per case and lever, and what it weighs.

What turned out to be true goes before what people said, people who saw nothing of the model before
those who did, and all of them before what the model itself said. An audited row stands for the
cases of the model that nobody looked at, so it weighs one over the audit's share; every other row
weighs 1. So the rows that people and outcomes gave add up to all cases.
"""

from collections.abc import Callable, Iterable, Sequence

import polars as pl

from rollout.core.policy.policy import Policy, Stage
from rollout.core.records.label_cleaning import DROP, RELABEL, Choice, holding
from rollout.reports.inputs.decided_by import MODEL, standing
from rollout.reports.inputs.inputs import Era, Inputs
from rollout.tally.frames import INSTANT, VALUE, Records
from rollout.tally.slots import EPOCH, MICROSECOND

BLIND, AUDIT, ASSISTED = "blind", "audit", "assisted"
OUTCOME, UNKNOWN, MODEL_MADE = "outcome", "unknown", "model-made"
SOURCES = (BLIND, AUDIT, ASSISTED, OUTCOME, UNKNOWN, MODEL_MADE)
"""Where labels come from. `unknown`: by a person of whom nobody says what they had seen."""

PEOPLES = tuple(source for source in SOURCES if source != MODEL_MADE)
"""The sources of an export that asks for none by name."""

FED = (ASSISTED, MODEL_MADE)
"""Labels that the model had a hand in: what is trained on them learns from itself."""

COLUMNS = {
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
"""Columns of a training row. `version`: whose answer it is, or was audited; `cleaned`: the choice
that somebody made about it. Both may be null, as may window, time and episode."""

ASSIGNED = {
    "case_key": pl.String(),
    "version": pl.String(),
    "decider": pl.String(),
    "share": pl.Float64(),
}
"""Columns of what was assigned: whose answer was acted on and by whom it was decided; `share` is
the chance with which a case that the model decided was audited, null where this one was not."""

CHOSEN = {"case_key": pl.String, "lever": pl.String, "choice": pl.String, "better": pl.String}
SEEN_AS = {"blind": BLIND, "assisted": ASSISTED, "revealed": ASSISTED, "unknown": UNKNOWN}


def assigned_of(inputs: Inputs) -> pl.DataFrame:
    """Return who decided each case above shadow, as `ASSIGNED` says.

    A replay decides nothing: what its files say of exposures is all there is, so it has no rows.
    """
    if inputs.simulated:
        return pl.DataFrame(schema=ASSIGNED)
    cases = standing(inputs).filter(pl.col("version").is_not_null())
    is_audited = pl.col("audited") & (pl.col("decider") == MODEL)
    share = pl.when(is_audited).then(stage_share(inputs, lambda stage: stage.audit))
    return cases.with_columns(share=share).select(*ASSIGNED)


def stage_share(inputs: Inputs, of: Callable[[Stage], float | None]) -> pl.Expr:
    """Return a share of each row's stage, from its `rung` and `t`, under the policy of its time."""
    policy_periods = inputs.eras or (Era(inputs.first, inputs.policy, inputs.timelines),)
    expression = pl.lit(None, pl.Float64)
    for index, period in enumerate(policy_periods):
        shares = {
            stage_level: of(period.policy.stage(stage_level))
            for stage_level in range(1, len(period.policy.rungs))
        }
        period_share = pl.col("rung").replace_strict(shares, default=None, return_dtype=pl.Float64)
        is_later = pl.col("t") >= (period.since - EPOCH) // MICROSECOND
        expression = (
            period_share
            if index == 0
            else pl.when(is_later).then(period_share).otherwise(expression)
        )
    return expression


def labelled(
    records: Records,
    policy: Policy,
    windows: pl.DataFrame,
    assigned: pl.DataFrame,
    choices: Iterable[Choice] = (),
) -> pl.DataFrame:
    """Return every case and lever with its label, in the order of case key and policy.

    Args:
        records: a history, or some of its cases with all that was said of them.
        policy: for levers, and for what a verdict from elsewhere counts as.
        windows: columns case_key, window; a case that is not in it has none.
        assigned: who decided, as `ASSIGNED` says.
        choices: what people chose, in the order in which they did.

    Returns:
        The columns of `COLUMNS`; label and source are null where nobody knows one, or people
        differ. What was dropped is there still, with `cleaned` `drop`.
    """
    placed_cases = records.cases.join(
        windows.select("case_key", "window"), on="case_key", how="left"
    )
    facts = placed_cases.select("case_key", "site", "window", "occurred_at", "episode")
    choice_frame = _chosen(choices)
    parts = [
        _cleaned(_of_lever(records, policy, lever.id, facts, assigned), choice_frame).with_columns(
            place=pl.lit(index)
        )
        for index, lever in enumerate(policy.levers)
    ]
    return pl.concat(parts).sort("case_key", "place").select(*COLUMNS).cast(pl.Schema(COLUMNS))


def _of_lever(
    records: Records, policy: Policy, lever: str, facts: pl.DataFrame, assigned: pl.DataFrame
) -> pl.DataFrame:
    column = VALUE + lever
    answers = records.predictions.select("case_key", "version", made=column)
    model_decided = assigned.filter(pl.col("decider") == MODEL).drop("decider")
    model_answers = model_decided.join(answers, on=["case_key", "version"], how="left")
    outcomes = records.outcomes.select("case_key", outcome=column).drop_nulls()
    human_labels = verdicts(records, column, outside_blind=policy.evidence.outside_blind)
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


def verdicts(records: Records, column: str, *, outside_blind: bool) -> pl.DataFrame:
    """Return what people said of each case: case_key, said, seen.

    Of those who saw least the one answer, or what more than half of them gave. Where these differ,
    as two blind people may, whoever came to it afterwards with open eyes decides.
    """
    source_by_exposure = SEEN_AS | ({"unknown": BLIND} if outside_blind else {})
    answered = records.decisions.filter(pl.col(column).is_not_null())
    answers = answered.select(
        "case_key", said=column, seen=pl.col("exposure").replace_strict(source_by_exposure)
    )
    counts = answers.group_by("case_key", "seen", "said").len()
    total = pl.col("len").sum().over("case_key", "seen")
    majority = counts.filter(2 * pl.col("len") > total)
    order = pl.col("seen").replace_strict({BLIND: 0, ASSISTED: 1, UNKNOWN: 2})
    ordered = majority.with_columns(order=order).sort("case_key", "order")
    return ordered.unique("case_key", keep="first").select("case_key", "said", "seen")


def _chosen(choices: Iterable[Choice]) -> pl.DataFrame:
    rows = [
        (choice.key, choice.lever, choice.choice, choice.label)
        for choice in holding(choices).values()
    ]
    return pl.DataFrame(rows, schema=CHOSEN, orient="row")


def _cleaned(rows: pl.DataFrame, chosen: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with what people chose: a new label is by somebody who saw the model's."""
    joined = rows.join(chosen, on=["case_key", "lever"], how="left")
    is_relabelled = pl.col("choice") == RELABEL
    return joined.with_columns(
        label=pl.when(is_relabelled).then("better").otherwise("label"),
        source=pl.when(is_relabelled).then(pl.lit(ASSISTED)).otherwise("source"),
        cleaned="choice",
    )


def chosen_rows(rows: pl.DataFrame, sources: Sequence[str]) -> pl.DataFrame:
    """Return the rows to train on: labelled, not dropped, from the sources asked for.

    An audited row stands for cases that nobody looked at; where these are in the rows themselves,
    because what the model made was asked for, it stands for itself.

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
