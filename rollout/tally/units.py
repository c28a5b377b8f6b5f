"""`resolve`: from a history's frames to units, each counted once, on two tracks.

A unit is a case, or one case of each episode. The gate track takes every unit when it closes, with
or without a verdict: of an episode the case with the lowest pick. The guard track takes a unit when
its first blind verdict is in, and units without one not at all: of an episode the case that is
judged first, which is known in that very instant (decision record 0012). A verdict that is left out
is none on the gate track; guards look at every verdict (decision record 0018). Written on narwhals
expressions, so the same function runs on Polars, DuckDB or whatever frame holds the history.

All instants are whole microseconds since 1970, UTC; a slot is the number of a tick on the grid
that starts there. A unit is counted in the slot at or after its time, and what the scope was when
it occurred is looked up in the slot at or before it; where both are one, it is counted in the next:
what a tick decides holds for the units that occur in that instant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import narwhals as nw

from rollout.core.policy.levers import SLACK, Cost, Lever, Margin, Number
from rollout.core.policy.measures import AGREE, DIFFER, FAILED, LATE, MISSING, OUTSIDE, WHOLE
from rollout.core.policy.policy import Policy
from rollout.tally.decision_resolution import Frame, at_place, turn, verdicts_of
from rollout.tally.frames import VALUE
from rollout.tally.slots import micros

UNLISTED = "(not listed)"  # `decided` of a person's label that the lever does not have
BELOW_FLOOR, TRAINED_ON = "below the floor", "trained on"
AFTER_VERDICT, AFTER_CLOSING = "after the verdict", "after the unit closed"

NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?\s*$"


@dataclass(frozen=True, slots=True)
class Placed:
    """What `resolve` reads: frames of any engine, with instants as whole microseconds.

    Attributes:
        cases: case_key, site, window, unit, pick, day (local day number), t (occurred), and
            received (t where the record does not say).
        predictions: case_key, version, `value:<lever>`, confidence, at (null: the case's time).
        decisions: case_key, reviewer, `value:<lever>`, seat, at; blind verdicts alone. `left_out`
            says of which the reviewer has failed the checks that the policy asks for.
        assisted: the same of verdicts given with the model's answer in sight.
        trained_until: by version, the instant up to which its training cases reach.
    """

    cases: Frame
    predictions: Frame
    decisions: Frame
    assisted: Frame
    trained_until: Mapping[str, int]


def resolve(placed: Placed, policy: Policy) -> Frame:
    """Return one row per (track, unit, version, lever).

    Columns: track (`gate`, `guard`, `assisted`), site, window, version, unit, case_key, slot,
    occurred (slot), lever, predicted, decided (`MISSING` without a verdict), second, cost,
    level, reviewer, day, excluded (a reason, null where the unit is evidence). With several
    levers the rows of lever `*` stand for all of them together.
    """
    grace = micros(policy.evidence.grace)
    cases = placed.cases.with_columns(due=nw.max_horizontal("t", "received") + grace)
    is_by_case = policy.evidence.unit == "case"
    picked_cases = cases if is_by_case else _picked(cases, grace)
    decisions = verdicts_of(placed.decisions, picked_cases, policy)
    predicted_cases = _asked(placed, cases, policy)
    judged_cases = _judged(predicted_cases, decisions, placed, policy)
    closing_cases = (
        judged_cases
        if is_by_case
        else _judged(_asked(placed, picked_cases, policy), decisions, placed, policy)
    )
    tracks = [
        _track(closing_cases, "gate", policy),
        _track(judged_cases.filter(_has_first(policy)), "guard", policy),
        _track(_assisted(predicted_cases, placed, policy), "assisted", policy),
    ]
    return nw.concat(tracks, how="vertical")


def _asked(placed: Placed, cases: Frame, policy: Policy) -> Frame:
    """Return cases with every version's prediction for them."""
    predicted_cases = placed.predictions.join(cases, on="case_key", how="inner")
    return predicted_cases.with_columns(
        predicted_at=nw.coalesce("at", "t"), occurred=nw.col("t") // micros(policy.tick)
    )


def _judged(asked: Frame, verdicts: Frame, placed: Placed, policy: Policy) -> Frame:
    exclusion = _excluded(placed.trained_until, policy)
    return asked.join(verdicts, on="case_key", how="left").with_columns(excluded=exclusion)


def _picked(cases: Frame, grace: int) -> Frame:
    """Return of each episode the case with the lowest pick of those known when it closes."""
    closing = cases.group_by("unit").agg(closes=nw.col("due").min())
    known_in_time = cases.join(closing, on="unit").filter(nw.col("due") - grace <= nw.col("closes"))
    lowest_pick = known_in_time.group_by("unit").agg(lowest=nw.col("pick").min())
    picked_cases = known_in_time.join(lowest_pick, on="unit").filter(
        nw.col("pick") == nw.col("lowest")
    )
    return picked_cases.with_columns(due=nw.col("closes")).drop("closes", "lowest")


def _excluded(trained_until: Mapping[str, int], policy: Policy) -> nw.Expr:
    """Return why a unit is no evidence for a version: a reason, or null."""
    is_after_closing = nw.when(nw.col("predicted_at") > nw.col("due")).then(nw.lit(AFTER_CLOSING))
    is_after_decision = nw.when(nw.col("predicted_at") > nw.col("first_at")).then(
        nw.lit(AFTER_VERDICT)
    )
    reason = is_after_decision.otherwise(is_after_closing.otherwise(nw.lit(None, nw.String)))
    floor = policy.evidence.confidence_floor
    if floor is not None:
        is_below_floor = nw.col("confidence").is_null() | (nw.col("confidence") < floor)
        reason = nw.when(is_below_floor).then(nw.lit(BELOW_FLOOR)).otherwise(reason)
    for version, until in trained_until.items():
        is_trained_on = (nw.col("version") == version) & (nw.col("t") <= until)
        reason = nw.when(is_trained_on).then(nw.lit(TRAINED_ON)).otherwise(reason)
    return reason


def _has_first(policy: Policy) -> nw.Expr:
    is_missing = [nw.col(f"first:{VALUE}{lever.id}").is_null() for lever in policy.levers]
    return ~nw.col("first_at").is_null() & ~nw.any_horizontal(*is_missing, ignore_nulls=True)


def _assisted(base: Frame, placed: Placed, policy: Policy) -> Frame:
    """Return units whose person saw the proposal; agreeing is leaving it as it was."""
    columns = [VALUE + lever.id for lever in policy.levers]
    numbered_decisions = placed.assisted.with_columns(place=turn("case_key"))
    first_decisions = at_place(numbered_decisions, 1, "first", columns, keep=("at", "reviewer"))
    empty_seconds = {f"second:{c}": nw.lit(None, nw.String) for c in columns}
    gate_answers = {f"gate:{c}": nw.col(f"first:{c}") for c in columns}
    times = {"gate_at": nw.col("first_at"), "second_at": nw.col("first_at")}
    return (
        base.join(first_decisions, on="case_key", how="inner")
        .with_columns(**empty_seconds, **gate_answers, **times)
        .with_columns(excluded=nw.lit(None, nw.String))
        .filter(_has_first(policy))
    )


COLUMNS = (
    "track", "site", "window", "version", "unit", "case_key", "slot", "occurred", "lever",
    "predicted", "decided", "second", "cost", "level", "reviewer", "day", "excluded",
)  # fmt: skip


def _track(judged: Frame, track: str, policy: Policy) -> Frame:
    """Return a track's rows: one per lever, and one for all together where there are several."""
    source = "gate" if track == "gate" else "first"
    timed_cases = judged.with_columns(track=nw.lit(track), counted=_counted(track))
    tick = micros(policy.tick)
    timed_cases = timed_cases.with_columns(
        slot=nw.max_horizontal(-((-nw.col("counted")) // tick), nw.col("occurred") + 1),
        on_time=_on_time(track),
        second_on_time=nw.col("second_at") <= nw.col("counted"),
        reviewer=_counting(track),
    )
    if track != "gate" and policy.evidence.unit == "episode":
        timed_cases = _first_of_each(timed_cases)
    rows = [_of_lever(timed_cases, lever, source, policy) for lever in policy.levers]
    if len(rows) > 1:
        rows.append(_of_all(timed_cases, source, policy))
    return nw.concat([lever_rows.select(*COLUMNS) for lever_rows in rows], how="vertical")


def _counted(track: str) -> nw.Expr:
    if track == "gate":
        return nw.col("due")
    return nw.max_horizontal("first_at", "predicted_at", "t")


def _counting(track: str) -> nw.Expr:
    """Return who judged; on the gate track nobody whose verdict is left out."""
    reviewer = nw.col("first_reviewer")
    return nw.when(~nw.col("first_left_out")).then(reviewer) if track == "gate" else reviewer


def _on_time(track: str) -> nw.Expr:
    return nw.col("gate_at") <= nw.col("due") if track == "gate" else nw.lit(value=True)


def _first_of_each(timed: Frame) -> Frame:
    """Return of each episode and version the case that counts first; ties go by the pick.

    Nothing that comes later changes it, so that whoever counts slot by slot finds the same one.
    """
    order = ["slot", "counted", "pick", "case_key"]
    rank = nw.col("case_key").cum_count().over("unit", "version", order_by=order)
    evidence = timed.filter(nw.col("excluded").is_null())
    return evidence.with_columns(place=rank.cast(nw.Int64)).filter(nw.col("place") == 1)


def _of_lever(timed: Frame, lever: Lever, source: str, policy: Policy) -> Frame:
    decided, predicted = _decided(lever, source), _predicted(lever, source)
    rows = timed.with_columns(
        lever=nw.lit(lever.id),
        decided=decided,
        predicted=predicted,
        second=_second(lever, source),
        cost=_cost(lever, source),
    )
    return rows.with_columns(level=_level(policy))


def _of_all(timed: Frame, source: str, policy: Policy) -> Frame:
    levers = policy.levers
    is_agreement = nw.all_horizontal(
        *(_agrees(lever, source) for lever in levers), ignore_nulls=True
    )
    is_missing = nw.any_horizontal(
        *(_decided(lever, source) == MISSING for lever in levers), ignore_nulls=True
    )
    rows = timed.with_columns(
        lever=nw.lit(WHOLE),
        decided=nw.when(is_missing).then(nw.lit(MISSING)).otherwise(nw.lit(AGREE)),
        predicted=nw.when(is_agreement).then(nw.lit(AGREE)).otherwise(nw.lit(DIFFER)),
        second=_second_of_all(levers, source),
        cost=nw.when(is_missing)
        .then(nw.lit(float(policy.largest_cost)))
        .otherwise(nw.sum_horizontal(*(_cost(lever, source) for lever in levers))),
    )
    return rows.with_columns(level=_level(policy))


def _decided(lever: Lever, source: str) -> nw.Expr:
    """Return the person's label; for numbers `AGREE`, against which the model's gap is read."""
    answer = nw.col(f"{source}:{VALUE}{lever.id}")
    if lever.number is None:
        label = _listed(lever, answer)
    else:
        is_in_range = _inside(lever.number, _number(answer))
        label = nw.when(is_in_range).then(nw.lit(AGREE)).otherwise(nw.lit(UNLISTED))
    is_given = (~answer.is_null()) & nw.col("on_time").fill_null(value=False)
    return nw.when(is_given).then(label).otherwise(nw.lit(MISSING))


def _listed(lever: Lever, said: nw.Expr) -> nw.Expr:
    return nw.when(said.is_in(list(lever.labels))).then(said).otherwise(nw.lit(UNLISTED))


def _predicted(lever: Lever, source: str) -> nw.Expr:
    """Return the model's label, or why it gave none that could be acted on."""
    answer = nw.col(VALUE + lever.id)
    usable_answer = (
        _usable_label(lever, answer) if lever.number is None else _number_class(lever, source)
    )
    if lever.answer_within is not None:
        is_late = nw.col("predicted_at") > nw.col("t") + micros(lever.answer_within)
        usable_answer = nw.when(is_late).then(nw.lit(LATE)).otherwise(usable_answer)
    return nw.when(answer.is_null()).then(nw.lit(FAILED)).otherwise(usable_answer)


def _usable_label(lever: Lever, said: nw.Expr) -> nw.Expr:
    return nw.when(said.is_in(list(lever.labels))).then(said).otherwise(nw.lit(OUTSIDE))


def _number_class(lever: Lever, source: str) -> nw.Expr:
    assert lever.number is not None  # noqa: S101 - asked of number levers alone
    model, human = _numbers(lever, source)
    is_in_range = _inside(lever.number, model)
    is_close = (model - human).abs() <= _margin(lever.number.tolerance, human)
    error_side = nw.when(model < human).then(nw.lit("under")).otherwise(nw.lit("over"))
    comparison = nw.when(is_close).then(nw.lit(AGREE)).otherwise(error_side)
    return nw.when(is_in_range).then(comparison).otherwise(nw.lit(OUTSIDE))


def _numbers(lever: Lever, source: str) -> tuple[nw.Expr, nw.Expr]:
    return _number(nw.col(VALUE + lever.id)), _number(nw.col(f"{source}:{VALUE}{lever.id}"))


def _number(said: nw.Expr) -> nw.Expr:
    """Return the number that a text is, null where it is none: outside every range."""
    return nw.when(said.str.contains(NUMBER)).then(said.str.strip_chars()).cast(nw.Float64)


def _inside(number: Number, value: nw.Expr) -> nw.Expr:
    return (value >= number.low) & (value <= number.high)


def _margin(margin: Margin, person: nw.Expr) -> nw.Expr:
    if margin.relative:
        return person.abs() * (margin.amount + SLACK)
    return person.abs() * SLACK + margin.amount


def _agrees(lever: Lever, source: str) -> nw.Expr:
    return _predicted(lever, source) == _decided(lever, source)


def _second(lever: Lever, source: str) -> nw.Expr:
    """Return the second blind person's label; numbers have none, parity asks for labels."""
    if lever.number is not None:
        return nw.lit(MISSING)
    answer = nw.col(f"second:{VALUE}{lever.id}")
    is_given = (~answer.is_null()) & nw.col("second_on_time").fill_null(value=False)
    has_both = is_given & (_decided(lever, source) != MISSING)
    return nw.when(has_both).then(_listed(lever, answer)).otherwise(nw.lit(MISSING))


def _second_of_all(levers: Sequence[Lever], source: str) -> nw.Expr:
    """Return how the second person stands to the first and to the model, over all levers."""
    if any(lever.number is not None for lever in levers):
        return nw.lit(MISSING)
    seconds = [_second(v, source) for v in levers]
    is_missing = nw.any_horizontal(*(s == MISSING for s in seconds), ignore_nulls=True)
    equals_first = nw.all_horizontal(
        *(s == _decided(v, source) for s, v in zip(seconds, levers, strict=True)),
        ignore_nulls=True,
    )
    equals_model = nw.all_horizontal(
        *(s == _predicted(v, source) for s, v in zip(seconds, levers, strict=True)),
        ignore_nulls=True,
    )
    with_model = nw.when(equals_model).then(nw.lit(DIFFER)).otherwise(nw.lit("other"))
    relation = nw.when(equals_first).then(nw.lit(AGREE)).otherwise(with_model)
    return nw.when(is_missing).then(nw.lit(MISSING)).otherwise(relation)


def _cost(lever: Lever, source: str) -> nw.Expr:
    """Return what the model's answer would have cost; without a usable pair, the largest."""
    cost = _label_cost(lever, source) if lever.number is None else _number_cost(lever, source)
    is_unusable = _predicted(lever, source).is_in([FAILED, LATE, OUTSIDE])
    is_unknown = _decided(lever, source).is_in([MISSING, UNLISTED])
    largest_cost = nw.lit(float(lever.largest_cost))
    return nw.when(is_unusable | is_unknown).then(largest_cost).otherwise(cost)


def _label_cost(lever: Lever, source: str) -> nw.Expr:
    model = nw.col(VALUE + lever.id)
    human = nw.col(f"{source}:{VALUE}{lever.id}")
    model_action = _mapped(model, lever)
    human_action = _mapped(human, lever)
    expr: nw.Expr = nw.lit(float(lever.largest_cost))
    for rule in reversed(lever.costs):
        does_match = _fits(model_action, rule.did) & _fits(human_action, rule.right)
        expr = nw.when(does_match).then(nw.lit(float(rule.cost))).otherwise(expr)
    return nw.when(model_action == human_action).then(nw.lit(0.0)).otherwise(expr)


def _mapped(label: nw.Expr, lever: Lever) -> nw.Expr:
    """Return the action of a label; labels that share one differ in nothing that costs."""
    expr = label
    for name, action in zip(lever.labels, lever.actions, strict=True):
        if action != name:
            expr = nw.when(label == name).then(nw.lit(action)).otherwise(expr)
    return expr


def _fits(action: nw.Expr, name: str | None) -> nw.Expr:
    return nw.lit(value=True) if name is None else action == name


def _number_cost(lever: Lever, source: str) -> nw.Expr:
    assert lever.number is not None  # noqa: S101 - asked of number levers alone
    model, human = _numbers(lever, source)
    expr: nw.Expr = nw.lit(0.0)
    for rule in reversed(lever.costs):
        expr = nw.when(_beyond(rule, model, human)).then(nw.lit(float(rule.cost))).otherwise(expr)
    is_close = (model - human).abs() <= _margin(lever.number.tolerance, human)
    return nw.when(is_close).then(nw.lit(0.0)).otherwise(expr)


def _beyond(row: Cost, model: nw.Expr, person: nw.Expr) -> nw.Expr:
    exceeded_sides = [
        person - model > _margin(row.under, person) if row.under is not None else None,
        model - person > _margin(row.over, person) if row.over is not None else None,
        (model - person).abs() > _margin(row.off, person) if row.off is not None else None,
    ]
    given_sides = [side for side in exceeded_sides if side is not None]
    return nw.any_horizontal(*given_sides, ignore_nulls=True) if given_sides else nw.lit(value=True)


def _level(policy: Policy) -> nw.Expr:
    """Return the index of the policy's cost level at or above the cost: rounding is upwards."""
    is_above = [(nw.col("cost") > level + 1e-9).cast(nw.Int64) for level in policy.cost_levels[:-1]]
    return nw.sum_horizontal(*is_above) if is_above else nw.lit(0)


def tally(units: Frame, *, by: Sequence[str] = ()) -> Frame:
    """Count units that are evidence: how many fell into each class, slot, cell and version.

    `by` adds columns to the key, such as `reviewer` and `day`, or the `band` of a stored draw.
    """
    key = [
        "track", "slot", "occurred", "site", "window", "version", "lever",
        "predicted", "decided", "second", "level", *by,
    ]  # fmt: skip
    return units.filter(nw.col("excluded").is_null()).group_by(key).agg(n=nw.len())
