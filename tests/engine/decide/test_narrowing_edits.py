"""An edit that one admin may apply lets nothing more happen: whatever is drawn, and edit by edit.

What is judged is what a policy answers in a rollout with grants, not how the edit is compared:
who decides and for how long, which stages may be widened to and who approves it, which stages a
stop returns to and who approves that, which evidence opens a gate, what answers do, cost and agree
with, where records belong, and when guards alarm.
"""

from collections import Counter
from dataclasses import fields, replace
from datetime import date
from functools import cache
from itertools import pairwise, product
from math import log
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.decide.assignment import CaseQuestion, decide_assignment
from rollout.engine.decide.policy_diff import list_looser_rules
from rollout.engine.decide.proposals import list_takeover_levels
from rollout.engine.decide.scope import (
    Grant,
    Stop,
    compute_held_level,
    find_acting_version,
)
from rollout.engine.decide.stops import find_highest_approvals, find_resume_needs
from rollout.engine.decide.widening_steps import find_settled_at, find_wave_hold
from rollout.kernel.calendar.instants import Cell, Site, Window
from rollout.kernel.calendar.windows import find_window
from rollout.kernel.errors import RefusalError
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.cell_evidence import list_floors
from rollout.kernel.policy.familiarity import (
    FAMILIAR,
    FamiliarAttribute,
    FamiliarityRule,
    find_status,
)
from rollout.kernel.policy.gates import is_gate_open
from rollout.kernel.policy.policy import (
    EvidenceRules,
    Freeze,
    Gate,
    Guard,
    Limit,
    Minimum,
    Stage,
    Waves,
    Where,
)
from rollout.kernel.statistics.detector import (
    compute_agreement_log_factors,
    compute_cost_log_factors,
    find_alarms,
)
from rollout.kernel.units import CostRule, Lever, Margin, Number
from tests.factories import (
    DAY,
    MINUTE,
    NOON,
    RolloutDriver,
    counted,
    hashed,
    policy,
    replace_cell_state,
)
from tests.properties import examples

EDITS = 10
TIMES = [NOON + days * DAY for days in (0, 0.45, 3, 8, 15, 25.5, 65, 120)]
CELLS = [Cell(site, window) for site in "abcde" for window in ("day", "night")]
WAVES = {"a": 1, "b": 1, "c": 2, "d": 3, "e": 3}
PLACES = (
    *(Where(), Where(), Where(("a",)), Where(("b", "c")), Where((), ("night",))),
    *(Where(("c",), ("day",)), Where(("d",))),
)
PEOPLE = (("operator", "operator"), ("operator",), ("operator", "safety"), ("safety", "legal"))
WINDOWS = (
    *((Window("day", "08:00-20:00"), Window("night")),) * 4,
    *((Window("day", "08:00-20:00"),), (Window("night"),)),
    (Window("day", "09:00-20:00"), Window("night")),
)
LABELS = ("bear", "deer", "none")
LEVERS = ("alarm", "door", "price")
UNITS = 200
GAPS = (-60, -9, -0.6, 0.6, 3, 9, 25, 60)
CONFIDENCES = (0.2, 0.6, 0.7, 0.9)
VERDICTS = list(product((False, True), repeat=3))
JUDGED = [
    [n % 50 != 0 for n in range(400)] + [n % every != 0 for n in range(40)] for every in (3, 9)
]
DEEDS = {
    "report": (),
    "suspend": ("suspend",),
    "one-stage": ("narrow",),
    "shadow": ("suspend", "narrow", "all"),
}
COUNTS = [counted(agreed, wrong, days=9) for agreed in (60, 120, 400) for wrong in (0, 1, 8, 30)]


def draw_stage(random, name):
    lasts, audit = random.choice((30, 90)) * DAY, random.choice((0.1, 0.3))
    if name == "supervised":
        return Stage(name, blind=random.choice((0.2, 0.5)), lasts=lasts)
    if name == "trial":
        return Stage(name, share=random.choice((0.2, 0.5)), audit=audit, lasts=lasts)
    return Stage(name, blind=random.choice((0, 0.2)), audit=audit, lasts=lasts)


LADDERS = (*(("supervised", "trial", "autonomous"),) * 3, ("supervised", "autonomous"))
LADDERS += (("supervised", "trial"), ("supervised",), ("trial", "autonomous"), ("autonomous",))


def draw_stages(random):
    return tuple(draw_stage(random, name) for name in random.choice(LADDERS))


def draw_gate(random, stage):
    return Gate(
        stage.id,
        (Condition(MEASURES["agreement"], random.choice((0.9, 0.95))),),
        risk=random.choice((0.01, 0.05)),
        minimum=Minimum(random.choice((50, 100)), 7, 1),
        approvals=random.choice(PEOPLE),
        where=random.choice(PLACES),
    )


def draw_gates(random, stages):
    return tuple(draw_gate(random, stage) for stage in stages for _ in range(random.randrange(3)))


def draw_site(random, name):
    wave = random.choice((WAVES[name], WAVES[name], 1, 2, 3))
    zone = random.choice(("UTC", "UTC", "UTC", "Asia/Tokyo"))
    return Site(name, zone, wave=wave, lease=random.choice((None, None, 10 * MINUTE)))


def draw_sites(random):
    names = random.choice(("abcd", "abcd", "abc", "abd", "bcd", "acd", "abcde"))
    return tuple(draw_site(random, name) for name in names)


def draw_limits(random, stages):
    levels, ends = ["shadow", *(stage.id for stage in stages)], (date(2027, 6, 20), None)
    return tuple(
        random.choice(
            (
                Limit(random.choice(levels), random.choice(ends), random.choice(PLACES)),
                Limit(None, date(2027, 9, 1), random.choice(PLACES)),
            )
        )
        for _ in range(random.randrange(3))
    )


def draw_waves(random, stages):
    hold, at_once = random.choice((2, 7)) * DAY, random.choice((None, 1, 2))
    waves = Waves(random.choice(stages).id, hold, random.choice((0.5, 1)), at_once)
    return random.choice((None, waves))


def draw_freezes(random):
    hours = ("Jun 01-15", "Dec 24-26", "Mo-Fr")
    return tuple(
        Freeze(random.choice(hours), where=random.choice(PLACES))
        for _ in range(random.randrange(3))
    )


def draw_margin(random):
    return random.choice((Margin(0.5), Margin(5), Margin(20), *(Margin(0.1, relative=True),) * 3))


def draw_lever(random, name):
    if name == "price":
        rows = [
            CostRule(random.choice((2, 9)), **{random.choice(("under", "over", "off")): margin})
            for margin in (draw_margin(random), draw_margin(random))
        ]
        number = Number(
            random.choice(("EUR", "EUR", "USD")), random.choice((0, 5)), 500, Margin(0.5)
        )
        return Lever(name, number=number, costs=(*rows, CostRule(1)))
    labels = LABELS if random.random() < 0.7 else LABELS[1:]
    actions = tuple(random.choice((label, label, "siren")) for label in labels)
    row = CostRule(random.choice((1, 5, 5, 1000)), did=random.choice(actions))
    return Lever(name, labels, actions, costs=(row, CostRule(1)))


def draw_levers(random):
    names = random.choice((LEVERS, LEVERS, LEVERS[:2], LEVERS[:1]))
    return tuple(draw_lever(random, name) for name in names)


def draw_evidence(random):
    floors = random.choice(((), (), (0.0, 0.7), (0.5, 0.7), (0.5, 0.7, 0.9)))
    familiar = FamiliarityRule((FamiliarAttribute(("form",)),), random.choice((5, 20, 50)), 0.8)
    return EvidenceRules(
        verdicts=random.choice((1, 1, 3)),
        confidence_floor=None if floors else random.choice((None, 0.5, 0.8)),
        confidence_floors=floors,
        familiar=random.choice((None, familiar)),
    )


def draw_guard(random, name, threshold):
    return Guard(
        Condition(MEASURES[name], random.choice((threshold, 0.8 * threshold))),
        random.choice(("report", "suspend", "one-stage", "shadow")),
        false_alarm_every=random.choice((100, 10_000)),
        where=random.choice(PLACES[:3]),
    )


def draw_guards(random):
    drawn = (draw_guard(random, *row) for row in (("agreement", 0.9), ("cost", 0.2)))
    return tuple(guard for guard in drawn if random.random() < 0.8)


DRAWS = {
    "levers": lambda random, _: draw_levers(random),
    "evidence": lambda random, _: draw_evidence(random),
    "guards": lambda random, _: draw_guards(random),
    "sites": lambda random, _: draw_sites(random),
    "windows": lambda random, _: random.choice(WINDOWS),
    "stages": lambda random, _: draw_stages(random),
    "gates": lambda random, old: draw_gates(random, old.stages),
    "limits": lambda random, old: draw_limits(random, old.stages),
    "waves": lambda random, old: draw_waves(random, old.stages),
    "freezes": lambda random, _: draw_freezes(random),
    "lease": lambda random, _: random.choice((1, 5)) * MINUTE,
    "takeover": lambda random, old: random.choice(("same-stage", *old.stage_ids[1:])),
    "observe": lambda _, old: not old.observe,
}


def draw_edit(random, old):
    """Return a policy of which one or two sections, rows or fields of a row are drawn anew."""
    for _ in range(random.choice((1, 1, 2))):
        name = random.choice(list(DRAWS))
        drawn, rows = DRAWS[name](random, old), getattr(old, name)
        if isinstance(rows, tuple) and rows:
            place = random.randrange(len(rows))
            before, row, after = rows[:place], rows[place], rows[place + 1 :]
            alike = [each for each in drawn if getattr(each, "id", "") == getattr(row, "id", "")]
            changed = [draw_field(random, row, each) for each in alike[:1] if name != "stages"]
            choices = (drawn, before + after, (*before, *alike[:1], *after))
            drawn = random.choice((*choices, *((*before, each, *after) for each in changed * 3)))
        elif isinstance(drawn, Waves | EvidenceRules) and rows:
            drawn = random.choice((drawn, draw_field(random, rows, drawn)))
        old = replace(old, **{name: drawn})
        if not (old.sites and old.windows and old.stages and old.levers):
            return None
    return mend(old)


def draw_field(random, row, drawn):
    names = (field.name for field in fields(row))
    name = random.choice([name for name in names if name not in {"labels", "actions"}])
    return replace(row, **{name: getattr(drawn, name)})


def mend(drawn):
    """Return what the reader would take, or None."""
    names = set(drawn.stage_ids[1:])
    has_gate = [any(gate.to == name for gate in drawn.gates) for name in drawn.stage_ids[1:]]
    if any(upper and not lower for lower, upper in pairwise(has_gate)):
        return None
    limits = (limit for limit in drawn.limits if limit.never_above in {None, "shadow", *names})
    return hashed(
        replace(
            drawn,
            gates=tuple(gate for gate in drawn.gates if gate.to in names),
            limits=tuple(limits),
            waves=drawn.waves if drawn.waves and drawn.waves.stage in names else None,
            takeover=drawn.takeover if drawn.takeover in names else "same-stage",
        )
    )


def begin(random):
    """Return a rollout in which versions hold stages, some of which have lapsed or returned."""
    first = None
    while first is None:
        stages = draw_stages(random)
        values = {name: draw(random, policy(stages=stages)) for name, draw in DRAWS.items()}
        first = mend(policy(**values | {"stages": stages}))
    driver = RolloutDriver(first, "v1", "v2")
    for cell in first.cells:
        version, count = random.choice(("v1", "v1", "v2")), random.randrange(len(first.stage_ids))
        starts = [NOON - random.choice((1, 5, 9, 30)) * DAY for _ in range(count)]
        grants = tuple(
            Grant(stage.id, since, NOON + random.choice((10, 60, 80)) * DAY, "P-1", since)
            for stage, since in zip(first.stages, starts, strict=False)
        )
        state = driver.scope.get_cell_state(cell, version)
        scope = replace_cell_state(driver.scope, cell, version, replace(state, grants=grants))
        times = {cell: NOON - random.choice((0, 1, 8)) * DAY}
        driver.scope = replace(
            scope,
            widened_at=scope.widened_at | (times if random.random() < 0.5 else {}),
            returned_at=scope.returned_at | (times if random.random() < 0.2 else {}),
        )
    return driver


def list_permissions(driver):
    """Yield what the policy in force lets happen; who must approve it is apart."""
    yield from list_answer_permissions(driver.policy)
    yield from list_record_permissions(driver.policy)
    yield from list_guard_permissions(driver.policy)
    for cell in driver.policy.cells:
        for level, stage in enumerate(driver.policy.stages, start=1):
            for number, counts in enumerate(COUNTS):
                if is_gate_open(driver.policy, cell, level, 1.0, counts, counts):
                    yield "evidence", cell, stage.id, number
        for at in TIMES:
            yield from list_cell_permissions(driver, cell, at)
    for site in driver.policy.sites:
        lease = site.lease or driver.policy.lease
        yield from (("lease", site.id, least) for least in (1, 5, 10) if lease >= least * MINUTE)
    for question in (
        CaseQuestion(site, at, version, key, confidence=0.9)
        for site in driver.policy.sites_by_id
        for at in TIMES
        for version in ("v1", "v2")
        for key in "klmnop"
    ):
        asked = (driver.scope, driver.policy, bytes(32), question)
        if decide_assignment(*asked, now=question.at).decider == "model":
            yield "decides", question.site, question.at, question.version, question.key


def list_answer_permissions(rules):
    """Yield what answers do, and for how little they may be wrong."""
    yield from (("agrees without", name) for name in LEVERS if name not in rules.levers_by_id)
    for lever in rules.levers:
        costs = {"missing": lever.largest_cost}
        if lever.number is None:
            yield from (
                ("acts", lever.id, *pair) for pair in zip(lever.labels, lever.actions, strict=True)
            )
            pairs = product(lever.labels, repeat=2)
            costs |= {pair: lever.compute_cost(*map(lever.find_action, pair)) for pair in pairs}
        else:
            low, high = lever.number.low, lever.number.high
            numbers = [n for n in (0, 2, 70, 150, 450) if low <= n <= high]
            yield from (("acts", lever.id, lever.number.unit, number) for number in numbers)
            pairs = product(numbers, GAPS)
            costs |= {(n, gap): lever.compute_number_cost(n + gap, n) for n, gap in pairs}
        for answer, cost in costs.items():
            yield from (
                ("costs", lever.id, answer, most) for most in (0, 1, 2, 5, 9) if cost <= most
            )


def list_record_permissions(rules):
    """Yield which records are evidence together, what agrees, and where they belong."""
    for floor in list_floors(rules.evidence):
        yield "evidence of", tuple(each for each in CONFIDENCES if each >= floor)
    for verdicts in VERDICTS:
        judged = verdicts[: rules.evidence.verdicts]
        if 2 * sum(judged) > len(judged):
            yield "agrees", verdicts
    for number, judged in enumerate(JUDGED):
        rule = rules.evidence.familiar
        newest = judged[-2 * rule.at_least :] if rule else []
        counts = len(newest), sum(newest), len(judged)
        if rule is None or find_status(*counts, rule, rule.line) == FAMILIAR:
            yield "familiar", number
    for site, at in product(rules.sites, TIMES):
        cell = Cell(site.id, find_window(site, rules.windows, at))
        if cell in rules.cell_set:
            yield "belongs", at, cell


def list_guard_permissions(rules):
    """Yield how many units a deed of a guard takes at most, by measure and cell."""
    for cell, name, deed in product(rules.cells, ("agreement", "cost"), DEEDS["shadow"]):
        firsts = [
            find_alarm(guard.condition, guard.false_alarm_every, rules.scale_cost(1))
            for guard in rules.list_guards(cell)
            if guard.condition.measure.name == name and deed in DEEDS[guard.then]
        ]
        yield from (("acts", cell, name, deed, n) for n in range(0, min(firsts, default=UNITS), 20))


@cache
def find_alarm(condition, false_alarm_every, loss):
    """Return after how many units of which every other is wrong a guard alarms."""
    wrong, units = np.arange(UNITS) % 2, np.ones(UNITS, dtype=int)
    if condition.at_least:
        factors = compute_agreement_log_factors(1 - wrong, units, reference=condition.threshold)
    else:
        counts, reference = np.stack([1 - wrong, wrong], axis=1), loss * condition.threshold
        factors = compute_cost_log_factors(counts, losses=(0.0, loss), reference=reference)
    alarms = np.flatnonzero(find_alarms(factors, units, log(false_alarm_every)))
    return int(alarms[0]) if len(alarms) else UNITS


def list_cell_permissions(driver, cell, at):
    scope, rules = driver.scope, driver.policy
    if acting := find_acting_version(scope, rules, cell, at):
        yield from (("acts", cell, at, acting[0], s) for s in rules.stage_ids[1 : acting[1] + 1])
    holder = scope.get_holder(cell)
    held = rules.stage_ids[acting[1]] if acting else ""
    if holder and not rules.observe:
        for level in list_takeover_levels(rules, scope.get_cell_state(cell, holder), at):
            if rules.is_reachable(cell, level, at):
                yield "takeover", cell, at, held, rules.stage_ids[level]
    is_free = rules.find_freeze(cell, at) is None and find_settled_at(scope, rules, at) is None
    for level, stage in enumerate(rules.stages, start=1):
        is_open = rules.is_reachable(cell, level, at) and not rules.observe and is_free
        if is_open and find_wave_hold(scope, rules, cell, level, at) is None:
            yield "widens", cell, at, stage.id


def list_needs(driver, stop):
    """Return by what is asked the approvals that it needs."""
    scope, rules = driver.scope, driver.policy
    needs = {("looser policy",): find_highest_approvals(rules)}
    for cell in rules.cells:
        for level, stage in enumerate(rules.stages, start=1):
            if gate := rules.find_gate(level, cell):
                needs["widening", cell, stage.id] = gate.approvals
    stops = [stop, *(replace(stop, cells=frozenset({cell})) for cell in stop.cells)]
    for at, each in product(TIMES, stops):
        holders = {cell: scope.get_holder(cell) for cell in each.cells & rules.cell_set}
        returns = frozenset(
            (cell, rules.stage_ids[level])
            for cell, holder in holders.items()
            if holder
            and (level := compute_held_level(rules, scope.get_cell_state(cell, holder), at))
        )
        if returns:
            needs["resume", at, returns] = find_resume_needs(scope, rules, each, at)
    return needs


@examples(given(st.integers(0, 1_000_000)), fast=15, whole=400)
def test_an_edit_that_loosens_nothing_lets_nothing_more_happen(seed):
    random = Random(seed)  # noqa: S311 - of a test
    driver = begin(random)
    for _ in range(EDITS):
        new = draw_edit(random, driver.policy)
        if new is None or list_looser_rules(driver.policy, new):
            continue
        stop = Stop("S-1", frozenset(random.sample(CELLS, random.choice((1, 2, 4)))), "bo", NOON)
        permissions = set(list_permissions(driver))
        needs = list_needs(driver, stop)
        try:
            driver.edit(new)
        except RefusalError:
            continue
        assert driver.policy.hash == new.hash, "nobody has to approve it"
        assert set(list_permissions(driver)) <= permissions
        for asked, people in list_needs(driver, stop).items():
            lost = Counter(needs.get(asked, ())) - Counter(people)
            if asked[0] != "resume" or len(asked[-1]) == 1:
                # two gates that ask for different groups together ask for more than each
                assert len(people) >= len(needs.get(asked, ())), (asked, lost)
            assert lost.keys() <= {"operator"}, "somebody of another group may stand for one"
