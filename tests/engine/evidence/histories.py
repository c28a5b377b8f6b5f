"""Small histories and policies for tests: rows as terse tuples, everything else by default.

Times are hours after `START`, a Monday midnight UTC, as plain numbers.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl

from rollout.engine.evidence.case_placement import place_cases, resolve_natural_units
from rollout.engine.evidence.frames import (
    REMARK_SCHEMA,
    RecordFrames,
    build_cases_schema,
    build_decisions_schema,
    build_outcomes_schema,
    build_predictions_schema,
)
from rollout.kernel.calendar.instants import Site, Window
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.policy import EvidenceRules, Gate, Guard, Minimum, Policy, Stage
from rollout.kernel.units import Lever

START = datetime(2025, 6, 2, tzinfo=UTC)
SALT = bytes(32)
HOUR = timedelta(hours=1)
ALARM = Lever(id="alarm", labels=("bear", "fox", "none"), actions=("ring", "wait", "wait"))
AGREEMENT = Condition(MEASURES["agreement"], 0.8)


def hour(number):
    """Return the instant so many hours after the start; None stays None."""
    return None if number is None else START + number * HOUR


def a_policy(**changes):
    """Return a policy of one site and one window that widens easily, with `changes`."""
    fields = {
        "rollout": "test",
        "timezone": "UTC",
        "levers": (ALARM,),
        "sites": (Site("creek", "UTC"),),
        "windows": (Window("always"),),
        "stages": (Stage("supervised", blind=0.5), Stage("autonomous", audit=0.4)),
        "evidence": EvidenceRules(grace=2 * HOUR, outside="blind"),
        "gates": (
            a_gate("supervised"),
            a_gate("autonomous"),
        ),
        "tick": HOUR,
    }
    return Policy(**(fields | changes))


def a_gate(to, *require, **changes):
    """Return a gate that asks for little."""
    fields = {
        "to": to,
        "require": require or (AGREEMENT,),
        "risk": 0.2,
        "minimum": Minimum(units=5, days=1, reviewers=1),
    }
    return Gate(**(fields | changes))


def a_guard(measure, line, then="one-stage", *, label=None, action=None, **changes):
    """Return a guard of a measure."""
    condition = Condition(MEASURES[measure], line, label=label, action=action)
    return Guard(condition, then, **changes)


def evidence(policy, **changes):
    """Return the policy with other evidence rules."""
    return replace(policy, evidence=replace(policy.evidence, **changes))


def cases(*rows, attributes=()):
    """Frame of (key, hour, {site, episode, received, known, draws, attributes…})."""
    return pl.DataFrame(
        [
            {
                "case_key": key,
                "site": more.get("site", "creek"),
                "occurred_at": hour(at),
                "occurred_text": str(at),
                "hour_written": None,
                "episode": more.get("episode"),
                "received_at": hour(more.get("received")),
                "known_at": hour(more.get("known")),
                "draws": json.dumps(more["draws"]) if "draws" in more else None,
                **{f"attribute:{name}": more.get(name) for name in attributes},
            }
            for key, at, more in ((*row, {})[:3] for row in rows)
        ],
        schema=build_cases_schema(attributes),
    )


def predictions(*rows, levers=("alarm",)):
    """Frame of (key, answer or answers, {version, at, received, known, confidence, latency})."""
    return pl.DataFrame(
        [
            {
                "case_key": key,
                "version": more.get("version", "v1"),
                **_values(levers, label),
                "confidence": more.get("confidence"),
                "at": hour(more.get("at")),
                "latency_ms": more.get("latency"),
                "error": None,
                "received_at": hour(more.get("received")),
                "known_at": hour(more.get("known")),
            }
            for key, label, more in ((*row, {})[:3] for row in rows)
        ],
        schema=build_predictions_schema(levers),
    )


def decisions(*rows, levers=("alarm",)):
    """Frame of (key, answer or answers, {reviewer, at, received, exposure, seat})."""
    return pl.DataFrame(
        [
            {
                "case_key": key,
                "reviewer": more.get("reviewer", "ana"),
                **_values(levers, label),
                "unsure": label is None,
                "exposure": more.get("exposure", "blind"),
                "seat": more.get("seat"),
                "at": hour(more.get("at")),
                "received_at": hour(more.get("received")),
            }
            for key, label, more in ((*row, {})[:3] for row in rows)
        ],
        schema=build_decisions_schema(levers),
    )


def outcomes(*rows, levers=("alarm",)):
    """Frame of (key, harm, hour)."""
    return pl.DataFrame(
        [
            {"case_key": key, **_values(levers, None), "harm": harm, "at": hour(at)}
            for key, harm, at in rows
        ],
        schema=build_outcomes_schema(levers),
    )


def _values(levers, labels):
    answers = labels if isinstance(labels, tuple) else (labels,) * len(levers)
    return {f"value:{lever}": answer for lever, answer in zip(levers, answers, strict=True)}


def records(case_rows, prediction_rows=None, decision_rows=None, outcome_rows=None):
    """Return a history of frames; those left out are empty."""
    none = pl.DataFrame(schema=REMARK_SCHEMA)
    return RecordFrames(
        cases=case_rows,
        predictions=predictions() if prediction_rows is None else prediction_rows,
        decisions=decisions() if decision_rows is None else decision_rows,
        outcomes=outcomes() if outcome_rows is None else outcome_rows,
        rejected=none,
        notes=none,
        row_counts={},
    )


def resolved(history, policy, trained_until=None, salt=SALT):
    """Return the rows of `resolve_natural_units`, the gate track's first."""
    frame = resolve_natural_units(place_cases(history, policy, salt, trained_until), policy)
    return frame.sort("track", "site", "unit", "version", "lever")


def track(frame, name="gate"):
    """Return one track's rows as dictionaries."""
    return frame.filter(pl.col("track") == name).to_dicts()


def only(frame, name="gate"):
    """Return the one row of a track."""
    (row,) = track(frame, name)
    return row


def resolve_case(
    label="bear", verdict="bear", policy=None, *, case=None, prediction=None, decision=None
):
    """Resolve one case at hour 10 with a prediction and a decision."""
    return resolved(
        records(
            cases(("a", 10, case or {})),
            predictions(("a", label, prediction or {})),
            decisions(("a", verdict, decision or {})),
        ),
        policy or a_policy(),
    )
