import ast
from dataclasses import replace
from datetime import date, timedelta
from inspect import getsource

import pytest

from rollout.engine.decide import policy_diff
from rollout.engine.decide.stops import TWO_OPERATORS, find_highest_approvals
from rollout.kernel.calendar.instants import Site, Window
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.evidence_sources import AccountSource, EvidenceSources, FileReading
from rollout.kernel.policy.familiarity import FamiliarAttribute, FamiliarityRule
from rollout.kernel.policy.policy import (
    EvidenceRules,
    Freeze,
    Guard,
    Limit,
    Minimum,
    ReportPlan,
    Retention,
    Stage,
    TrafficExpectation,
    Waves,
    Where,
)
from rollout.kernel.policy.record_definition import compute_definition, is_redefined
from rollout.kernel.policy.stages import VersionRule
from rollout.kernel.units import CostRule, Lever, Margin, Number
from rollout.kernel.words import LOOSER_RULES
from tests.factories import AGREEMENT, CREEK, CREEK_NIGHT, LAKE, gates, policy
from tests.looser import say_looser_rules

HOUR = timedelta(hours=1)
DAY = 24 * HOUR
ALARM = Lever("alarm", labels=("bear", "none"), actions=("siren", "nothing"))
STRICT = Lever(
    "alarm",
    labels=("bear", "none"),
    actions=("siren", "nothing"),
    costs=(CostRule(20, did="nothing"), CostRule(1)),
    answer_within=HOUR,
    unanswered="siren",
)
PRICE = Lever(
    "price",
    number=Number("EUR", 1, 500, Margin(0.05, relative=True)),
    costs=(CostRule(9, under=Margin(0.2, relative=True)), CostRule(1)),
)
RECALL = Condition(MEASURES["recall"], 0.8, label="bear")
HARM = Condition(MEASURES["harm"], 0)
FAILURES = Condition(MEASURES["failures"], 0.1)
GUARD = Guard(AGREEMENT, "one-stage", over=None, false_alarm_every=1000)
VIENNA, BERLIN = (Site("creek", "UTC", country=country) for country in ("AT", "DE"))
FORMS = FamiliarityRule((FamiliarAttribute(("form",)),))
LIGHT = FamiliarAttribute(("light",), (0, 20, 50))
SUPERVISED, AUTONOMOUS = Stage("supervised", blind=0.5), Stage("autonomous", blind=0.1, audit=0.1)
EPISODES = EvidenceRules(unit="episode", episode_span=HOUR)


def evidence(**changes):
    return {"evidence": replace(EvidenceRules(), **changes)}


def stages(*, supervised=SUPERVISED, autonomous=AUTONOMOUS):
    return {"stages": (supervised, autonomous)}


def guard(**changes):
    return {"guards": (replace(GUARD, **changes),)}


def lever(made):
    return {"levers": (made,)}


def line(at_least):
    return {
        "gates": gates(supervised={"require": (replace(AGREEMENT, threshold=at_least), RECALL)})
    }


# name: what stood before, what stands now, the sentence. The way back loosens nothing.
LOOSER = {
    "line": (line(0.95), line(0.9), "supervised requires agreement at least 90 % instead of 95 %"),
    "condition": (
        line(0.95),
        {"gates": gates()},
        "supervised no longer requires recall of bear at least 80 %",
    ),
    "cost line": (
        {"gates": gates(require=(Condition(MEASURES["cost"], 0.1),))},
        {"gates": gates(require=(Condition(MEASURES["cost"], 0.2),))},
        "autonomous requires cost at most 0.2 instead of 0.1",
    ),
    "risk": (
        {"gates": gates(risk=0.01)},
        {"gates": gates(risk=0.05)},
        "autonomous opens at a risk of 5 % instead of 1 %",
    ),
    "minimum": (
        {"gates": gates(minimum=Minimum(reviewers=2))},
        {"gates": gates(minimum=Minimum())},
        "autonomous requires 1 reviewers instead of 2",
    ),
    "approvals": (
        {"gates": gates(approvals=("operator", "safety"))},
        {"gates": gates(approvals=("operator",))},
        "autonomous is approved by operator, not operator, safety",
    ),
    "gate": (
        {"gates": gates(approvals=TWO_OPERATORS)[:1]},
        {"gates": gates(approvals=TWO_OPERATORS)},
        "a gate to autonomous, where none was",
    ),
    "guard": (guard(), {"guards": ()}, "the guard on agreement at least 95 % (one-stage) is gone"),
    "guard's line": (
        guard(),
        guard(condition=replace(AGREEMENT, threshold=0.9)),
        "the guard on agreement at least 95 % (one-stage) is looser: agreement at least 90 %",
    ),
    "guard's pace": (guard(), guard(false_alarm_every=9999), "the guard on agreement"),
    "guard's time between alarms": (
        guard(false_alarm_span=365 * DAY),
        guard(false_alarm_span=730 * DAY),
        "the guard on agreement",
    ),
    "site's hours": (
        {"sites": (Site("creek", "UTC"),)},
        {"sites": (Site("creek", "UTC", open="08:00-20:00"),)},
        "silence of creek counts in other hours: 08:00-20:00",
    ),
    "imports as blind": (
        {"file_readings": {"decisions": FileReading(exposure="assisted")}},
        {"file_readings": {"decisions": FileReading(constants={"exposure": "blind"})}},
        "imported decisions count as blind where their file does not say",
    ),
    "imports as blind, as all that is decided elsewhere": (
        evidence(outside="blind")
        | {"file_readings": {"decisions": FileReading(exposure="assisted")}},
        evidence(outside="blind"),
        "imported decisions count as blind where their file does not say",
    ),
    "registered cases": (
        evidence(sources=EvidenceSources(cases=("camera-1",))),
        evidence(),
        "cases of every account that may send them count for gates",
    ),
    "sample": (
        {"versions": (VersionRule("v2", sample=0.5),)},
        {"versions": (VersionRule("v2", sample=0.1),)},
        "v2 runs on fewer cases, 10 % of them",
    ),
    "overlap": (
        lever(replace(ALARM, many=True, overlap=0.9)),
        lever(replace(ALARM, many=True, overlap=0.5)),
        "lever alarm: sets agree from an overlap of 50 % on, where it was 90 %",
    ),
    "guard's traffic": (
        guard(condition=FAILURES, false_alarm_span=365 * DAY),
        guard(condition=FAILURES, false_alarm_span=365 * DAY)
        | {"expect": TrafficExpectation(units_per_day=1e9)},
        "guards on shares of records expect more traffic, so at first they alarm later",
    ),
    "guard's reach": (guard(reach="site"), guard(reach="cell"), "the guard on agreement"),
    "guard's deed": (guard(then="shadow"), guard(then="one-stage"), "the guard on agreement"),
    "guard only told of": (guard(), guard(then="report"), "the guard on agreement"),
    "harm's span": (
        guard(condition=HARM, over=30 * DAY),
        guard(condition=HARM, over=DAY),
        "the guard on harm at most 0",
    ),
    "guard somewhere": (
        guard(),
        guard(where=Where(sites=("creek",))),
        "is gone, in lake · day, lake · night",
    ),
    "ceiling": (
        {"limits": (Limit(never_above="supervised", where=Where(windows=("night",))),)},
        {"limits": ()},
        "autonomous is allowed, where supervised was the most, in creek · night, lake · night",
    ),
    "trial": (
        {"limits": (Limit(ends=date(2027, 6, 30)),)},
        {"limits": (Limit(ends=date(2027, 7, 31)),)},
        "the trial goes on to 2027-07-31, not to 2027-06-30",
    ),
    "endless trial": (
        {"limits": (Limit(ends=date(2027, 6, 30)),)},
        {"limits": ()},
        "the trial goes on without end",
    ),
    "blind": (
        stages(),
        stages(supervised=Stage("supervised", blind=0.4)),
        "supervised: a smaller blind share, 40 %",
    ),
    "audit": (
        stages(),
        stages(autonomous=Stage("autonomous", blind=0.1, audit=0.05)),
        "autonomous: fewer audits, 5 %",
    ),
    "decider": (
        stages(),
        stages(supervised=Stage("supervised", blind=0.5, audit=0.5)),
        "at supervised the model decides, where a human confirmed",
    ),
    "grant": (
        stages(),
        stages(supervised=Stage("supervised", blind=0.5, lasts=99 * DAY)),
        "supervised: a grant lasts longer, 99d",
    ),
    "lease": (
        {"lease": HOUR},
        {"lease": 2 * HOUR},
        "a stop reaches creek later: its answers are valid for 2h",
    ),
    "lease of a site": (
        {"sites": (Site("creek", "UTC", lease=HOUR),)},
        {"sites": (Site("creek", "UTC", lease=2 * HOUR),)},
        "a stop reaches creek later: its answers are valid for 2h",
    ),
    "freeze": (
        {"freezes": (Freeze("Dec 24-26", "holidays"),)},
        {"freezes": ()},
        "the freeze for holidays (Dec 24-26) is gone or moved",
    ),
    "waves": ({"waves": Waves("supervised")}, {}, "sites no longer wait for an earlier wave"),
    "wave's stage": (
        {"waves": Waves("autonomous")},
        {"waves": Waves("supervised")},
        "the next wave waits for a lower stage, supervised",
    ),
    "wave's hold": (
        {"waves": Waves("supervised", hold=9 * DAY)},
        {"waves": Waves("supervised", hold=DAY)},
        "the next wave opens sooner",
    ),
    "settling": (
        {"waves": Waves("supervised", at_once=2)},
        {"waves": Waves("supervised")},
        "more cells may be widened at once",
    ),
    "observe": ({"observe": True}, {}, "proposals are applied, where they were only raised"),
    "tick": ({"tick": HOUR}, {"tick": 2 * HOUR}, "guards look less often, every 2h"),
    "takeover": ({}, {"takeover": "supervised"}, "a challenger may take over at a lower stage"),
    "missing": (evidence(), evidence(missing_at_most=0.2), "more units may lack a decision: 20 %"),
    "outside": (evidence(), evidence(outside="blind"), "decisions made elsewhere count"),
    "familiar": (evidence(familiar=FORMS), evidence(), "cases with unfamiliar attribute values"),
    "familiar attributes": (
        evidence(familiar=replace(FORMS, attributes=(*FORMS.attributes, LIGHT))),
        evidence(familiar=FORMS),
        "the model decides cases with unfamiliar values of light",
    ),
    "familiar line": (
        evidence(familiar=FORMS) | guard(),
        evidence(familiar=replace(FORMS, line=0.9)) | guard(),
        "less agreement makes a value familiar: 90 % instead of 95 %, first in creek · day",
    ),
    "retention": (
        {"retention": Retention(365 * DAY)},
        {"retention": Retention(DAY)},
        "records go after 1d: no guard sees a harm that is told of them later",
    ),
    "retention at all": ({}, {"retention": Retention(DAY)}, "records go after 1d"),
    "new label": (
        lever(ALARM),
        lever(replace(ALARM, labels=(*ALARM.labels, "fox"), actions=(*ALARM.actions, "nothing"))),
        "lever alarm has new labels, or actions of them: fox",
    ),
    "cost": (
        lever(STRICT),
        lever(replace(STRICT, costs=(CostRule(19, did="nothing"), CostRule(1)))),
        "lever alarm: some wrong action costs less than before",
    ),
    "later answer": (
        lever(STRICT),
        lever(replace(STRICT, answer_within=2 * HOUR)),
        "lever alarm: a later answer of the model counts",
    ),
    "distance": (
        lever(PRICE),
        lever(replace(PRICE, costs=(CostRule(9, under=Margin(0.3, relative=True)), CostRule(1)))),
        "lever price: some wrong action costs less than before",
    ),
    "tolerance": (
        lever(PRICE),
        lever(replace(PRICE, number=Number("EUR", 1, 500, Margin(0.06, relative=True)))),
        "lever price: another unit, or a wider range or tolerance of its number",
    ),
    "new site": (
        {"sites": (Site("creek", "UTC"),)},
        {"sites": (Site("creek", "UTC"), Site("lake", "UTC"))},
        "site lake is new",
    ),
    "new window": (
        {"windows": (Window("day", "08:00-20:00"),)},
        {"windows": (Window("day", "08:00-20:00"), Window("night"))},
        "windows or their clocks changed: hours come under other rules",
    ),
}


@pytest.mark.parametrize("name", LOOSER)
def test_a_looser_policy_is_named_and_the_way_back_is_none(name):
    before, now, says = LOOSER[name]
    old, new = policy(**before), policy(**now)
    found = say_looser_rules(old, new)
    assert any(says in sentence for sentence in found), found
    assert say_looser_rules(new, old) == ()


def test_a_freeze_elsewhere_is_none_of_this_cell():
    old = policy(freezes=(Freeze("Dec 24-26", "holidays", where=at("creek")),))
    moved = replace(old.freezes[0], where=at("lake"))
    (sentence,) = say_looser_rules(old, replace(old, freezes=(moved,)))
    assert "is gone or moved, in creek" in sentence


def test_the_highest_gate_decides_about_edits_wherever_it_is_listed():
    first, last = gates(supervised={"approvals": TWO_OPERATORS})
    assert find_highest_approvals(policy(gates=(last, first))) == last.approvals
    stricter = replace(last, approvals=("operator", "operator", "safety"), where=at("lake"))
    assert find_highest_approvals(policy(gates=(stricter, last, first))) == stricter.approvals


def test_a_site_keeps_its_approvals_when_its_gate_goes():
    first, last = gates(approvals=TWO_OPERATORS)
    own = replace(first, approvals=("operator", "safety"), where=at("lake"))
    elsewhere = replace(first, where=at("creek"))
    (sentence,) = say_looser_rules(
        policy(gates=(own, elsewhere, last)), policy(gates=(elsewhere, last))
    )
    assert sentence.startswith("supervised is approved by operator, operator, not operator, safety")
    assert "lake" in sentence
    assert (
        say_looser_rules(policy(gates=(first, elsewhere, last)), policy(gates=(elsewhere, last)))
        == ()
    )


IN_LOOPS = {"units", "days", "reviewers", "unit", "grace", "releases", "verdicts"}


def test_each_kind_has_a_sentence_and_each_sentence_a_rule():
    nodes = ast.walk(ast.parse(getsource(policy_diff)))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    kinds = [call.args[0] for call in calls if getattr(call.func, "id", "") == "build_looser"]
    names = {each.value for kind in kinds for each in ast.walk(kind) if hasattr(each, "value")}
    assert {name for name in names if isinstance(name, str)} | IN_LOOPS == set(LOOSER_RULES)


BOTH_WAYS = {
    "holidays of a freeze": (
        {"sites": (VIENNA,), "freezes": (Freeze("PH", "holidays"),)},
        {"sites": (BERLIN,), "freezes": (Freeze("PH", "holidays"),)},
    ),
    "holidays of open hours": (
        {"sites": (replace(VIENNA, open="08:00-20:00; PH off"),)},
        {"sites": (replace(BERLIN, open="08:00-20:00; PH off"),)},
    ),
    "fallback": (lever(STRICT), lever(replace(STRICT, unanswered="nothing"))),
    "lever, without which units agree more": (lever(ALARM), {"levers": (ALARM, PRICE)}),
    "actions": (lever(ALARM), lever(replace(ALARM, actions=("nothing", "siren")))),
    "number of an answer": (lever(ALARM), lever(replace(PRICE, id="alarm"))),
    "unit of a number": (
        lever(PRICE),
        lever(replace(PRICE, number=replace(PRICE.number, unit="USD"))),
    ),
    "grace": (evidence(grace=timedelta(minutes=1)), evidence(grace=timedelta(minutes=10))),
    "verdicts, which outvote who judges otherwise": (evidence(verdicts=3), evidence()),
    "floor, above which a model may be good enough": (evidence(confidence_floor=0.8), evidence()),
    "lowest floor": (
        evidence(confidence_floors=(0.0, 0.8)),
        evidence(confidence_floors=(0.5, 0.8)),
    ),
    "familiar units, of which more forget a fall later": (
        evidence(familiar=FORMS),
        evidence(familiar=replace(FORMS, at_least=19)),
    ),
    "unit, of which guards see fewer in a burst": ({"evidence": EPISODES}, evidence()),
    "span": ({"evidence": EPISODES}, {"evidence": replace(EPISODES, episode_span=HOUR / 2)}),
    "hours": (
        {"windows": (Window("day", "08:00-20:00"), Window("night"))},
        {"windows": (Window("day", "08:00-21:00"), Window("night"))},
    ),
    "clock of a site": (
        {"sites": (Site("creek", "Pacific/Auckland"),)},
        {"sites": (Site("creek", "Pacific/Honolulu"),)},
    ),
    "place of a site": (
        {"sites": (Site("creek", "UTC", coordinates=(47.0, 15.0)),)},
        {"sites": (Site("creek", "UTC", coordinates=(47.0, -165.0)),)},
    ),
    "holidays of a window": (
        {"sites": (VIENNA,), "windows": (Window("day", "08:00-20:00; PH off"), Window("night"))},
        {"sites": (BERLIN,), "windows": (Window("day", "08:00-20:00; PH off"), Window("night"))},
    ),
    "span of a share": (
        guard(condition=Condition(MEASURES["failures"], 0.1), over=HOUR),
        guard(condition=Condition(MEASURES["failures"], 0.1), over=2 * HOUR),
    ),
    "largest cost, of which a guard's detector takes shares": (
        guard(condition=Condition(MEASURES["cost"], 0.1)),
        guard(condition=Condition(MEASURES["cost"], 0.1))
        | lever(replace(ALARM, costs=(CostRule(999, did="nothing"), CostRule(1)))),
    ),
    "suspension": (guard(then="suspend"), guard(then="one-stage")),
}


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_what_cannot_be_told_counts_as_looser(name):
    before, now = BOTH_WAYS[name]
    assert say_looser_rules(policy(**before), policy(**now))
    assert say_looser_rules(policy(**now), policy(**before))


def test_an_earlier_wave_loosens_where_waves_wait():
    late = policy(waves=Waves("supervised"))
    sites = (Site("creek", "UTC"), Site("lake", "UTC", wave=1))
    assert say_looser_rules(late, replace(late, sites=sites)) == ("another wave to wait for: lake",)
    assert say_looser_rules(policy(), policy(sites=sites)) == ()


def test_a_site_that_passes_a_wave_waits_for_that_one_alone():
    waves = {"waves": Waves("supervised")}
    first, second, third = (Site(f"site-{n}", "UTC", wave=n) for n in (1, 2, 3))
    old = policy(sites=(first, second, replace(third, wave=2)), **waves)
    assert say_looser_rules(old, replace(old, sites=(first, second, third))) == (
        "another wave to wait for: site-3",
    )


def test_a_site_that_leaves_its_wave_holds_up_the_next_no_longer():
    waves = {"waves": Waves("supervised")}
    first, second = Site("creek", "UTC"), Site("lake", "UTC")
    third = Site("pond", "UTC", wave=2)
    old = policy(sites=(first, second, third), **waves)
    later = policy(sites=(first, replace(second, wave=3), third), **waves)
    assert say_looser_rules(old, later) == ("the next wave no longer waits for lake",)
    assert say_looser_rules(later, old) == ("another wave to wait for: lake",)
    last = policy(sites=(first, second, replace(third, wave=3)), **waves)
    assert say_looser_rules(old, last) == ()  # no site waits for the last wave


SITES = (Site("creek", "UTC"), Site("lake", "UTC"), Site("pond", "UTC", wave=2))
NO_LAKE = "the next wave no longer waits for lake"


def at(site, window=None):
    return Where(sites=(site,), windows=() if window is None else (window,))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"sites": SITES[::2]}, (NO_LAKE,)),
        ({"sites": SITES[:2]}, ()),
        ({"limits": (Limit(never_above="shadow", where=at("lake", "night")),)}, (NO_LAKE,)),
        ({"limits": (Limit(never_above="shadow"),)}, ()),
        ({"limits": (Limit(never_above="supervised", where=at("lake")),)}, ()),
        (
            {"limits": (Limit(ends=date(2027, 6, 30), where=at("lake")),)},
            (f"after 2027-06-30 {NO_LAKE}",),
        ),
        ({"limits": (Limit(ends=date(2027, 6, 30)),)}, ()),
    ],
    ids=["removed", "the last", "capped", "all capped", "at the stage", "ends", "all end"],
)
def test_what_narrows_a_site_of_an_earlier_wave_opens_the_next(changed, says):
    old = policy(sites=SITES, waves=Waves("supervised"))
    assert say_looser_rules(old, replace(old, **changed)) == says


@pytest.mark.parametrize("stage", ["supervised", "autonomous"])
def test_a_stage_that_no_site_of_a_wave_may_reach_holds_up_no_other(stage):
    capped = {"limits": (Limit(never_above="supervised"),)}
    old = policy(sites=SITES, waves=Waves(stage), **(capped if stage == "supervised" else {}))
    new = replace(old, waves=Waves("autonomous"), **capped)
    assert say_looser_rules(old, new) == ("the next wave no longer waits for creek, lake",)


def test_a_site_for_which_no_wave_waited_may_go():
    capped = {"limits": (Limit(never_above="shadow", where=at("lake")),)}
    old = policy(sites=SITES, waves=Waves("supervised"), **capped)
    assert say_looser_rules(old, replace(old, sites=SITES[::2])) == ()


def test_the_cost_of_a_set_is_part_of_what_records_mean():
    logo = Lever("logo", ("nike",), ("nike",), costs=(CostRule(10),), many=True)
    dear, cheap = policy(**lever(logo)), policy(**lever(replace(logo, costs=(CostRule(1),))))
    assert say_looser_rules(dear, cheap) == (
        "lever logo: some wrong action costs less than before",
    )
    assert say_looser_rules(cheap, dear) == ()
    assert is_redefined(dear, cheap, CREEK)
    assert is_redefined(cheap, dear, CREEK)


def test_a_missing_answer_that_costs_less_loosens():
    """It costs the most that any answer may, also one that no label has any more."""
    rows = (CostRule(9, did="nothing"), CostRule(1))
    three = replace(ALARM, labels=("bear", "deer", "none"), actions=("siren", "light", "nothing"))
    dear = replace(three, costs=(CostRule(99, did="light"), *rows))
    without = replace(ALARM, costs=rows)
    assert "lever alarm: some wrong action costs less than before" in say_looser_rules(
        policy(**lever(dear)), policy(**lever(without))
    )
    assert (
        say_looser_rules(policy(**lever(replace(three, costs=rows))), policy(**lever(without)))
        == ()
    )


def test_a_distance_that_costs_less_between_the_ends_loosens():
    """At the ends of the range other rows cover it, as a tenth of a small or large number."""
    near, far = CostRule(5, under=Margin(5)), CostRule(5, under=Margin(20))
    tenth = CostRule(5, off=Margin(0.1, relative=True))
    price = replace(PRICE, number=replace(PRICE.number, low=-10))
    old, new = (policy(**lever(replace(price, costs=(tenth, c, CostRule(1))))) for c in (near, far))
    assert say_looser_rules(old, new) == ("lever price: some wrong action costs less than before",)
    assert say_looser_rules(new, old) == ()


def test_a_distance_that_costs_less_for_some_numbers_alone_loosens():
    """8 are nearer than a tenth above 80 alone, and so not where the range has its middle."""
    number = Number("EUR", 0, 100, Margin(5))
    tenth = CostRule(9, off=Margin(0.1, relative=True))
    old, new = (
        policy(**lever(replace(PRICE, number=number, costs=(tenth, CostRule(cost, off=Margin(8))))))
        for cost in (2, 1)
    )
    assert say_looser_rules(old, new) == ("lever price: some wrong action costs less than before",)
    assert say_looser_rules(new, old) == ()


def test_a_floor_less_leaves_the_others_more_of_the_risk():
    three, two = (policy(**evidence(confidence_floors=f)) for f in ((0.0, 0.5, 0.8), (0.0, 0.8)))
    assert say_looser_rules(three, two) == (
        "fewer confidence floors share the risk, so each has more: 1/2 instead of 1/3",
    )


def test_a_rung_that_is_taken_out_from_below_another_loosens():
    old, new = policy(), policy(stages=(AUTONOMOUS,), gates=gates()[1:], guards=())
    assert "autonomous is no longer above supervised" in say_looser_rules(old, new)
    turned = policy(stages=(AUTONOMOUS, SUPERVISED))
    assert "autonomous is no longer above supervised" in say_looser_rules(old, turned)


def test_cosmetic_edits_loosen_nothing():
    old = policy()
    new = replace(
        old,
        charter=replace(old.charter, objective="warn"),
        reports=(ReportPlan("r", "day", "07:00", "operator"),),
        expect=TrafficExpectation(units_per_day=9),
        slices=("camera",),
    )
    assert say_looser_rules(old, new) == ()


def test_another_country_loosens_no_hours_without_holidays():
    rules = {"freezes": (Freeze("Dec 24", "eve"),)}
    old, new = policy(sites=(VIENNA,), **rules), policy(sites=(BERLIN,), **rules)
    assert say_looser_rules(old, new) == ()


@pytest.mark.parametrize("name", LOOSER)
def test_nothing_changed_loosens_nothing(name):
    same = policy(**LOOSER[name][1])
    assert say_looser_rules(same, same) == ()


def test_a_reviewer_named_where_all_counted_loosens_nothing():
    counts = [
        policy(**evidence(sources=EvidenceSources(accounts=(AccountSource("desk", reviewers),))))
        for reviewers in (("*",), ("ana", "bo"), ("ana",))
    ]
    assert say_looser_rules(counts[0], counts[1]) == ()
    assert say_looser_rules(counts[2], counts[1]) == (
        "decisions that desk sends for bo are evidence",
    )


# What a record is

REDEFINED = {
    "labels": lever(replace(ALARM, labels=("none", "bear"))),
    "actions": lever(replace(ALARM, actions=("siren", "light"))),
    "costs": lever(replace(ALARM, costs=(CostRule(2, did="nothing"), CostRule(1)))),
    "number": lever(PRICE),
    "answer_within": lever(replace(ALARM, answer_within=HOUR, unanswered="siren")),
    "unit": evidence(unit="episode"),
    "grace": evidence(grace=2 * HOUR),
    "verdicts": evidence(verdicts=3),
    "outside": evidence(outside="blind"),
    "floor": evidence(confidence_floor=0.8),
    "zone": {"sites": (Site("creek", "Europe/Vienna"), Site("lake", "UTC", wave=2))},
    "place": {
        "sites": (Site("creek", "UTC", coordinates=(47.0, 15.0)), Site("lake", "UTC", wave=2))
    },
    "window": {"windows": (Window("day", "09:00-20:00"), Window("night"))},
    "attributes": {"windows": (Window("day", "08:00-20:00", {"a": ("b",)}), Window("night"))},
}


@pytest.mark.parametrize("name", REDEFINED)
def test_what_changes_a_record_redefines_the_cell(name):
    assert is_redefined(policy(), policy(**REDEFINED[name]), CREEK)


KEPT = {
    "line": line(0.9),
    "risk": {"gates": gates(risk=0.02)},
    "missing": evidence(missing_at_most=0.2),
    "span without episodes": evidence(episode_span=HOUR),
    "stages": stages(),
    "later window": {"windows": (Window("day", "08:00-20:00"), Window("night", "20:00-07:00"))},
    "holidays nobody asks for": {
        "sites": (Site("creek", "UTC", country="AT"), Site("lake", "UTC", wave=2))
    },
    "other cost rows, same costs": lever(
        replace(ALARM, costs=(CostRule(1, did="siren"), CostRule(1)))
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_changes_no_record_redefines_nothing(name):
    assert not is_redefined(policy(), policy(**KEPT[name]), CREEK)


def test_an_earlier_window_redefines_the_later_ones_and_no_site_another():
    sooner = policy(windows=(Window("day", "08:00-20:00"), Window("night", "20:00-07:00")))
    assert is_redefined(policy(), sooner, CREEK_NIGHT)
    moved = policy(sites=(Site("creek", "Europe/Vienna"), Site("lake", "UTC", wave=2)))
    assert not is_redefined(policy(), moved, LAKE)


def test_labels_at_the_end_restart_nothing():
    longer = replace(ALARM, labels=("bear", "none", "fox"), actions=("siren", "nothing", "light"))
    old, new = policy(), policy(**lever(longer))
    assert not is_redefined(old, new, CREEK)
    assert is_redefined(new, old, CREEK)


def test_a_holiday_of_another_country_is_another_record():
    windows = {"windows": (Window("day", "08:00-20:00; PH off"), Window("night"))}
    abroad = {"sites": (Site("creek", "UTC", country="AT"), Site("lake", "UTC", wave=2))}
    assert is_redefined(policy(**windows), policy(**windows, **abroad), CREEK)


def test_a_definition_is_the_same_in_every_run():
    assert compute_definition(policy(), CREEK) == compute_definition(policy(), CREEK)
    assert len({compute_definition(policy(), cell) for cell in (CREEK, CREEK_NIGHT)}) == 2
    assert len(compute_definition(policy(), CREEK)) == 64


def test_units_and_time_between_false_alarms_don_t_compare():
    units, time = (policy(**guard(false_alarm_span=span)) for span in (None, DAY))
    assert say_looser_rules(units, time)
    assert say_looser_rules(time, units)


def test_other_bins_loosen_either_way():
    pair = [
        policy(**evidence(familiar=FamiliarityRule((replace(LIGHT, cuts=cuts),))))
        for cuts in ((0, 20, 50), (0, 50))
    ]
    for old, new in (pair, pair[::-1]):
        assert say_looser_rules(old, new) == ("light has other bins, so other values are familiar",)


def test_the_rule_does_not_change_what_a_record_means():
    """A unit keeps what was in force when it occurred, so evidence goes on."""
    assert not is_redefined(policy(), policy(**evidence(familiar=FORMS)), CREEK)
