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
    by_case = policy.evidence.unit == "case"
    picked = cases if by_case else _picked(cases, grace)
    verdicts = verdicts_of(placed.decisions, picked, policy)
    base = _asked(placed, cases, policy)
    judged = _judged(base, verdicts, placed, policy)
    closing = (
        judged if by_case else _judged(_asked(placed, picked, policy), verdicts, placed, policy)
    )
    tracks = [
        _track(closing, "gate", policy),
        _track(judged.filter(_has_first(policy)), "guard", policy),
        _track(_assisted(base, placed, policy), "assisted", policy),
    ]
    return nw.concat(tracks, how="vertical")


def _asked(placed: Placed, cases: Frame, policy: Policy) -> Frame:
    """Return cases with every version's prediction for them."""
    asked = placed.predictions.join(cases, on="case_key", how="inner")
    return asked.with_columns(
        predicted_at=nw.coalesce("at", "t"), occurred=nw.col("t") // micros(policy.tick)
    )


def _judged(asked: Frame, verdicts: Frame, placed: Placed, policy: Policy) -> Frame:
    excluded = _excluded(placed.trained_until, policy)
    return asked.join(verdicts, on="case_key", how="left").with_columns(excluded=excluded)


def _picked(cases: Frame, grace: int) -> Frame:
    """Return of each episode the case with the lowest pick of those known when it closes."""
    closing = cases.group_by("unit").agg(closes=nw.col("due").min())
    known = cases.join(closing, on="unit").filter(nw.col("due") - grace <= nw.col("closes"))
    lowest = known.group_by("unit").agg(lowest=nw.col("pick").min())
    picked = known.join(lowest, on="unit").filter(nw.col("pick") == nw.col("lowest"))
    return picked.with_columns(due=nw.col("closes")).drop("closes", "lowest")


def _excluded(trained_until: Mapping[str, int], policy: Policy) -> nw.Expr:
    """Return why a unit is no evidence for a version: a reason, or null."""
    closed = nw.when(nw.col("predicted_at") > nw.col("due")).then(nw.lit(AFTER_CLOSING))
    judged = nw.when(nw.col("predicted_at") > nw.col("first_at")).then(nw.lit(AFTER_VERDICT))
    expr = judged.otherwise(closed.otherwise(nw.lit(None, nw.String)))
    floor = policy.evidence.confidence_floor
    if floor is not None:
        unsure = nw.col("confidence").is_null() | (nw.col("confidence") < floor)
        expr = nw.when(unsure).then(nw.lit(BELOW_FLOOR)).otherwise(expr)
    for version, until in trained_until.items():
        seen = (nw.col("version") == version) & (nw.col("t") <= until)
        expr = nw.when(seen).then(nw.lit(TRAINED_ON)).otherwise(expr)
    return expr


def _has_first(policy: Policy) -> nw.Expr:
    sure = [nw.col(f"first:{VALUE}{lever.id}").is_null() for lever in policy.levers]
    return ~nw.col("first_at").is_null() & ~nw.any_horizontal(*sure, ignore_nulls=True)


def _assisted(base: Frame, placed: Placed, policy: Policy) -> Frame:
    """Return units whose person saw the proposal; agreeing is leaving it as it was."""
    columns = [VALUE + lever.id for lever in policy.levers]
    seen = placed.assisted.with_columns(place=turn("case_key"))
    first = at_place(seen, 1, "first", columns, keep=("at", "reviewer"))
    blank = {f"second:{c}": nw.lit(None, nw.String) for c in columns}
    gate = {f"gate:{c}": nw.col(f"first:{c}") for c in columns}
    times = {"gate_at": nw.col("first_at"), "second_at": nw.col("first_at")}
    return (
        base.join(first, on="case_key", how="inner")
        .with_columns(**blank, **gate, **times)
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
    timed = judged.with_columns(track=nw.lit(track), counted=_counted(track))
    tick = micros(policy.tick)
    timed = timed.with_columns(
        slot=nw.max_horizontal(-((-nw.col("counted")) // tick), nw.col("occurred") + 1),
        on_time=_on_time(track),
        second_on_time=nw.col("second_at") <= nw.col("counted"),
        reviewer=_counting(track),
    )
    if track != "gate" and policy.evidence.unit == "episode":
        timed = _first_of_each(timed)
    rows = [_of_lever(timed, lever, source, policy) for lever in policy.levers]
    if len(rows) > 1:
        rows.append(_of_all(timed, source, policy))
    return nw.concat([row.select(*COLUMNS) for row in rows], how="vertical")


def _counted(track: str) -> nw.Expr:
    if track == "gate":
        return nw.col("due")
    return nw.max_horizontal("first_at", "predicted_at", "t")


def _counting(track: str) -> nw.Expr:
    """Return who judged; on the gate track nobody whose verdict is left out."""
    who = nw.col("first_reviewer")
    return nw.when(~nw.col("first_left_out")).then(who) if track == "gate" else who


def _on_time(track: str) -> nw.Expr:
    return nw.col("gate_at") <= nw.col("due") if track == "gate" else nw.lit(value=True)


def _first_of_each(timed: Frame) -> Frame:
    """Return of each episode and version the case that counts first; ties go by the pick.

    Nothing that comes later changes it, so that whoever counts slot by slot finds the same one.
    """
    order = ["slot", "counted", "pick", "case_key"]
    place = nw.col("case_key").cum_count().over("unit", "version", order_by=order)
    evidence = timed.filter(nw.col("excluded").is_null())
    return evidence.with_columns(place=place.cast(nw.Int64)).filter(nw.col("place") == 1)


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
    agree = nw.all_horizontal(*(_agrees(v, source) for v in levers), ignore_nulls=True)
    missing = nw.any_horizontal(
        *(_decided(v, source) == MISSING for v in levers), ignore_nulls=True
    )
    rows = timed.with_columns(
        lever=nw.lit(WHOLE),
        decided=nw.when(missing).then(nw.lit(MISSING)).otherwise(nw.lit(AGREE)),
        predicted=nw.when(agree).then(nw.lit(AGREE)).otherwise(nw.lit(DIFFER)),
        second=_second_of_all(levers, source),
        cost=nw.when(missing)
        .then(nw.lit(float(policy.largest_cost)))
        .otherwise(nw.sum_horizontal(*(_cost(v, source) for v in levers))),
    )
    return rows.with_columns(level=_level(policy))


def _decided(lever: Lever, source: str) -> nw.Expr:
    """Return the person's label; for numbers `AGREE`, against which the model's gap is read."""
    said = nw.col(f"{source}:{VALUE}{lever.id}")
    if lever.number is None:
        listed = _listed(lever, said)
    else:
        inside = _inside(lever.number, _number(said))
        listed = nw.when(inside).then(nw.lit(AGREE)).otherwise(nw.lit(UNLISTED))
    given = (~said.is_null()) & nw.col("on_time").fill_null(value=False)
    return nw.when(given).then(listed).otherwise(nw.lit(MISSING))


def _listed(lever: Lever, said: nw.Expr) -> nw.Expr:
    return nw.when(said.is_in(list(lever.labels))).then(said).otherwise(nw.lit(UNLISTED))


def _predicted(lever: Lever, source: str) -> nw.Expr:
    """Return the model's label, or why it gave none that could be acted on."""
    said = nw.col(VALUE + lever.id)
    usable = _usable_label(lever, said) if lever.number is None else _number_class(lever, source)
    if lever.answer_within is not None:
        late = nw.col("predicted_at") > nw.col("t") + micros(lever.answer_within)
        usable = nw.when(late).then(nw.lit(LATE)).otherwise(usable)
    return nw.when(said.is_null()).then(nw.lit(FAILED)).otherwise(usable)


def _usable_label(lever: Lever, said: nw.Expr) -> nw.Expr:
    return nw.when(said.is_in(list(lever.labels))).then(said).otherwise(nw.lit(OUTSIDE))


def _number_class(lever: Lever, source: str) -> nw.Expr:
    assert lever.number is not None  # noqa: S101 - asked of number levers alone
    model, person = _numbers(lever, source)
    inside = _inside(lever.number, model)
    close = (model - person).abs() <= _margin(lever.number.tolerance, person)
    side = nw.when(model < person).then(nw.lit("under")).otherwise(nw.lit("over"))
    compared = nw.when(close).then(nw.lit(AGREE)).otherwise(side)
    return nw.when(inside).then(compared).otherwise(nw.lit(OUTSIDE))


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
    said = nw.col(f"second:{VALUE}{lever.id}")
    given = (~said.is_null()) & nw.col("second_on_time").fill_null(value=False)
    both = given & (_decided(lever, source) != MISSING)
    return nw.when(both).then(_listed(lever, said)).otherwise(nw.lit(MISSING))


def _second_of_all(levers: Sequence[Lever], source: str) -> nw.Expr:
    """Return how the second person stands to the first and to the model, over all levers."""
    if any(lever.number is not None for lever in levers):
        return nw.lit(MISSING)
    seconds = [_second(v, source) for v in levers]
    missing = nw.any_horizontal(*(s == MISSING for s in seconds), ignore_nulls=True)
    first = nw.all_horizontal(
        *(s == _decided(v, source) for s, v in zip(seconds, levers, strict=True)),
        ignore_nulls=True,
    )
    model = nw.all_horizontal(
        *(s == _predicted(v, source) for s, v in zip(seconds, levers, strict=True)),
        ignore_nulls=True,
    )
    with_model = nw.when(model).then(nw.lit(DIFFER)).otherwise(nw.lit("other"))
    stands = nw.when(first).then(nw.lit(AGREE)).otherwise(with_model)
    return nw.when(missing).then(nw.lit(MISSING)).otherwise(stands)


def _cost(lever: Lever, source: str) -> nw.Expr:
    """Return what the model's answer would have cost; without a usable pair, the largest."""
    known = _label_cost(lever, source) if lever.number is None else _number_cost(lever, source)
    unusable = _predicted(lever, source).is_in([FAILED, LATE, OUTSIDE])
    unknown = _decided(lever, source).is_in([MISSING, UNLISTED])
    largest = nw.lit(float(lever.largest_cost))
    return nw.when(unusable | unknown).then(largest).otherwise(known)


def _label_cost(lever: Lever, source: str) -> nw.Expr:
    model = nw.col(VALUE + lever.id)
    person = nw.col(f"{source}:{VALUE}{lever.id}")
    did = _mapped(model, lever)
    right = _mapped(person, lever)
    expr: nw.Expr = nw.lit(float(lever.largest_cost))
    for row in reversed(lever.costs):
        fits = _fits(did, row.did) & _fits(right, row.right)
        expr = nw.when(fits).then(nw.lit(float(row.cost))).otherwise(expr)
    return nw.when(did == right).then(nw.lit(0.0)).otherwise(expr)


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
    model, person = _numbers(lever, source)
    expr: nw.Expr = nw.lit(0.0)
    for row in reversed(lever.costs):
        expr = nw.when(_beyond(row, model, person)).then(nw.lit(float(row.cost))).otherwise(expr)
    close = (model - person).abs() <= _margin(lever.number.tolerance, person)
    return nw.when(close).then(nw.lit(0.0)).otherwise(expr)


def _beyond(row: Cost, model: nw.Expr, person: nw.Expr) -> nw.Expr:
    sides = [
        person - model > _margin(row.under, person) if row.under is not None else None,
        model - person > _margin(row.over, person) if row.over is not None else None,
        (model - person).abs() > _margin(row.off, person) if row.off is not None else None,
    ]
    given = [side for side in sides if side is not None]
    return nw.any_horizontal(*given, ignore_nulls=True) if given else nw.lit(value=True)


def _level(policy: Policy) -> nw.Expr:
    """Return the index of the policy's cost level at or above the cost: rounding is upwards."""
    above = [(nw.col("cost") > level + 1e-9).cast(nw.Int64) for level in policy.cost_levels[:-1]]
    return nw.sum_horizontal(*above) if above else nw.lit(0)


def tally(units: Frame, *, by: Sequence[str] = ()) -> Frame:
    """Count units that are evidence: how many fell into each class, slot, cell and version.

    `by` adds columns to the key, such as `reviewer` and `day`, or the `band` of a stored draw.
    """
    key = [
        "track", "slot", "occurred", "site", "window", "version", "lever",
        "predicted", "decided", "second", "level", *by,
    ]  # fmt: skip
    return units.filter(nw.col("excluded").is_null()).group_by(key).agg(n=nw.len())
