"""What stands in a policy file where a policy has other values: gates, guards and readings."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from rollout.core.policy.policy import GateBase, GuardBase, PolicyBase
from rollout.kernel.measures import MEASURES
from rollout.kernel.policy_keys import Key


@dataclass(frozen=True, kw_only=True)
class WrittenCondition:
    """A measure with its threshold."""

    measure: Annotated[str, Key("", "What is looked at.", "agreement", choices=tuple(MEASURES))]
    at_least: Annotated[
        str | None,
        Key("RawText", "Threshold, for agreement, recall, precision: 95%; for gain: 0."),
    ] = None
    at_most: Annotated[str | None, Key("RawText", "Threshold, for costs, counts and spans.")] = None
    label: Annotated[
        str | None, Key("NonEmptyText", "For recall and precision, or a named harm.")
    ] = None
    lever: Annotated[str | None, Key("Name", "Which lever, where there are several.")] = None
    action: Annotated[str | None, Key("NonEmptyText", "For action_change.")] = None
    of: Annotated[
        str | None,
        Key(
            "Name",
            "For gain: which of the outcomes. For agreement and recall in gates: planted, "
            "for the planted cases alone; else they are about the cases that occur.",
        ),
    ] = None
    slice: Annotated[
        str | None,
        Key(
            "NonEmptyText",
            "For agreement: an attribute, each of whose values must pass by itself. For "
            "drift: whose shares are watched; without it, those of the human decisions. Cases "
            "without the attribute have the value (none).",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class WrittenGate(GateBase):
    """Conditions to widen by one stage."""

    require: Annotated[
        tuple[WrittenCondition, ...],
        Key(
            "",
            "Conditions; all must hold, with those of the gates below.",
            "[{measure: agreement, at_least: 95%}]",
            is_filled=True,
        ),
    ]
    risk: Annotated[
        float | None,
        Key(
            "Risk",
            "Chance of ever opening wrongly. Default: 5%, and 1% where the model decides.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class WrittenGuard(GuardBase, WrittenCondition):
    """A condition under which scope narrows or is suspended, or an incident is reported."""

    false_alarm_every: Annotated[
        float | timedelta | None,
        Key(
            "FalseAlarmInterval",
            "Mean units, or for latency_p95, failures, missing, unaudited and heartbeat "
            "time, between two false alarms, at least. Default: 10000 units, and 1y.",
        ),
    ] = None
    quiet_days: Annotated[
        float | None,
        Key(
            "QuietShare",
            "For heartbeat: share of the usual traffic on quiet days, such as 1/3 or 33%. "
            "Default: 1/2.",
        ),
    ] = None
    then: Annotated[
        str | None,
        Key(
            "",
            "What an alarm does. Default: the measure's own.",
            choices=("one-stage", "shadow", "suspend", "report"),
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class WrittenReading:
    """How recorded files of one kind are written; `rollout init` drafts it."""

    records: Annotated[
        str,
        Key(
            "",
            "Which file; pairs is the file of `rollout compare`.",
            "predictions",
            choices=("cases", "predictions", "decisions", "outcomes", "pairs"),
        ),
    ]
    encoding: Annotated[
        str | None,
        Key(
            "Encoding",
            "Encoding of a text file, such as latin-1 or utf-16. Default: UTF-8.",
        ),
    ] = None
    delimiter: Annotated[
        str | None,
        Key("Delimiter", "Between columns: , ; | or tab. Default: by suffix, .csv or .tsv."),
    ] = None
    decimal: Annotated[
        str | None,
        Key("", "Decimal sign of numbers. Default: a point.", choices=(".", ",")),
    ] = None
    date_format: Annotated[
        tuple[str, ...] | None,
        Key(
            "DateFormat",
            "Forms of times other than ISO 8601: day-first, month-first, year-first, "
            "basic (20270503T140509Z), unix-seconds, unix-milliseconds, or a pattern as "
            "%d-%b-%Y %H:%M; a Z at its end means UTC.",
            is_filled=True,
        ),
    ] = None
    percent: Annotated[
        bool | None, Key("Flag", "Confidence is from 0 to 100. Default: from 0 to 1.")
    ] = None
    unsure: Annotated[
        tuple[str, ...] | None,
        Key("NonEmptyText", "Labels that mean: no answer.", is_filled=True),
    ] = None
    exposure: Annotated[
        str | None,
        Key(
            "",
            "What reviewers had seen, where the file does not say. Default: evidence.outside.",
            choices=("blind", "assisted", "unknown"),
        ),
    ] = None
    columns: Annotated[
        dict[str, Any] | None,
        Key(
            "ColumnSources",
            "Their column by our name, {value: TEXT} for one text in all rows, and "
            "attributes: a list of columns.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class WrittenPolicy(PolicyBase):
    """Policy of a rollout: what can widen, when, with whose approval, and what narrows it."""

    gates: Annotated[
        tuple[WrittenGate, ...],
        Key(
            "",
            "What widens a cell by one stage; the first that fits counts.",
            "[{to: supervised, require: [{measure: agreement, at_least: 95%}]}]",
            is_filled=True,
        ),
    ]
    guards: Annotated[
        tuple[WrittenGuard, ...],
        Key("", "What narrows; all that fit apply. Missing ones are added: see plan."),
    ] = ()
    imports: Annotated[
        tuple[WrittenReading, ...],
        Key(
            "",
            "How recorded files are written, for replay, plan and import.",
            name="import",
        ),
    ] = ()
