"""A policy's shape as the frozen policy of the core: every default filled in, guards added."""

from hashlib import sha256

from rollout.core.calendar.sites import ALWAYS, Site, Window
from rollout.core.policy.levers import Cost, Lever, Number
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import (
    Charter,
    EvidenceRules,
    Expect,
    Freeze,
    Gate,
    Guard,
    Limit,
    Minimum,
    Policy,
    ReportPlan,
    Stage,
    Waves,
    Where,
)
from rollout.formats.policy import model as file
from rollout.formats.policy.guards import with_added_guards
from rollout.formats.policy.measures import RULES, read_condition

RISK, RISK_WHERE_THE_MODEL_DECIDES = 0.05, 0.01


def build_policy(shape: file.PolicyShape, text: str) -> Policy:
    """Return the policy of a file's shape; what `policy_faults` finds in it stays as it is.

    A condition whose line can't be read is left out: that is a fault already.
    """
    stages = tuple(Stage(s.id, s.blind, s.audit, s.lasts) for s in shape.stages)
    policy = Policy(
        rollout=shape.rollout,
        timezone=shape.timezone,
        levers=tuple(_lever(lever) for lever in shape.levers),
        sites=tuple(_site(site, shape) for site in shape.sites),
        windows=_windows(shape),
        stages=stages,
        evidence=_evidence(shape.evidence),
        gates=tuple(_gate(gate, stages, len(shape.levers)) for gate in shape.gates),
        guards=_guards(shape),
        limits=tuple(Limit(row.never_above, row.ends, _where(row)) for row in shape.limits),
        waves=_waves(shape.waves),
        freezes=tuple(Freeze(row.hours, row.reason, _where(row)) for row in shape.freezes),
        charter=_charter(shape.charter),
        country=shape.country,
        open_for=shape.proposals.open_for,
        after_rejection=shape.proposals.after_rejection,
        takeover=shape.takeover,
        reports=tuple(
            ReportPlan(r.name, r.every, r.at, r.view, tuple(r.to)) for r in shape.reports
        ),
        slices=tuple(shape.slices),
        reveal=shape.reveal,
        retention=shape.retention.cases,
        lease=shape.lease,
        tick=shape.tick,
        observe=shape.observe,
        expect=_expect(shape.expect),
        hash=sha256(text.encode()).hexdigest(),
    )
    return with_added_guards(policy)


def _lever(shape: file.LeverShape) -> Lever:
    labels = tuple(shape.labels or ())
    actions = shape.actions or {}
    return Lever(
        id=shape.id,
        labels=labels,
        actions=tuple(actions.get(label, label) for label in labels),
        number=_number(shape.number),
        costs=_costs(shape.costs),
        answer_within=shape.answer_within,
        unanswered=shape.unanswered,
    )


def _costs(rows: list[file.CostShape] | None) -> tuple[Cost, ...]:
    if rows is None:
        return (Cost(cost=1.0),)
    return tuple(Cost(row.cost, row.did, row.right, row.under, row.over, row.off) for row in rows)


def _number(shape: file.NumberShape | None) -> Number | None:
    if shape is None:
        return None
    return Number(shape.unit, shape.low, shape.high, shape.tolerance)


def _site(site: file.SiteShape, shape: file.PolicyShape) -> Site:
    return Site(
        id=site.id,
        timezone=site.timezone or shape.timezone,
        country=site.country or shape.country,
        place=site.place,
        wave=site.wave,
        lease=site.lease,
    )


def _windows(shape: file.PolicyShape) -> tuple[Window, ...]:
    if shape.windows is None:
        return (Window(ALWAYS),)
    return tuple(
        Window(
            window.id,
            window.hours,
            {name: tuple(values) for name, values in (window.when or {}).items()},
        )
        for window in shape.windows
    )


def _evidence(shape: file.EvidenceShape) -> EvidenceRules:
    return EvidenceRules(
        unit=shape.unit,
        episode_span=shape.episode_span,
        grace=shape.grace,
        missing_at_most=shape.missing_at_most,
        verdicts=shape.verdicts,
        second_verdict=shape.second_verdict,
        confidence_floor=shape.confidence_floor,
        outside_blind=shape.outside == "blind",
        min_reviewer_agreement=shape.min_reviewer_agreement,
    )


def _where(shape: file.Selecting) -> Where:
    return Where(tuple(shape.sites or ()), tuple(shape.windows or ()))


def _conditions(rows: list[file.ConditionShape], levers: int) -> tuple[Condition, ...]:
    conditions = (read_condition(row, levers=levers) for row in rows)
    return tuple(condition for condition in conditions if condition is not None)


def _gate(shape: file.GateShape, stages: tuple[Stage, ...], levers: int) -> Gate:
    model_decides = any(stage.id == shape.to and stage.model_decides for stage in stages)
    default_risk = RISK_WHERE_THE_MODEL_DECIDES if model_decides else RISK
    minimum = shape.minimum
    return Gate(
        to=shape.to,
        require=_conditions(shape.require, levers),
        risk=default_risk if shape.risk is None else shape.risk,
        minimum=Minimum(minimum.units, minimum.days, minimum.reviewers),
        approvals=shape.approvals,
        where=_where(shape),
    )


def _guards(shape: file.PolicyShape) -> tuple[Guard, ...]:
    guards = (_guard(row, len(shape.levers)) for row in shape.guards)
    return tuple(guard for guard in guards if guard is not None)


def _guard(shape: file.GuardShape, levers: int) -> Guard | None:
    condition = read_condition(shape, levers=levers)
    if condition is None:
        return None
    rule = RULES[shape.measure]
    return Guard(
        condition=condition,
        then=shape.then or rule.then,
        over=shape.over or rule.over,
        false_alarm_every=shape.false_alarm_every,
        reach=shape.reach,
        where=_where(shape),
    )


def _waves(shape: file.WavesShape | None) -> Waves | None:
    if shape is None:
        return None
    return Waves(shape.stage, shape.hold, shape.share, shape.at_once, shape.settle)


def _charter(shape: file.CharterShape) -> Charter:
    return Charter(
        objective=shape.objective or "",
        affected=tuple(shape.affected or ()),
        if_it_works_very_well=shape.if_it_works_very_well or "",
        worst_case=shape.worst_case or "",
        feedback=shape.feedback or "",
        cost_in=shape.cost_in,
    )


def _expect(shape: file.ExpectShape) -> Expect:
    labels = tuple((shape.labels or {}).items())
    return Expect(shape.units_per_day, labels, shape.agreement, shape.cost)
