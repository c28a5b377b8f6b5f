"""From a history's frames to units, each counted once on a track, with their attribute values.

A unit is a case, or one case of each episode. The gate track has every unit when it closes, with or
without a decision; of an episode the case with the lowest selection value among those known before
the first decision on any of them. The guard track has a unit when its first blind decision arrives,
and no unit without one; of an episode the case decided first, which is known at that moment
(decision record 0012): of several people's the first that answers, so that nobody who is unsure
hides what a colleague says. Excluded decisions count as missing on the gate track; guards use
every decision (decision record 0018). Units are resolved by narwhals expressions, so the same
function runs on Polars, DuckDB and other engines.

A unit is evidence if its case and the version's prediction were known before the first decision on
it. Otherwise it is missing, and `predicted` says why: whoever answers late, or not at all, may know
what people decided. Silence counts against the model.

All times are whole microseconds since 1970, UTC; a slot is a tick's number on the grid that starts
there. A unit is counted in the slot at or after its time. The scope when it occurred is that of the
slot at or before its time. If both are the same slot, the unit counts in the next one, because a
tick's decision applies to units that occur at that instant.

By their attribute values cases are familiar or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from rollout.engine.evidence.decision_resolution import resolve_decisions, select_first_answers
from rollout.engine.evidence.frames import VALUE_PREFIX
from rollout.engine.evidence.picks import (
    compute_number_cost,
    is_in_range,
    is_set_text,
    is_within_tolerance,
    pair_sets,
    parse_number,
)
from rollout.kernel.arrays import nw
from rollout.kernel.calendar.instants import NEVER, count_micros
from rollout.kernel.units import (
    AFTER_CLOSING,
    AFTER_DECISION,
    AGREE,
    CASELESS,
    CASELESS_UNIT,
    DIFFER,
    FAILED,
    LATE,
    LATE_CASE,
    MISSING,
    NOT_PREDICTED,
    OUTSIDE,
    SILENT,
    UNUSABLE,
    WHOLE_UNIT,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from rollout.engine.evidence.decision_resolution import Frame
    from rollout.kernel.policy.policy import Policy
    from rollout.kernel.units import Lever


def build_band_columns(policy: Policy) -> dict[str, nw.Expr]:
    """Return the column `band` of units under a policy that treats confidences differently.

    With several confidence floors it is how many above the lowest the confidence reaches; a missing
    confidence reaches none, as does one above 1. A silent version counts against all floors: nobody
    knows how sure it would have been. Other policies have no such column.
    """
    confidence, floors = nw.col("confidence"), policy.evidence.higher_floors
    if not floors:
        return {}
    reached = (
        ((confidence >= floor) & (confidence <= 1)).fill_null(value=False).cast(nw.Int64)
        for floor in floors
    )
    is_silent = ~nw.col("silent").is_null()
    band = nw.when(is_silent).then(nw.lit(len(floors))).otherwise(nw.sum_horizontal(*reached))
    return {"band": band}


UNLISTED = "(not listed)"  # `decided` for a human label that the lever lacks
TRACKS = ("gate", "guard", "assisted")
BELOW_FLOOR, TRAINED_ON = "below the floor", "trained on"


@dataclass(frozen=True, slots=True)
class PlacedRecords:
    """The input of `resolve_units`: frames of any engine.

    Attributes:
        cases: case_key, site, window, unit, selection_value, day (local day number), occurred_us
            (microseconds), received (occurred_us if the record has none), known (earlier where
            somebody vouches for the sender), effective_us (as of `picks.add_effective_times`),
            slices (the values of the recorded attributes, as JSON) and caseless (whether only a
            decision places it).
        guard_cases: the same as guards count them; None if they are the same.
        predictions: case_key, version, `value:<lever>`, confidence, at, prediction_received and
            prediction_known (null: the case's time; `NEVER`: the version is silent).
        silent_from: by case_key and version of silent ones the slot from which on it is certain
            that the version was in use there; None if there are none.
        drawn: case_key and version of cases that a version's sample has; None if there are none.
        decisions: blind decisions: case_key, reviewer, `value:<lever>`, seat (number of the review
            task), at and received.
        assisted_decisions: the same for decisions made with the model's answer in sight; None if
            there are none.
        earlier_decisions: blind answers that their reviewer replaced by none, or having seen more,
            which count for guards alone; None if there are none.
        trained_until: by version, the time of its last training case.
        other_decisions: case_key, at and received (null: unknown) of decisions and outcomes by
            which a case was decided, too, and sourced (null: by no source of evidence); None if
            there are none.
        sole_decisions: blind decisions on cases that have no other, if they are not among
            `decisions`: they need not be ordered, which takes most of the time.
    """

    cases: Frame
    predictions: Frame
    decisions: Frame
    assisted_decisions: Frame | None
    trained_until: Mapping[str, int]
    other_decisions: Frame | None = None
    sole_decisions: Frame | None = None
    silent_from: Frame | None = None
    guard_cases: Frame | None = None
    earlier_decisions: Frame | None = None
    drawn: Frame | None = None


def build_unit_key(policy: Policy) -> pl.Expr:
    """Return the unit's key: the case, its episode, or a clock span.

    Clock spans are per site. Null if a case has no episode and the policy has no span.
    """
    if policy.evidence.unit == "case":
        return pl.col("case_key")
    span = policy.evidence.episode_span
    if span is None:
        return pl.col("episode")
    slot = pl.col("occurred_at").dt.epoch("us") // count_micros(span)
    return pl.coalesce("episode", pl.format("{}@{}", pl.col("site"), slot))


def resolve_units(
    placed: PlacedRecords, policy: Policy, *, tracks: Collection[str] = TRACKS
) -> Frame:
    """Return one row a track, unit, version and lever; the gate track is always one of them.

    Columns: track (`gate`, `guard`, `assisted`), site, window, version, unit, case_key, slot,
    occurred (slot), lever, predicted, decided (`MISSING` without a decision), second, cost, level,
    reviewer, day, excluded (a reason, null if the unit is evidence), slices, known (slot from which
    on it is certain how the unit counts), and with several confidence floors the band. Rows of
    lever `*` stand for several levers together.
    """
    cases = _add_decided(placed.cases, placed, policy)
    picked_cases = cases if policy.evidence.unit == "case" else _pick_cases(cases)
    decisions = resolve_decisions(placed.decisions, picked_cases, policy, placed.sole_decisions)
    closing_cases = _join_predictions(placed, picked_cases, policy)
    closing_cases = closing_cases.join(decisions, on="case_key", how="left")
    parts = [_build_track(_judge_closing_cases(closing_cases, placed, policy), "gate", policy)]
    if placed.guard_cases is not None:
        cases = _add_decided(placed.guard_cases, placed, policy)
    predicted_cases = _join_predictions(placed, cases, policy)
    if "guard" in tracks:
        decided_cases = predicted_cases.join(
            select_first_answers(
                placed.decisions, policy, placed.sole_decisions, placed.earlier_decisions
            ),
            on="case_key",
            how="inner",
        )
        parts.append(_build_track(_judge_decided(decided_cases, placed, policy), "guard", policy))
    if "assisted" in tracks and placed.assisted_decisions is not None:
        assisted_cases = _build_assisted_units(predicted_cases, placed.assisted_decisions, policy)
        parts.append(_build_track(assisted_cases, "assisted", policy))
    return nw.concat(parts, how="vertical")


def _add_decided(cases: Frame, placed: PlacedRecords, policy: Policy) -> Frame:
    """Add when each case closes, and when it was decided first."""
    due = nw.col("occurred_us") + count_micros(policy.evidence.grace)
    return cases.with_columns(due=due).join(
        _find_first_decisions(placed), on="case_key", how="left"
    )


def _find_first_decisions(placed: PlacedRecords) -> Frame:
    """Return when each case was first decided, by whomever, and when somebody knew that.

    They are `first_decided`; `decision_known`, the first receipt; and `draw_bound`, when a source
    of evidence first decided.
    """
    blind, others, sole = placed.decisions, placed.other_decisions, placed.sole_decisions
    columns = {"first_decided": "at", "decision_known": "received", "draw_bound": "sourced"}
    own = [
        frame.with_columns(sourced=nw.col("at")).select("case_key", *columns.values())
        for frame in (blind, sole)
        if frame is not None
    ]
    times = own[:1] if others is None else [*own, others.select("case_key", *columns.values())]
    decided = times[0] if len(times) == 1 else nw.concat(times, how="vertical")
    firsts = decided.group_by("case_key").agg(**{n: nw.col(c).min() for n, c in columns.items()})
    if sole is None or others is not None:
        return firsts
    # a sole decision is the first of its case: most are, and grouping them is slow
    return nw.concat([firsts, own[1].rename({c: n for n, c in columns.items()})], how="vertical")


def _join_predictions(placed: PlacedRecords, cases: Frame, policy: Policy) -> Frame:
    """Return cases with the prediction of each version."""
    predicted_cases = placed.predictions.join(cases, on="case_key", how="inner")
    return predicted_cases.with_columns(
        predicted_at=nw.coalesce("at", "occurred_us"),
        prediction_received=nw.coalesce("prediction_received", "occurred_us"),
        prediction_known=nw.coalesce("prediction_known", "occurred_us"),
        occurred=nw.col("effective_us") // count_micros(policy.tick),
        earliest=nw.col("occurred_us") // count_micros(policy.tick) + 1,
    )


def _pick_cases(cases: Frame) -> Frame:
    """Return each episode's case with the lowest selection value when it closes.

    It is drawn among the cases that were known when the first of them was decided by a source of
    evidence: what is added later could change the draw, and any other sender could end it at a
    case of its choice. If none was, it is the case that arrived first.
    """
    units = cases.group_by("unit").agg(
        closes=nw.col("due").min(),
        unit_decided=nw.col("first_decided").min(),
        unit_known=nw.col("decision_known").min(),
        bound=nw.col("draw_bound").min(),
    )
    arrived, until = nw.max_horizontal("occurred_us", "known"), nw.min_horizontal("closes", "bound")
    ranked = cases.join(units, on="unit").with_columns(
        turn=nw.when(arrived <= until).then(nw.lit(-NEVER)).otherwise(arrived)
    )
    for column in ("turn", "selection_value"):
        lowest = ranked.group_by("unit").agg(lowest=nw.col(column).min())
        ranked = ranked.join(lowest, on="unit").filter(nw.col(column) == nw.col("lowest"))
        ranked = ranked.drop("lowest")
    picked_cases = ranked.with_columns(
        due=nw.col("closes"),
        first_decided=nw.col("unit_decided"),
        decision_known=nw.col("unit_known"),
    )
    return picked_cases.drop("closes", "unit_decided", "unit_known", "bound", "turn")


def _judge_closing_cases(cases: Frame, placed: PlacedRecords, policy: Policy) -> Frame:
    """Add when each unit counts for a gate, why it is missing, and why it is no unit."""
    received, decided = nw.col("received"), nw.col("first_decided")
    is_asked = nw.lit(value=False)  # a sample has the case, so it is a unit without a decision, too
    if placed.drawn is not None:
        marked = placed.drawn.with_columns(is_asked=nw.lit(value=True))
        cases = cases.join(marked, on=["case_key", "version"], how="left")
        is_asked = nw.col("is_asked").fill_null(value=False)
    known_at = nw.max_horizontal("known", "prediction_known")
    is_late_case = received > nw.col("due")
    is_unseen = known_at > decided  # nobody knows that the version didn't know the answer
    reason = (
        nw.when(nw.col("caseless"))
        .then(nw.lit(CASELESS))
        .when(is_late_case)
        .then(nw.lit(LATE_CASE))
        .when(
            (nw.col("prediction_received") > nw.col("due"))
            & ((decided <= nw.col("due")) | is_asked)
        )
        .then(nw.lit(NOT_PREDICTED))
        .when(is_unseen)
        .then(nw.lit(AFTER_DECISION))
        .otherwise(nw.lit(None, nw.String))
    )
    grace, tick = count_micros(policy.evidence.grace), count_micros(policy.tick)
    late_due = (
        nw.when(decided <= received)
        .then(nw.max_horizontal(received, decided + grace))
        .otherwise(received)
    )
    # to the slot: a batch's decisions may come a moment after its cases, or when it is sent again
    late_slot = -((-late_due) // tick) * tick
    judged = cases.with_columns(
        silent=reason,
        counted=nw.when(is_late_case).then(late_slot).otherwise(nw.col("due")),
    )
    if placed.silent_from is not None:
        is_known = nw.col("decision_known") <= nw.col("counted")
        judged = (
            judged.filter((nw.col("prediction_received") < NEVER) | is_known | is_asked)
            # what brought the version into use may be of the same slot, and close later
            .join(placed.silent_from, on=["case_key", "version"], how="left")
            .with_columns(earliest=nw.max_horizontal("earliest", "used"))
        )
    is_undecided = decided.is_null() | (decided > nw.col("due"))
    is_closed = is_undecided & ~is_late_case & (nw.col("prediction_received") > nw.col("due"))
    is_closed &= ~is_asked
    excluded = _build_exclusion(policy, is_closed)
    for version, until in placed.trained_until.items():
        is_trained_on = (nw.col("version") == version) & (nw.col("occurred_us") <= until)
        excluded = nw.when(is_trained_on).then(nw.lit(TRAINED_ON)).otherwise(excluded)
    return judged.with_columns(excluded=excluded)


def _judge_decided(cases: Frame, placed: PlacedRecords, policy: Policy) -> Frame:
    """Add the same for guards: a unit counts with its decision, whether it was predicted or not.

    So does one that a version was trained on: a guard must see whatever a sender says of it.
    """
    counted = nw.max_horizontal("decision_received", "received", "occurred_us")
    # until it is due a case may come, and with it the answer
    awaited = nw.max_horizontal(counted, "due")
    counted = nw.when(nw.col("caseless")).then(awaited).otherwise(counted)
    slot = _find_slot(count_micros(policy.tick))
    judged = cases.with_columns(counted=counted).with_columns(
        # what a vouched sender sends later was not there when the guard counted
        is_unseen=(nw.col("prediction_known") > nw.col("first_decided"))
        | (nw.col("prediction_received") > slot * count_micros(policy.tick))
    )
    judged = judged.with_columns(
        silent=nw.when(nw.col("is_unseen"))
        .then(nw.lit(NOT_PREDICTED))
        .otherwise(nw.lit(None, nw.String))
    ).drop("is_unseen")
    if placed.silent_from is not None:
        judged = judged.join(placed.silent_from, on=["case_key", "version"], how="left")
        judged = judged.filter(nw.col("used").is_null() | (nw.col("used") <= slot)).drop("used")
    return judged.with_columns(excluded=_build_exclusion(policy, nw.lit(value=False)))


def _build_exclusion(policy: Policy, is_closed: nw.Expr) -> nw.Expr:
    """Return why a row is no unit of a version, or null; training is left out.

    A version's silence is none of the reasons: it could be silent where it would be wrong.
    """
    none = nw.lit(None, nw.String)
    floor = policy.evidence.lowest_floor
    reason = nw.when(is_closed).then(nw.lit(AFTER_CLOSING)).otherwise(none)
    if floor is not None:
        confidence = nw.col("confidence")
        is_below_floor = nw.col("silent").is_null() & (confidence.is_null() | (confidence < floor))
        reason = nw.when(is_below_floor).then(nw.lit(BELOW_FLOOR)).otherwise(reason)
    return reason


def _build_assisted_units(
    predicted_cases: Frame, assisted_decisions: Frame, policy: Policy
) -> Frame:
    """Return units whose reviewer saw the proposal; agreement means leaving it unchanged."""
    receipts = ("decision_received", "prediction_received", "received", "occurred_us")
    return (
        predicted_cases.join(
            select_first_answers(assisted_decisions, policy), on="case_key", how="inner"
        )
        .filter(nw.col("prediction_received") < NEVER)
        .with_columns(
            counted=nw.max_horizontal(*receipts),
            excluded=nw.lit(None, nw.String),
            silent=nw.lit(None, nw.String),
        )
    )


UNIT_COLUMNS = (
    "track", "site", "window", "version", "unit", "case_key", "slot", "occurred", "lever",
    "predicted", "decided", "second", "cost", "level", "reviewer", "day", "excluded", "slices",
    "known",
)  # fmt: skip


def _build_track(judged_cases: Frame, track: str, policy: Policy) -> Frame:
    """Return a track's rows: one a lever, and one for several together.

    A decision may answer some levers only. Gates count the others as missing, guards not at all.
    """
    tick = count_micros(policy.tick)
    timed_cases = judged_cases.with_columns(
        track=nw.lit(track),
        slot=_find_slot(tick),
        known=_find_known_slot(policy),
        on_time=nw.col("decision_received") <= nw.col("counted"),
        second_on_time=nw.col("second_received") <= nw.col("counted"),
        reviewer=nw.col("decision_reviewer"),
        **build_band_columns(policy),
    )
    if track != "gate" and policy.evidence.unit == "episode":
        timed_cases = _select_first_of_episode(timed_cases)
    answered_cases = _add_answer_columns(timed_cases, policy)
    rows = [_build_lever_rows(answered_cases, lever, policy) for lever in policy.levers]
    if len(rows) > 1:
        rows.append(_build_whole_unit_rows(answered_cases, track, policy))
    columns = (*UNIT_COLUMNS, *build_band_columns(policy))
    track_rows = nw.concat([lever_rows.select(*columns) for lever_rows in rows], how="vertical")
    return track_rows if track == "gate" else track_rows.filter(nw.col("decided") != MISSING)


def _find_slot(tick: int) -> nw.Expr:
    """Return the slot in which a unit counts."""
    return nw.max_horizontal(-((-nw.col("counted")) // tick), nw.col("earliest"))


def _find_known_slot(policy: Policy) -> nw.Expr:
    """Return from which slot on it is certain how a unit counts: with its answer, or its closing.

    A widening asks before a unit closes. Of a unit that its version can no longer answer in time,
    that is certain with the first decision on it, and once nobody vouches for its sender any more.
    """
    tick, vouched = count_micros(policy.tick), policy.evidence.sources.vouched.values()
    within = max(map(count_micros, vouched), default=0)
    hoped = nw.min_horizontal(nw.col("prediction_received"), nw.col("occurred_us") + within)
    is_decided = ~nw.col("decision_known").is_null()
    lost = nw.when(is_decided).then(nw.max_horizontal("decision_known", "received", hoped))
    is_answered = ~nw.col("decision_received").is_null()
    receipts = ("decision_received", "prediction_received", "received", "occurred_us")
    answered = nw.when(is_answered).then(nw.max_horizontal(*receipts))
    settled = nw.when(nw.col("silent").is_null()).then(answered).otherwise(lost)
    certain = nw.min_horizontal("counted", settled)
    return nw.max_horizontal(-((-certain) // tick), nw.col("earliest"))


def _select_first_of_episode(timed_cases: Frame) -> Frame:
    """Return each episode's case that counts first for a version, and those that joined later.

    Ties are broken by selection value. Later records do not change it, so counting slot by slot
    finds the same case. Of those that came after a decision on their episode one in each slot is a
    unit of its own, or their sender could hide them in any episode. Were each one, a burst whose
    end comes late would be as many units as it has cases.
    """
    has_joined = nw.col("received") > nw.col("decision_received").min().over("unit", "version")
    own_unit = nw.concat_str(nw.col("case_key"), nw.lit(CASELESS_UNIT.format("")))
    evidence = timed_cases.filter(nw.col("excluded").is_null()).with_columns(
        joined=nw.when(has_joined).then(nw.col("slot")).otherwise(nw.lit(-1))
    )
    order = ["slot", "counted", "selection_value", "case_key"]
    rank = nw.col("case_key").cum_count().over("unit", "version", "joined", order_by=order)
    return (
        evidence.with_columns(place=rank.cast(nw.Int64))
        .filter(nw.col("place") == 1)
        .with_columns(unit=nw.when(nw.col("joined") < 0).then(nw.col("unit")).otherwise(own_unit))
    )


def _add_answer_columns(timed_cases: Frame, policy: Policy) -> Frame:
    """Add each lever's `decided`, `predicted`, `second` and `cost`.

    They are columns because narwhals builds an expression again wherever it is used: with two
    levers, or with ten labels and a few costs, that took most of the time of a small batch.
    """
    levers = policy.levers
    compared_cases = timed_cases.with_columns(
        **{f"decided:{lever.id}": _build_decided(lever) for lever in levers},
        **{f"predicted:{lever.id}": _build_predicted(lever) for lever in levers},
        **_map_answers_to_actions(levers),
    )
    return compared_cases.with_columns(
        **{f"other:{lever.id}": _build_second(lever) for lever in levers},
        **{f"cost:{lever.id}": _compute_cost(lever) for lever in levers},
    )


def _map_answers_to_actions(levers: Sequence[Lever]) -> dict[str, nw.Expr]:
    """Return the actions of the model's and the human's labels, by new columns."""
    return {
        f"{side}:{lever.id}": _map_to_action(nw.col(f"{prefix}{VALUE_PREFIX}{lever.id}"), lever)
        for lever in levers
        if lever.has_single_labels
        for side, prefix in (("did", ""), ("right", "decision_"))
    }


def _build_lever_rows(answered_cases: Frame, lever: Lever, policy: Policy) -> Frame:
    rows = answered_cases.with_columns(
        lever=nw.lit(lever.id),
        decided=nw.col(f"decided:{lever.id}"),
        predicted=nw.col(f"predicted:{lever.id}"),
        second=nw.col(f"other:{lever.id}"),
        cost=nw.col(f"cost:{lever.id}"),
    )
    return rows.with_columns(level=_find_cost_level(policy))


def _build_whole_unit_rows(answered_cases: Frame, track: str, policy: Policy) -> Frame:
    """Return the rows of all levers together; what differs in one does so whatever is missing."""
    levers = policy.levers
    is_agreement = nw.all_horizontal(
        *(nw.col(f"predicted:{v.id}") == nw.col(f"decided:{v.id}") for v in levers),
        ignore_nulls=True,
    )
    is_missing = nw.any_horizontal(
        *(nw.col(f"decided:{v.id}") == MISSING for v in levers), ignore_nulls=True
    )
    costs = [nw.col(f"cost:{v.id}") for v in levers]
    if track != "gate":
        are_answered = [nw.col(f"decided:{v.id}") != MISSING for v in levers]
        differ = (
            is_answered & (nw.col(f"predicted:{v.id}") != nw.col(f"decided:{v.id}"))
            for is_answered, v in zip(are_answered, levers, strict=True)
        )
        is_missing &= ~nw.any_horizontal(*differ, ignore_nulls=True)
        costs = [
            nw.when(g).then(c).otherwise(0.0) for g, c in zip(are_answered, costs, strict=True)
        ]
    rows = answered_cases.with_columns(
        lever=nw.lit(WHOLE_UNIT),
        decided=nw.when(is_missing).then(nw.lit(MISSING)).otherwise(nw.lit(AGREE)),
        predicted=nw.coalesce(
            "silent", nw.when(is_agreement).then(nw.lit(AGREE)).otherwise(nw.lit(DIFFER))
        ),
        second=_build_whole_unit_second(levers),
        cost=nw.when(is_missing)
        .then(nw.lit(float(policy.largest_cost)))
        .otherwise(nw.sum_horizontal(*costs)),
    )
    return rows.with_columns(level=_find_cost_level(policy))


def _build_decided(lever: Lever) -> nw.Expr:
    """Return the human's label; for numbers `AGREE`, compared by the model's error."""
    answer = nw.col(f"decision_{VALUE_PREFIX}{lever.id}")
    if lever.number is None:
        label = _limit_to_labels(lever, answer, UNLISTED)
    else:
        is_valid = is_in_range(lever.number, parse_number(answer))
        label = nw.when(is_valid).then(nw.lit(AGREE)).otherwise(nw.lit(UNLISTED))
    if lever.many:
        is_unpaired = _is_late(lever) | ~nw.col("silent").is_null()
        label = nw.when(is_unpaired).then(label).otherwise(_pair_answers(lever, label))
    is_given = (~answer.is_null()) & nw.col("on_time").fill_null(value=False)
    return nw.when(is_given).then(label).otherwise(nw.lit(MISSING))


def _limit_to_labels(lever: Lever, answer: nw.Expr, other: str) -> nw.Expr:
    """Return the answer, or `other` if the lever lacks it."""
    is_valid = is_set_text(lever, answer) if lever.many else answer.is_in(list(lever.labels))
    return nw.when(is_valid).then(answer).otherwise(nw.lit(other))


def _pair_answers(lever: Lever, answer: nw.Expr) -> nw.Expr:
    """Return the answer of one side, or both sides where different sets agree in time."""
    human = nw.col(f"decision_{VALUE_PREFIX}{lever.id}")
    in_time_human = nw.when(nw.col("on_time").fill_null(value=False)).then(human)
    return pair_sets(lever, answer, nw.col(VALUE_PREFIX + lever.id), in_time_human)


def _is_late(lever: Lever) -> nw.Expr:
    """Return whether the model answered later than the lever allows."""
    if lever.answer_within is None:
        return nw.lit(value=False)
    return nw.col("predicted_at") > nw.col("occurred_us") + count_micros(lever.answer_within)


def _build_predicted(lever: Lever) -> nw.Expr:
    """Return the model's label, or why its answer is unusable."""
    answer = nw.col(VALUE_PREFIX + lever.id)
    usable_answer = (
        _limit_to_labels(lever, answer, OUTSIDE)
        if lever.number is None
        else _classify_number(lever)
    )
    if lever.many:
        usable_answer = _pair_answers(lever, usable_answer)
    if lever.answer_within is not None:
        usable_answer = nw.when(_is_late(lever)).then(nw.lit(LATE)).otherwise(usable_answer)
    usable_answer = nw.when(answer.is_null()).then(nw.lit(FAILED)).otherwise(usable_answer)
    return nw.coalesce(nw.col("silent"), usable_answer)


def _classify_number(lever: Lever) -> nw.Expr:
    assert lever.number is not None  # noqa: S101 - called for number levers only
    model, human = _parse_numbers(lever)
    is_close = is_within_tolerance(lever.number, model, human)
    error_side = nw.when(model < human).then(nw.lit("under")).otherwise(nw.lit("over"))
    comparison = nw.when(is_close).then(nw.lit(AGREE)).otherwise(error_side)
    return nw.when(is_in_range(lever.number, model)).then(comparison).otherwise(nw.lit(OUTSIDE))


def _parse_numbers(lever: Lever) -> tuple[nw.Expr, nw.Expr]:
    human = nw.col(f"decision_{VALUE_PREFIX}{lever.id}")
    return parse_number(nw.col(VALUE_PREFIX + lever.id)), parse_number(human)


def _build_second(lever: Lever) -> nw.Expr:
    """Return the second blind label; numbers and sets have none."""
    if not lever.has_single_labels:
        return nw.lit(MISSING)
    answer = nw.col(f"second_{VALUE_PREFIX}{lever.id}")
    is_given = (~answer.is_null()) & nw.col("second_on_time").fill_null(value=False)
    has_both = is_given & (nw.col(f"decided:{lever.id}") != MISSING)
    return (
        nw.when(has_both).then(_limit_to_labels(lever, answer, UNLISTED)).otherwise(nw.lit(MISSING))
    )


def _build_whole_unit_second(levers: Sequence[Lever]) -> nw.Expr:
    """Return over all levers what the second decision equals."""
    if not all(lever.has_single_labels for lever in levers):
        return nw.lit(MISSING)
    others = [(lever.id, nw.col(f"other:{lever.id}")) for lever in levers]
    is_missing = nw.any_horizontal(*(s == MISSING for _, s in others), ignore_nulls=True)
    equals_first = nw.all_horizontal(
        *(s == nw.col(f"decided:{name}") for name, s in others), ignore_nulls=True
    )
    equals_model = nw.all_horizontal(
        *(s == nw.col(f"predicted:{name}") for name, s in others), ignore_nulls=True
    )
    with_model = nw.when(equals_model).then(nw.lit(DIFFER)).otherwise(nw.lit("other"))
    relation = nw.when(equals_first).then(nw.lit(AGREE)).otherwise(with_model)
    return nw.when(is_missing).then(nw.lit(MISSING)).otherwise(relation)


def _compute_cost(lever: Lever) -> nw.Expr:
    """Return the cost of the model's answer; the largest if unusable."""
    decided, predicted = nw.col(f"decided:{lever.id}"), nw.col(f"predicted:{lever.id}")
    cost = (
        _compute_set_cost(lever, decided, predicted)
        if lever.many
        else _compute_label_cost(lever)
        if lever.number is None
        else compute_number_cost(lever, *_parse_numbers(lever))
    )
    is_unusable = predicted.is_in(sorted(UNUSABLE))
    is_unknown = decided.is_in([MISSING, UNLISTED])
    largest_cost = nw.lit(float(lever.largest_cost))
    return nw.when(is_unusable | is_unknown).then(largest_cost).otherwise(cost)


def _compute_set_cost(lever: Lever, decided: nw.Expr, predicted: nw.Expr) -> nw.Expr:
    """Return the lever's only cost where the sets don't agree."""
    return nw.when(decided == predicted).then(nw.lit(0.0)).otherwise(float(lever.largest_cost))


def _compute_label_cost(lever: Lever) -> nw.Expr:
    model_action, human_action = nw.col(f"did:{lever.id}"), nw.col(f"right:{lever.id}")
    expr: nw.Expr = nw.lit(float(lever.largest_cost))
    for rule in reversed(lever.costs):
        does_match = _matches_action(model_action, rule.did) & _matches_action(
            human_action, rule.right
        )
        expr = nw.when(does_match).then(nw.lit(float(rule.cost))).otherwise(expr)
    return nw.when(model_action == human_action).then(nw.lit(0.0)).otherwise(expr)


def _map_to_action(label: nw.Expr, lever: Lever) -> nw.Expr:
    """Return the action of a label; equal actions cost the same."""
    expr = label
    for action in dict.fromkeys(lever.actions):
        names = [n for n, of in zip(lever.labels, lever.actions, strict=True) if of == action != n]
        expr = nw.when(label.is_in(names)).then(nw.lit(action)).otherwise(expr) if names else expr
    return expr


def _matches_action(action: nw.Expr, name: str | None) -> nw.Expr:
    return nw.lit(value=True) if name is None else action == name


def _find_cost_level(policy: Policy) -> nw.Expr:
    """Return the index of the policy's cost level, rounding up."""
    is_above = [(nw.col("cost") > level + 1e-9).cast(nw.Int64) for level in policy.cost_levels[:-1]]
    return nw.sum_horizontal(*is_above) if is_above else nw.lit(0)


def is_missing_unit() -> pl.Expr:
    """Return whether rows of `resolve_units` are of missing units."""
    is_silent = pl.col("predicted").cast(pl.String).is_in(sorted(SILENT))
    return is_silent | (pl.col("decided").cast(pl.String) == MISSING)


def count_units(units: Frame, *, extra_columns: Sequence[str] = ()) -> Frame:
    """Count units of evidence by class, slot, cell and version.

    `extra_columns` adds columns to the key, such as `reviewer` and `day`, or the stored `bucket`.
    """
    key = [
        "track", "slot", "occurred", "site", "window", "version", "lever",
        "predicted", "decided", "second", "level", *extra_columns,
    ]  # fmt: skip
    return units.filter(nw.col("excluded").is_null()).group_by(key).agg(n=nw.len())
