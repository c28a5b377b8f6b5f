"""Read policy files: return a policy, or raise with all faults at once."""

from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

from rollout.core.calendar.sites import ALWAYS_WINDOW, Window
from rollout.core.errors import PolicyRefusedError
from rollout.core.policy.file_readings import FileReading
from rollout.core.policy.policy import (
    DEFAULT_QUIET_DAYS,
    TIME_BETWEEN_FALSE_ALARMS,
    UNITS_BETWEEN_FALSE_ALARMS,
    Gate,
    GateBase,
    Guard,
    GuardBase,
    Policy,
    PolicyBase,
)
from rollout.formats.policy.checks import find_policy_faults
from rollout.formats.policy.document import (
    ParsedPolicy,
    find_length_faults,
    find_size_faults,
    parse_document,
)
from rollout.formats.policy.guards import add_missing_guards
from rollout.formats.policy.measures import read_condition
from rollout.formats.policy.model import WrittenGate, WrittenGuard, WrittenPolicy, WrittenReading
from rollout.formats.policy.yaml_reader import Document, DocumentFault, format_path, read_document
from rollout.kernel.measures import MEASURES
from rollout.kernel.outcomes import DECIDES, PROPOSES

DEFAULT_RISK, DEFAULT_MODEL_RISK = 0.05, 0.01


def build_policy(written: WrittenPolicy, text: str) -> Policy:
    """Return the policy of a parsed file, which may still have faults.

    Conditions with an unreadable threshold are excluded; `find_policy_faults` reports them.
    """
    shared = {each.name: getattr(written, each.name) for each in fields(PolicyBase)}
    sites = tuple(
        replace(
            site,
            timezone=site.timezone or written.timezone,
            country=site.country or written.country,
        )
        for site in written.sites
    )
    policy = Policy(
        **shared | {"sites": sites, "windows": written.windows or (Window(ALWAYS_WINDOW),)},
        gates=tuple(_build_gate(gate, written) for gate in written.gates),
        guards=tuple(_build_guards(written)),
        file_readings={row.records: _build_file_reading(row, written) for row in written.imports},
        hash=sha256(text.encode()).hexdigest(),
    )
    return add_missing_guards(policy)


def _build_gate(row: WrittenGate, written: WrittenPolicy) -> Gate:
    model_decides = any(stage.id == row.to and stage.model_decides for stage in written.stages)
    default_risk = DEFAULT_MODEL_RISK if model_decides else DEFAULT_RISK
    arm = DECIDES if model_decides else PROPOSES
    conditions = (
        read_condition(each, levers=len(written.levers), outcomes=written.outcomes, arm=arm)
        for each in row.require
    )
    return Gate(
        require=tuple(condition for condition in conditions if condition is not None),
        risk=default_risk if row.risk is None else row.risk,
        **{each.name: getattr(row, each.name) for each in fields(GateBase)},
    )


def _build_guards(written: WrittenPolicy) -> Iterator[Guard]:
    for row in written.guards:
        condition = read_condition(row, levers=len(written.levers), outcomes=written.outcomes)
        if condition is None:
            continue
        measure, units = MEASURES[row.measure], row.false_alarm_every
        shared = {each.name: getattr(row, each.name) for each in fields(GuardBase)}
        yield Guard(
            condition=condition,
            then=row.then or measure.guard_effect,
            false_alarm_every=units if isinstance(units, float) else UNITS_BETWEEN_FALSE_ALARMS,
            false_alarm_span=_find_alarm_span(row),
            quiet_days=DEFAULT_QUIET_DAYS if row.quiet_days is None else row.quiet_days,
            **shared | {"over": row.over or measure.guard_span},
        )


def _find_alarm_span(row: WrittenGuard) -> timedelta | None:
    """Return the time between false alarms; a measure that has none keeps units."""
    if not MEASURES[row.measure].is_timed or isinstance(row.false_alarm_every, float):
        return None
    return row.false_alarm_every or TIME_BETWEEN_FALSE_ALARMS


def _build_file_reading(row: WrittenReading, written: WrittenPolicy) -> FileReading:
    sources = row.columns or {}
    attributes = sources.get("attributes")
    if isinstance(attributes, list):
        attributes = dict(zip(attributes, attributes, strict=True))
    return FileReading(
        encoding=row.encoding,
        delimiter=row.delimiter,
        decimal=row.decimal,
        date_formats=row.date_format,
        percent=row.percent,
        unsure=row.unsure,
        exposure=row.exposure,
        columns={name: column for name, column in sources.items() if isinstance(column, str)},
        constants={
            name: source["value"]
            for name, source in sources.items()
            if isinstance(source, dict) and name != "attributes"
        },
        attributes=attributes,
        number_levers=frozenset(lever.id for lever in written.levers if lever.number is not None),
    )


class InvalidPolicyError(PolicyRefusedError):
    """A refused policy file; `faults` has one line for each fault."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def read_policy(path: Path) -> Policy:
    """Read a policy file, YAML or JSON.

    Raises:
        InvalidPolicyError: the file is not a valid policy.
        OSError: the file can't be opened.
    """
    return parse_policy(read_policy_text(path), name=path.name)


def read_policy_text(path: Path) -> str:
    """Read the text of a policy file; a pipe can be read only once.

    Raises:
        InvalidPolicyError: the file is empty or not UTF-8.
        OSError: the file can't be opened.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        message = f"{path.name}:1: (file): is not UTF-8 (byte {error.start}); save it as UTF-8"
        raise InvalidPolicyError((message,)) from None
    if not text.strip():  # as a refused `rollout init > FILE` leaves it
        message = f"{path.name}:1: (file): is empty; write a policy, or draft one by `rollout init`"
        raise InvalidPolicyError((message,))
    return text


def parse_policy(text: str, *, name: str = "policy.yaml") -> Policy:
    """Parse the text of a policy, one YAML or JSON document.

    Args:
        text: the document.
        name: file name for the faults.

    Raises:
        InvalidPolicyError: a line per fault: file, line, field, the problem and its remedy.

    >>> parse_policy("rollout: a b")
    Traceback (most recent call last):
    rollout.formats.policy.reader.InvalidPolicyError: policy.yaml:1: rollout: 'a b' is no id; ...
    """
    document, parsed, policy = _read_policy(text, name)
    faults = (*document.faults, *parsed.faults, *find_policy_faults(parsed, policy))
    if faults:
        raise InvalidPolicyError(_format_faults(document, faults, name))
    return policy


def parse_checked_policy(text: str) -> Policy:
    """Parse a text that `parse_policy` has accepted before: what it means is not checked again.

    Whether hours ever open takes arrays of five years of each window.

    Raises:
        InvalidPolicyError: as `parse_policy`, of what can't be read.
    """
    document, parsed, policy = _read_policy(text, "policy.yaml")
    if faults := (*document.faults, *parsed.faults):
        raise InvalidPolicyError(_format_faults(document, faults, "policy.yaml"))
    return policy


def _read_policy(text: str, name: str) -> tuple[Document, ParsedPolicy, Policy]:
    document = read_document(text)
    if document.value is None:
        raise InvalidPolicyError(_format_faults(document, document.faults, name))
    if length_faults := find_length_faults(document.value):
        raise InvalidPolicyError(_format_faults(document, (*document.faults, *length_faults), name))
    parsed = parse_document(document)
    if large := find_size_faults(parsed.written):
        raise InvalidPolicyError(
            _format_faults(document, (*document.faults, *parsed.faults, *large), name)
        )
    return document, parsed, build_policy(parsed.written, text)


def _format_faults(
    document: Document, faults: tuple[DocumentFault, ...], name: str
) -> tuple[str, ...]:
    rows = sorted(
        (document.find_line(fault.path), index, fault) for index, fault in enumerate(faults)
    )
    return tuple(
        f"{name}:{line}: {format_path(fault.path)}: {fault.text}" for line, _, fault in rows
    )
