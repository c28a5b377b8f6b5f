# ruff: noqa: E501 - a table of cases reads best with one line for each
import pytest

from rollout.kernel.policy.policy_warnings import list_policy_warnings
from rollout.kernel.policy_files.reader import parse_policy

QUIET = """\
rollout: bear-alarm
timezone: America/Denver
charter: {objective: o, affected: [a], if_it_works_very_well: i, worst_case: w}
levers:
  - id: alarm
    labels: [bear, no-bear]
    costs: [{did: no-bear, right: bear, cost: 20}, {cost: 1}]
sites: [{id: creek, place: [40.34, -105.57]}]
windows: [{id: day, hours: sunrise-sunset}, {id: night, hours: 24/7}]
evidence: {unit: episode, episode_span: 10m, missing_at_most: 0.5%}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 95%}]}
  - {to: autonomous, require: [{measure: cost, at_most: 0.3}], approvals: [operator, safety]}
guards:
  - {measure: agreement, at_least: 93%}
  - {measure: heartbeat, at_most: 2h}
retention: {cases: 183d}
expect: {labels: {bear: 10%}}
"""


def warned(edits, **more):
    text = QUIET
    for old, new in edits.items():
        assert old in text, old
        text = text.replace(old, new, 1)
    return [str(warning) for warning in list_policy_warnings(parse_policy(text), **more)]


def test_a_policy_without_doubts_is_left_alone():
    assert warned({}) == []


WARNED = {
    "cost": ({"0.5%": "1.5%"}, "gates[1]: missing decisions alone may keep it closed: missing_at_most 1.5 %"),
    "rare": ({"bear: 10%": "bear: 2%"}, "gates[0]: agreement alone, and some labels are rare: bear (2 %)"),
    "guard": ({"93%": "95%"}, "guards[0]: agreement at least 95 % is not below the gate to supervised"),
    "cost guard": ({"{measure: agreement, at_least: 93%}": "{measure: cost, at_most: 0.3}"}, "guards[0]: cost at most 0.3 is not below the gate to autonomous"),
    "approval": ({"[operator, safety]": "[safety]"}, "gates[1]: a single user can widen to autonomous"),
    "charter": ({", worst_case: w": ""}, "charter: lacks worst_case, which approvers read"),
    "silence": ({"  - {measure: heartbeat, at_most: 2h}\n": ""}, "guards: no heartbeat guard: a silent site"),
    "night": ({"hours: 24/7": "hours: sunset-sunrise"}, "window night: a night from sunset to sunrise"),
    "gap": ({"hours: sunrise-sunset": 'hours: "00:00-23:57"', "hours: 24/7": 'hours: "23:59-24:00"'}, "site creek: 12.2 hours of a year are in no window"),
    "far": ({"-105.57": "105.57"}, "site creek: America/Denver is 10.0 h ahead of the sun at its place"),
    "retention": ({"183d": "182d"}, "retention: records go after 182d; keep them 183d at least"),
    "span": ({"unit: episode": "unit: case"}, "evidence: episode_span has no effect where the unit is a case"),
    "vouched": ({"missing_at_most: 0.5%": "missing_at_most: 0.5%, grace: 3d, sources: {vouched: [{account: box-7, within: 50h}]}"}, "evidence.sources.vouched: what box-7 sends up to 50h after a case counts as sent before the decision"),
    "over": ({"at_least: 93%": "at_least: 93%, over: 1h"}, "guards[0]: over 1h has no effect on agreement"),
    "pace": ({"at_most: 2h": "at_most: 2h, false_alarm_every: 99"}, "guards[1]: false_alarm_every has no effect on heartbeat"),
    "case": ({"-105.57]}": "-105.57]}, {id: Creek, place: [40.34, -105.57]}"}, "sites: 'creek' and 'Creek' look alike, but a stop or a record of one is none of the other; rename one, with"),
    "form": ({"creek,": '"caf\\u00e9", place: [40.34, -105.57]}, {id: "cafe\\u0301\\u200b",'}, "sites: 'caf\\xe9' and 'cafe\\u0301\\u200b' look alike"),
    "waves": ({"-105.57]": "-105.57], wave: 2"}, "sites: name waves, but the policy has no `waves:`"),
    "dead wave": ({"retention": "stages: [{id: supervised, blind: 50%}, {id: autonomous, audit: 9%}, {id: free, audit: 1%}]\nwaves: {stage: free}\nretention"}, "waves: no gate leads to free, so the second wave"),
}  # fmt: skip


@pytest.mark.parametrize("name", WARNED)
def test_a_doubt_is_said_once(name):
    edits, says = WARNED[name]
    found = warned(edits)
    assert len(found) == 1, found
    assert found[0].startswith(says)


@pytest.mark.parametrize(
    "measure", ["drift, at_most: 9%", "cost, at_most: 0.9", "gain, of: profit, at_least: -1"]
)
def test_guards_that_count_units_may_choose_their_false_alarms(measure):
    guard = f"  - {{measure: {measure}, false_alarm_every: 500}}\n"
    edits = {
        "retention": "stages: [{id: supervised, blind: 50%}, {id: autonomous, audit: 9%}]\noutcomes: [{id: profit, from: 0, to: 9, closes: 1d}]\nretention"
    }
    assert warned(edits | {"guards:\n": f"guards:\n{guard}"}) == []


def test_recorded_labels_replace_the_expected_ones():
    assert len(warned({}, labels={"bear": 0.01})) == 1
    assert warned({"bear: 10%": "bear: 2%"}, labels={"bear": 0.3}) == []


def test_a_rare_label_is_no_doubt_where_its_recall_is_asked_for():
    recall = "[{measure: agreement, at_least: 95%}, {measure: recall, label: bear, at_least: 80%}]"
    edits = {"[{measure: agreement, at_least: 95%}]": recall, "bear: 10%": "bear: 2%"}
    assert warned(edits) == []


def test_a_silent_site_is_named():
    edits = {"sites: [{": "sites: [meadow, {", "hours: sunrise-sunset": 'hours: "06:00-18:00"'}
    edits |= {"at_most: 2h}": "at_most: 2h, sites: [creek]}"}
    assert warned(edits) == ["guards: no heartbeat guard at meadow: a silent site keeps its grants"]


def test_sites_that_share_a_gap_are_named_together():
    edits = {"hours: sunrise-sunset": 'hours: "00:00-23:57"', "hours: 24/7": 'hours: "23:59-24:00"'}
    edits |= {"sites: [{id: creek, place: [40.34, -105.57]}]": "sites: [creek, meadow, pond]"}
    assert [text.split(":")[0] for text in warned(edits)] == ["site creek and 2 more"]


@pytest.mark.parametrize(("reach", "count"), [("", 1), (", reach: site", 0)])
def test_a_harm_that_reaches_one_cell_only_is_warned_of(reach, count):
    heartbeat = "  - {measure: heartbeat, at_most: 2h}\n"
    harm = f"  - {{measure: harm, at_most: 0, over: 7d{reach}}}\n"
    texts = warned({heartbeat: heartbeat + harm})
    assert sum("a harm narrows one cell only" in warning for warning in texts) == count
