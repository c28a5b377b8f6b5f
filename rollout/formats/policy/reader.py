"""Read policy files: return a policy, or raise with all faults at once."""

from datetime import timedelta
from hashlib import sha256
from pathlib import Path

from rollout.core.calendar.sites import ALWAYS_WINDOW, Site, Window
from rollout.core.errors import PolicyRefusedError
from rollout.core.policy.evidence_sources import AccountSource, EvidenceSources
from rollout.core.policy.file_readings import FileReading
from rollout.core.policy.levers import CostRule, Lever, Number
from rollout.core.policy.policy import (
    DEFAULT_QUIET_DAYS,
    TIME_BETWEEN_FALSE_ALARMS,
    UNITS_BETWEEN_FALSE_ALARMS,
    Charter,
    EvidenceRules,
    Freeze,
    Gate,
    Guard,
    Limit,
    Minimum,
    Policy,
    ReportPlan,
    TrafficExpectation,
    Waves,
    Where,
)
from rollout.core.policy.stages import Stage, build_shared_stage
from rollout.core.policy.version_rules import VersionRule
from rollout.formats.policy import model as file
from rollout.formats.policy.checks import find_policy_faults
from rollout.formats.policy.document import find_length_faults, find_size_faults, parse_document
from rollout.formats.policy.guards import add_missing_guards
from rollout.formats.policy.measures import read_condition
from rollout.formats.policy.sections import (
    ImportShape,
    OutcomeShape,
    SourcesShape,
    StageShape,
    WavesShape,
    build_familiarity,
)
from rollout.formats.policy.yaml_reader import Document, DocumentFault, format_path, read_document
from rollout.kernel.label_sets import FULL_OVERLAP
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.outcomes import DECIDES, PROPOSES, OutcomeRule

DEFAULT_RISK, DEFAULT_MODEL_RISK = 0.05, 0.01


def build_policy(shape: file.PolicyShape, text: str) -> Policy:
    """Return the policy of a parsed file, which may still have faults.

    Conditions with an unreadable threshold are excluded; `find_policy_faults` reports them.
    """
    stages = tuple(_build_stage(stage) for stage in shape.stages)
    outcomes = tuple(_build_outcome(outcome) for outcome in shape.outcomes)
    policy = Policy(
        rollout=shape.rollout,
        timezone=shape.timezone,
        levers=tuple(_build_lever(lever) for lever in shape.levers),
        sites=tuple(_build_site(site, shape) for site in shape.sites),
        windows=_build_windows(shape),
        stages=stages,
        evidence=_build_evidence(shape.evidence),
        gates=tuple(_build_gate(gate, stages, len(shape.levers), outcomes) for gate in shape.gates),
        guards=_build_guards(shape, outcomes),
        limits=_build_limits(shape),
        waves=_build_waves(shape.waves),
        versions=tuple(
            VersionRule(row.id, row.content or "", row.sample) for row in shape.versions
        ),
        freezes=tuple(
            Freeze(row.hours, row.reason, Where(tuple(row.sites or ()))) for row in shape.freezes
        ),
        charter=_build_charter(shape.charter),
        country=shape.country,
        takeover=shape.takeover,
        reports=tuple(
            ReportPlan(r.name, r.every, r.at, r.view, tuple(r.to)) for r in shape.reports
        ),
        slices=tuple(shape.slices),
        retention=shape.retention.cases,
        lease=shape.lease,
        tick=shape.tick,
        observe=shape.observe,
        expect=_build_expectation(shape.expect),
        outcomes=outcomes,
        file_readings={row.records: _build_file_reading(row, shape) for row in shape.imports},
        hash=sha256(text.encode()).hexdigest(),
    )
    return add_missing_guards(policy)


def _build_stage(shape: StageShape) -> Stage:
    if shape.share is not None:
        return build_shared_stage(shape.id, shape.share, shape.audit, shape.lasts)
    return Stage(shape.id, shape.blind, shape.audit, shape.lasts)


def _build_outcome(shape: OutcomeShape) -> OutcomeRule:
    return OutcomeRule(
        id=shape.id,
        low=shape.low,
        high=shape.high,
        unit=shape.unit or "",
        more_is_better=shape.better == "more",
        closes=shape.closes,
        missing_at_most=shape.missing_at_most,
    )


def _build_lever(shape: file.LeverShape) -> Lever:
    labels = tuple(shape.labels or ())
    actions = shape.actions or {}
    return Lever(
        id=shape.id,
        labels=labels,
        actions=tuple(actions.get(label, label) for label in labels),
        number=_build_number(shape.number),
        costs=_build_costs(shape.costs),
        answer_within=shape.answer_within,
        unanswered=shape.unanswered,
        many=shape.many,
        overlap=shape.overlap if shape.many else FULL_OVERLAP,
    )


def _build_costs(rows: list[file.CostShape] | None) -> tuple[CostRule, ...]:
    if rows is None:
        return (CostRule(cost=1.0),)
    return tuple(
        CostRule(row.cost, row.did, row.right, row.under, row.over, row.off) for row in rows
    )


def _build_number(shape: file.NumberShape | None) -> Number | None:
    if shape is None:
        return None
    return Number(shape.unit, shape.low, shape.high, shape.tolerance)


def _build_site(site: file.SiteShape, shape: file.PolicyShape) -> Site:
    return Site(
        id=site.id,
        timezone=site.timezone or shape.timezone,
        country=site.country or shape.country,
        coordinates=site.place,
        wave=site.wave,
        lease=site.lease,
        was=site.was or "",
        open=site.open,
    )


def _build_windows(shape: file.PolicyShape) -> tuple[Window, ...]:
    if shape.windows is None:
        return (Window(ALWAYS_WINDOW),)
    return tuple(
        Window(
            window.id,
            window.hours,
            {name: tuple(values) for name, values in (window.when or {}).items()},
            window.was or "",
        )
        for window in shape.windows
    )


def _build_evidence(shape: file.EvidenceShape) -> EvidenceRules:
    floors = shape.confidence_floors or ()
    if shape.confidence_floor is not None:
        floors = (shape.confidence_floor,)
    return EvidenceRules(
        unit=shape.unit,
        episode_span=shape.episode_span,
        grace=shape.grace,
        missing_at_most=shape.missing_at_most,
        releases=shape.releases or 0,
        verdicts=shape.verdicts,
        second_verdict=shape.second_verdict,
        confidence_floor=floors[0] if floors else None,
        higher_floors=floors[1:],
        outside_blind=shape.outside == "blind",
        sources=_build_sources(shape.sources),
        familiar=build_familiarity(shape.familiar),
    )


def _build_sources(shape: SourcesShape) -> EvidenceSources:
    accounts = (AccountSource(row.account, tuple(row.reviewers)) for row in shape.accounts)
    vouched = {row.account: row.within for row in shape.vouched}
    outcomes = None if shape.outcomes is None else tuple(shape.outcomes)
    cases = None if shape.cases is None else tuple(shape.cases)
    return EvidenceSources(tuple(accounts), outcomes, vouched, cases)


def _build_selector(shape: file.CellSelection) -> Where:
    return Where(tuple(shape.sites or ()), tuple(shape.windows or ()))


def _build_conditions(
    rows: list[file.ConditionShape], levers: int, outcomes: tuple[OutcomeRule, ...], arm: str
) -> tuple[Condition, ...]:
    conditions = (read_condition(row, levers=levers, outcomes=outcomes, arm=arm) for row in rows)
    return tuple(condition for condition in conditions if condition is not None)


def _build_gate(
    shape: file.GateShape,
    stages: tuple[Stage, ...],
    levers: int,
    outcomes: tuple[OutcomeRule, ...],
) -> Gate:
    model_decides = any(stage.id == shape.to and stage.model_decides for stage in stages)
    default_risk = DEFAULT_MODEL_RISK if model_decides else DEFAULT_RISK
    minimum = shape.minimum
    risk = default_risk if shape.risk is None else shape.risk
    return Gate(
        to=shape.to,
        require=_build_conditions(
            shape.require, levers, outcomes, DECIDES if model_decides else PROPOSES
        ),
        risk=risk,
        minimum=Minimum(minimum.units, minimum.days, minimum.reviewers),
        approvals=shape.approvals,
        where=_build_selector(shape),
    )


def _build_guards(shape: file.PolicyShape, outcomes: tuple[OutcomeRule, ...]) -> tuple[Guard, ...]:
    guards = (_build_guard(row, len(shape.levers), outcomes) for row in shape.guards)
    return tuple(guard for guard in guards if guard is not None)


def _build_guard(
    shape: file.GuardShape, levers: int, outcomes: tuple[OutcomeRule, ...]
) -> Guard | None:
    condition = read_condition(shape, levers=levers, outcomes=outcomes)
    if condition is None:
        return None
    measure, units = MEASURES[shape.measure], shape.false_alarm_every
    return Guard(
        condition=condition,
        then=shape.then or measure.guard_effect,
        over=shape.over or measure.guard_span,
        false_alarm_every=units if isinstance(units, float) else UNITS_BETWEEN_FALSE_ALARMS,
        false_alarm_span=_find_alarm_span(shape),
        reach=shape.reach,
        holds=shape.holds,
        where=Where(tuple(shape.sites or ())),
        quiet_days=DEFAULT_QUIET_DAYS if shape.quiet_days is None else shape.quiet_days,
    )


def _find_alarm_span(shape: file.GuardShape) -> timedelta | None:
    """Return the time between false alarms; a measure that has none keeps units."""
    if not MEASURES[shape.measure].is_timed or isinstance(shape.false_alarm_every, float):
        return None
    return shape.false_alarm_every or TIME_BETWEEN_FALSE_ALARMS


def _build_limits(shape: file.PolicyShape) -> tuple[Limit, ...]:
    return tuple(Limit(row.never_above, row.ends, _build_selector(row)) for row in shape.limits)


def _build_waves(shape: WavesShape | None) -> Waves | None:
    if shape is None:
        return None
    return Waves(shape.stage, shape.hold, shape.share, shape.at_once, shape.settle)


def _build_charter(shape: file.CharterShape) -> Charter:
    return Charter(
        objective=shape.objective or "",
        affected=tuple(shape.affected or ()),
        if_it_works_very_well=shape.if_it_works_very_well or "",
        worst_case=shape.worst_case or "",
        feedback=shape.feedback or "",
        cost_in=shape.cost_in,
    )


def _build_expectation(shape: file.ExpectShape) -> TrafficExpectation:
    labels = tuple((shape.labels or {}).items())
    return TrafficExpectation(shape.units_per_day, labels, shape.agreement, shape.cost)


def _build_file_reading(row: ImportShape, shape: file.PolicyShape) -> FileReading:
    sources = row.columns or {}
    attributes = sources.get("attributes")
    if isinstance(attributes, list):
        attributes = dict(zip(attributes, attributes, strict=True))
    return FileReading(
        encoding=row.encoding,
        delimiter=row.delimiter,
        decimal=row.decimal,
        date_formats=None if row.date_format is None else tuple(row.date_format),
        percent=row.percent,
        unsure=None if row.unsure is None else tuple(row.unsure),
        exposure=row.exposure,
        columns={name: column for name, column in sources.items() if isinstance(column, str)},
        constants={
            name: source["value"]
            for name, source in sources.items()
            if isinstance(source, dict) and name != "attributes"
        },
        attributes=attributes,
        number_levers=frozenset(lever.id for lever in shape.levers if lever.number is not None),
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
    document = read_document(text)
    if document.value is None:
        raise InvalidPolicyError(_format_faults(document, document.faults, name))
    if length_faults := find_length_faults(document.value):
        raise InvalidPolicyError(_format_faults(document, (*document.faults, *length_faults), name))
    parsed = parse_document(document)
    if large := find_size_faults(parsed.shape):
        raise InvalidPolicyError(
            _format_faults(document, (*document.faults, *parsed.faults, *large), name)
        )
    policy = build_policy(parsed.shape, text)
    faults = (*document.faults, *parsed.faults, *find_policy_faults(parsed, policy))
    if faults:
        raise InvalidPolicyError(_format_faults(document, faults, name))
    return policy


def _format_faults(
    document: Document, faults: tuple[DocumentFault, ...], name: str
) -> tuple[str, ...]:
    rows = sorted(
        (document.find_line(fault.path), index, fault) for index, fault in enumerate(faults)
    )
    return tuple(
        f"{name}:{line}: {format_path(fault.path)}: {fault.text}" for line, _, fault in rows
    )
