# ruff: noqa: E501 - a table of cases reads best with one line for each
from pathlib import Path

import pytest

from rollout.kernel.errors import PolicyRefusedError
from rollout.kernel.policy_files.reader import InvalidPolicyError, load_policy, parse_policy

BASE = """\
rollout: bear-alarm
timezone: America/Denver
levers:
  - id: alarm
    labels: [bear, no-bear]
    actions: {bear: siren, no-bear: silence}
    costs: [{did: silence, right: siren, cost: 20}, {cost: 1}]
    answer_within: 2m
    unanswered: siren
sites: [{id: creek, place: [40.34, -105.57]}, meadow]
windows: [{id: day, hours: "06:00-18:00"}, {id: night, hours: 24/7}]
stages: [{id: supervised, blind: 50%}, {id: autonomous, audit: 10%}]
evidence: {unit: episode, grace: 24h}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 95%}]}
  - {to: autonomous, require: [{measure: cost, at_most: 0.3}]}
guards:
  - {measure: recall, label: bear, at_least: 70%, then: shadow}
  - {measure: latency_p95, at_most: 20s, over: 1h}
limits: [{windows: [night], never_above: supervised}]
freezes: [{hours: "Dec 24-26", reason: holidays}]
expect: {units_per_day: 60, labels: {bear: 2%}}
"""
AGREEMENT = "{measure: agreement, at_least: 95%}"
TWO_LEVERS = {
    "    unanswered: siren\n": "    unanswered: siren\n  - {id: light, labels: [on, off]}\n",
    "labels: {bear: 2%}": "labels: {alarm/bear: 2%}",
    "recall, label: bear": "recall, lever: alarm, label: bear",
}


def faults_in(edits: dict[str, str]) -> tuple[str, ...]:
    text = BASE
    for old, new in edits.items():
        assert old in text, old
        text = text.replace(old, new, 1)
    try:
        parse_policy(text, name="p.yaml")
    except InvalidPolicyError as refusal:
        return tuple(map(str, refusal.faults))
    return ()


def only_fault(edits: dict[str, str]) -> str:
    faults = faults_in(edits)
    assert len(faults) == 1, faults
    return faults[0]


def test_the_base_has_no_fault():
    assert faults_in({}) == ()


def with_gate(condition: str) -> dict[str, str]:
    return {AGREEMENT: condition}


def with_guard(row: str) -> dict[str, str]:
    return {"  - {measure: latency_p95, at_most: 20s, over: 1h}": f"  - {row}"}


REFUSED = {
    # a value not of its form
    "id": ({"bear-alarm": "bear alarm"}, "1: rollout: 'bear alarm' is no id; use letters"),
    "zone": ({"America/Denver": "America/Dever"}, "2: timezone: 'America/Dever' is no time zone; write a name such as America/Denver"),
    "number": ({"cost: 20": "cost: dear"}, "7: levers[0].costs[0].cost: 'dear' is no plain number"),
    "negative": ({"cost: 20": "cost: -1"}, "7: levers[0].costs[0].cost: '-1' is negative"),
    "nan": ({"cost: 20": "cost: nan"}, "7: levers[0].costs[0].cost: 'nan' is no plain number"),
    "span": ({"grace: 24h": "grace: 24"}, "13: evidence.grace: '24' is no duration; write a number and"),
    "century": ({"grace: 24h": "grace: 99999d"}, "13: evidence.grace: '99999d' is longer than a century"),
    "no time": ({"over: 1h": "over: 0s"}, "19: guards[1].over: '0s' is no time at all"),
    "share": ({"blind: 50%": "blind: half"}, "12: stages[0].blind: 'half' is no share"),
    "percent": ({"blind: 50%": "blind: 50"}, "12: stages[0].blind: '50' is more than the whole; write 50%"),
    "over 1": ({"blind: 50%": "blind: 150%"}, "12: stages[0].blind: '150%' is more than the whole; at most 100%"),
    "below 0": ({"blind: 50%": "blind: -5%"}, "12: stages[0].blind: '-5%' is negative"),
    "risk": (with_gate(AGREEMENT) | {"95%}]}": "95%}], risk: 30%}"}, "15: gates[0].risk: '30%' is outside"),
    "count": (with_gate(AGREEMENT) | {"95%}]}": "95%}], minimum: {days: 1.5}}"}, "15: gates[0].minimum.days: '1.5' is no count"),
    "place": ({"[40.34, -105.57]": "[140.34, -105.57]"}, "10: sites[0].place: [140.34, -105.57] is not on the globe; latitude comes first"),
    "tick": ({"expect:": "tick: 7m\nexpect:"}, "22: tick: '7m' does not divide a day"),
    "flag": ({"expect:": "observe: yes\nexpect:"}, "22: observe: 'yes' is neither; write true or false"),
    "country": ({"expect:": "country: us\nexpect:"}, "22: country: 'us' is no country"),
    "day": ({"never_above: supervised": "ends: 2027-02-30"}, "20: limits[0].ends: '2027-02-30' is no day"),
    "clock": ({"expect:": "reports: [{name: r, at: 24:00}]\nexpect:"}, "22: reports[0].at: '24:00' is no time of day"),
    "choice": ({"unit: episode": "unit: episodes"}, "13: evidence.unit: 'episodes' is not offered; did you mean episode?"),
    "judges": ({"grace: 24h": "verdicts: 2"}, "13: evidence.verdicts: '2' is not offered; write 1, 3 or 5"),
    "no list": ({"[{windows: [night], never_above: supervised}]": "never"}, "20: limits: has the wrong form; write a list"),
    "empty": ({"[{windows: [night], never_above: supervised}]": ""}, "20: limits: is empty; write it, or leave the key out"),
    "no value": ({"bear-alarm": "[a, b]"}, "1: rollout: holds a list; write one value"),
    "no approver": (with_gate(AGREEMENT) | {"95%}]}": "95%}], approvals: []}"}, "15: gates[0].approvals: names no approver"),
    "often": ({"then: shadow": "false_alarm_every: 1"}, "18: guards[0].false_alarm_every: '1' would alarm at every unit"),
    "time for quality": ({"then: shadow": "false_alarm_every: 1y"}, "18: guards[0].false_alarm_every: a time is for failures, heartbeat, latency_p95, missing, unaudited; write units for"),
    "site's hours": ({"place: [40.34": 'open: "Mo 25:00", place: [40.34'}, "10: sites[0].open: 'Mo 25:00' can't be read"),
    "site's sun": ({", meadow]": ", {id: meadow, open: sunrise-sunset}]"}, "10: sites[1].open: follows the sun, but a site has no place"),
    "reserved label": ({"[bear, no-bear]": "[bear, no-bear, (late)]"}, "5: levers[0].labels[2]: '(late)' is reserved by the engine"),
    "required": ({"timezone: America/Denver\n": ""}, "1: timezone: is missing; write it, such as timezone: Europe/Vienna"),
    # keys
    "unknown key": ({"unit: episode": "unit: episode, episode_spam: 10m"}, "13: evidence.episode_spam: is no key here; did you mean episode_span?"),
    "key elsewhere": ({"expect:": "grace: 2h\nexpect:"}, "22: grace: is no key here; it belongs at evidence.grace"),
    "key elsewhere in a list": ({"{id: day,": "{id: day, days: Mo-Fr,"}, "11: windows[0].days: is no key here; it belongs at gates[].minimum.days; those known here are id, hours, when, was"),
    "repeated key": ({"grace: 24h": "grace: 24h, grace: 2d"}, "13: evidence.grace: is repeated, first on line 13"),
    "unquoted comma": ({'"06:00-18:00"': "06:00-12:00,13:00-18:00"}, "11: windows[0].13:00-18:00: is no key; quote hours that contain a comma"),
    # names and patterns that fit nothing
    "site": ({"windows: [night], never": "sites: [crek], never"}, "20: limits[0].sites[0]: 'crek' fits no site; did you mean creek?"),
    "pattern": ({"windows: [night], never": "windows: [n*x], never"}, "20: limits[0].windows[0]: 'n*x' fits no window; known: day, night"),
    "stage": ({"never_above: supervised": "never_above: supervise"}, "20: limits[0].never_above: 'supervise' fits no stage; did you mean supervised?"),
    "gate's stage": ({"to: autonomous": "to: shadow"}, "16: gates[1].to: 'shadow' fits no stage"),
    "takeover": ({"expect:": "takeover: alone\nexpect:"}, "22: takeover: 'alone' fits no stage"),
    "wave's stage": ({"expect:": "waves: {stage: alone}\nexpect:"}, "22: waves.stage: 'alone' fits no stage"),
    "label": ({"recall, label: bear": "recall, label: baer"}, "18: guards[0].label: 'baer' fits no label; did you mean bear?"),
    "labelled action": ({"{bear: siren,": "{baer: siren, bear: siren,"}, "6: levers[0].actions.baer: 'baer' fits no label"),
    "action": ({"did: silence": "did: silent"}, "7: levers[0].costs[0].did: 'silent' fits no action; did you mean silence?"),
    "watched action": (with_guard("{measure: action_change, action: bear, at_most: 2}"), "19: guards[1].action: 'bear' fits no action"),
    "lever": (with_gate("{measure: agreement, lever: horn, at_least: 95%}"), "15: gates[0].require[0].lever: 'horn' fits no lever"),
    "expected label": ({"labels: {bear: 2%}": "labels: {lynx: 2%}"}, "22: expect.labels.lynx: 'lynx' fits no label"),
    # ids
    "site twice": ({"meadow]": "creek]"}, "10: sites[1].id: 'creek' is repeated, first as sites[0]"),
    "label twice": ({"[bear, no-bear]": "[bear, no-bear, bear]"}, "5: levers[0].labels[2]: 'bear' is repeated"),
    "taken id": ({"meadow]": "always]"}, "10: sites[1].id: 'always' is a name that the engine uses"),
    "taken stage": ({"{id: autonomous, audit: 10%}": "{id: autonomous, audit: 10%}, {id: other, audit: 1%}"}, "12: stages[2].id: 'other' is a name"),
    # costs
    "no row": ({", {cost: 1}]": "]"}, "7: levers[0].costs: has no row for siren where silence is right; add {did: siren, right: silence, cost: 1}"),
    "row unreached": ({"[{did: silence, right: siren, cost: 20}, {cost: 1}]": "[{cost: 1}, {did: silence, cost: 20}]"}, "7: levers[0].costs[1]: is never reached"),
    "distance for labels": ({"{cost: 1}]": "{under: 5%, cost: 1}]"}, "7: levers[0].costs[1].under: is for numbers"),
    # gates
    "gate unreached": ({"  - {to: autonomous,": "  - {to: supervised, windows: [day], require: [{measure: cost, at_most: 1}]}\n  - {to: autonomous,"}, "16: gates[1]: is never reached: the gates before it take all that it fits"),
    "no gate below": ({"  - {to: supervised, require: [{measure: agreement, at_least: 95%}]}\n": ""}, "15: gates[0]: is above supervised, which has no gate; add a gate to supervised"),
    "no gate below in some": ({"{to: supervised, require": "{to: supervised, sites: [creek], require"}, "16: gates[1]: is above supervised, which has no gate in meadow · day; add a gate"),
    # windows
    "window unreached": ({'[{id: day, hours: "06:00-18:00"}, {id: night, hours: 24/7}]': '[{id: night, hours: 24/7}, {id: day, hours: "06:00-18:00"}]'}, "11: windows[1]: is never reached"),
    "window covered": ({"{id: night, hours: 24/7}": '{id: noon, hours: "11:00-13:00"}, {id: night}'}, "11: windows[1]: is never reached"),
    # measures
    "override in a gate": (with_gate("{measure: override, at_most: 10%}"), "15: gates[0].require[0].measure: a gate can't require override"),
    "missing in a gate": (with_gate("{measure: missing, at_most: 10%}"), "15: gates[0].require[0].measure: a gate can't require missing; write evidence.missing_at_most"),
    "slice of recall": (with_gate("{measure: recall, label: bear, at_least: 90%, slice: form}"), "15: gates[0].require[0].slice: does not apply to recall; leave it out"),
    "drift in a gate": (with_gate("{measure: drift, slice: form, at_most: 9%}"), "15: gates[0].require[0].measure: a gate can't require drift"),
    "drift of two things": (with_guard("{measure: drift, slice: form, lever: alarm, at_most: 9%}"), "19: guards[1].lever: a slice is of cases, not of answers"),
    "no label": (with_gate("{measure: recall, at_least: 95%}"), "15: gates[0].require[0]: recall is of one label; name it, such as label: bear"),
    "label of agreement": (with_gate("{measure: agreement, label: bear, at_least: 95%}"), "15: gates[0].require[0].label: does not apply to agreement"),
    "lever of cost": (with_gate("{measure: cost, lever: alarm, at_most: 1}"), "15: gates[0].require[0].lever: cost is of all levers together"),
    "wrong way": (with_gate("{measure: agreement, at_most: 95%}"), "15: gates[0].require[0].at_most: does not apply to agreement, where higher is better; write at_least: 95%"),
    "a share of errors": (with_gate("{measure: agreement, at_most: 5%}"), "15: gates[0].require[0].at_most: does not apply to agreement, where higher is better; write at_least: 95%"),
    "a share of right ones": (with_guard("{measure: override, at_least: 95%}"), "19: guards[1].at_least: does not apply to override, where lower is better; write at_most: 5%"),
    "no number at all": (with_gate("{measure: recall, label: bear, at_most: few}"), "15: gates[0].require[0].at_most: does not apply to recall, where higher is better; write at_least: 90%"),
    "everything": (with_gate("{measure: precision, label: bear, at_most: 100%}"), "15: gates[0].require[0].at_most: does not apply to precision, where higher is better; write at_least: 90%"),
    "no line": (with_gate("{measure: agreement}"), "15: gates[0].require[0]: has no threshold for agreement; write at_least: 95%"),
    # units
    "share without %": (with_gate("{measure: agreement, at_least: 95}"), "15: gates[0].require[0].at_least: '95' is more than the whole; write 95% if per cent"),
    "cost with %": ({"at_most: 0.3": "at_most: 30%"}, "16: gates[1].require[0].at_most: '30%' is no plain number; write one without a per cent sign"),
    "span without unit": ({"at_most: 20s": "at_most: 20"}, "19: guards[1].at_most: '20' is no duration"),
    "harm in part": (with_guard("{measure: harm, at_most: 0.5}"), "19: guards[1].at_most: '0.5' is no count"),
    "certainty": (with_gate("{measure: agreement, at_least: 100%}"), "15: gates[0].require[0].at_least: '100%' can never be proven"),
    "no cost": ({"at_most: 0.3": "at_most: 0"}, "16: gates[1].require[0].at_most: no evidence can show"),
    "any cost": ({"at_most: 0.3": "at_most: 20"}, "16: gates[1].require[0].at_most: 20 is never passed: the largest cost of a unit is 20"),
    "all failures": (with_guard("{measure: failures, at_most: 100%}"), "19: guards[1].at_most: '100%' would never be passed"),
    "all actions": (with_guard("{measure: action_change, action: siren, at_most: 100}"), "19: guards[1].at_most: '100' per 100 would never"),
    # several levers
    "which lever": (TWO_LEVERS | with_gate("{measure: recall, label: bear, at_least: 80%}"), "16: gates[0].require[0]: there are several levers; write lever: with one of alarm, light"),
    # stages
    "unwatched stage": ({"{id: supervised, blind: 50%}": "{id: supervised}"}, "12: stages[0]: no unit in supervised is decided blind"),
    "wider below": ({"supervised, blind: 50%}, {id: autonomous, audit: 10%}": "supervised, audit: 10%}, {id: autonomous, blind: 50%}"}, "12: stages[1]: the model decides or proposes less at autonomous than below it, at supervised, so"),
    "more shown below": ({"supervised, blind: 50%}, {id: autonomous, audit: 10%}": "supervised, blind: 20%}, {id: autonomous, blind: 50%}"}, "12: stages[1]: the model decides or proposes less at autonomous than below it, at supervised, so"),
    "no hold-out": ({"levers:": "charter: {feedback: it learns from itself}\nlevers:"}, "13: stages[1].blind: the charter names a feedback"),
    # hours
    "hours": ({"06:00-18:00": "06:00-18"}, "11: windows[0].hours: '06:00-18' can't be read from"),
    "sun without place": ({"06:00-18:00": "sunrise-sunset"}, "11: windows[0].hours: follows the sun, but a site has no place"),
    "holidays without country": ({"06:00-18:00": "06:00-18:00; PH off"}, "11: windows[0].hours: asks for public holidays (`PH`), but a site has no country"),
    "school holidays": ({"06:00-18:00": "SH 06:00-18:00"}, "11: windows[0].hours: school holidays (`SH`) are not known"),
    "holidays first": ({"06:00-18:00": "PH off; 06:00-18:00"}, "11: windows[0].hours: `PH off;` first is overruled"),
    "never open": ({"06:00-18:00": "2019 Jan 01-2019 Feb 01"}, "11: windows[0].hours: never open from 2024 to 2028"),
    "freeze": ({"Dec 24-26": "Dez 24-26"}, "21: freezes[0].hours: 'Dez 24-26' can't be read"),
    # spans against each other
    "over below tick": ({"over: 1h": "over: 5m"}, "19: guards[1].over: is 5m, below the tick of 15m; write 15m or more"),
    "default below tick": ({", over: 1h": "", "expect:": "tick: 1h\nexpect:"}, "19: guards[1].over: is 15m by default, below the tick of 1h; write 1h or more"),
    "grace below answer": ({"answer_within: 2m": "answer_within: 30h"}, "13: evidence.grace: 1d ends before answer_within, 30h; write 30h or more"),
    # rows that say nothing
    "half an answer": ({"    unanswered: siren\n": ""}, "8: levers[0].answer_within: is incomplete; write unanswered too"),
    "no limit": ({", never_above: supervised": ""}, "20: limits[0]: limits nothing; write never_above: or ends:"),
    "suspended quality": ({"then: shadow": "then: suspend"}, "18: guards[0].then: only failures, heartbeat, latency_p95, missing, drift and slices suspend"),
    "guard twice": ({"  - {measure: latency": "  - {measure: recall, label: bear, at_least: 70%}\n  - {measure: latency"}, "19: guards[1]: watches what guards[0] watches, in the same cells"),
    "open waves": ({"expect:": "waves: {stage: supervised, share: 0%}\nexpect:"}, "22: waves.share: 0% would open every wave"),
    "labels and number": ({"    labels:": "    number: {in: m, from: 0, to: 1, tolerance: 0.1}\n    labels:", "    actions: {bear: siren, no-bear: silence}\n    costs: [{did: silence, right: siren, cost: 20}, {cost: 1}]\n": "", "  - {measure: recall, label: bear, at_least: 70%, then: shadow}\n": ""}, "4: levers[0]: has both labels and a number"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_line_field_and_remedy(name):
    edits, says = REFUSED[name]
    assert only_fault(edits).startswith(f"p.yaml:{says}")


NUMBER = """\
rollout: prices
timezone: UTC
levers:
  - id: price
    number: {in: EUR, from: 1, to: 500, tolerance: 5%}
    costs: [{under: 20%, cost: 40}, {under: 5%, cost: 8}, {over: 10, cost: 1}]
sites: [shop]
evidence: {unit: case, second_verdict: 10%}
gates: [{to: supervised, require: [{measure: agreement, at_least: 80%}]}]
"""
NUMBER_REFUSED = {
    "recall": ("measure: agreement,", "measure: recall, label: dear,", "9: gates[0].require[0].measure: lever price is a number and has no labels"),
    "range": ("from: 1,", "from: 900,", "5: levers[0].number.from: 900 is not below to: 500"),
    "nearer first": ("{under: 20%, cost: 40}, {under: 5%, cost: 8}", "{under: 5%, cost: 8}, {under: 20%, cost: 40}", "6: levers[0].costs[1]: is never reached"),
    "either side first": ("[{under: 20%, cost: 40}", "[{off: 3%, cost: 9}, {under: 20%, cost: 40}", "6: levers[0].costs[1]: is never reached"),
    "labels' row": ("{over: 10, cost: 1}", "{did: keep, cost: 1}", "6: levers[0].costs[2].did: is for labels"),
    "two distances": ("{over: 10, cost: 1}", "{over: 10, off: 9, cost: 1}", "6: levers[0].costs[2]: has over and off; write a row for each"),
    "actions": ("    number:", "    actions: {a: b}\n    number:", "5: levers[0].actions: a number is its own action"),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBER_REFUSED)
def test_a_lever_that_is_a_number_has_refusals_of_its_own(name):
    old, new, says = NUMBER_REFUSED[name]
    assert old in NUMBER
    with pytest.raises(InvalidPolicyError) as refusal:
        parse_policy(NUMBER.replace(old, new, 1), name="p.yaml")
    assert str(refusal.value.faults[0]).startswith(f"p.yaml:{says}")


def test_an_unlike_distance_is_no_cover():
    parse_policy(NUMBER.replace("{over: 10, cost: 1}", "{over: 10, cost: 1}, {over: 2%, cost: 1}"))


def test_a_gate_is_not_missed_below_a_ceiling():
    edits = {"{to: supervised, require": "{to: supervised, windows: [day], require"}
    assert faults_in(edits) == ()


def test_a_window_asked_for_an_attribute_hides_no_other():
    edits = {'"06:00-18:00"}': "24/7, when: {weather: [dry]}}"}
    assert faults_in(edits) == ()


def test_a_window_that_asks_for_more_than_an_earlier_one_is_never_reached():
    dry = "{id: dry, when: {weather: [dry, wet]}}, {id: day, when: {weather: [dry], dark: [no]}}"
    says = only_fault({'{id: day, hours: "06:00-18:00"}': dry})
    assert says.startswith("p.yaml:11: windows[1]: is never reached")


def test_unreadable_yaml_is_one_fault_with_its_line():
    says = only_fault({"expect: {": "expect: [{"})
    assert says.startswith("p.yaml:22: (file): is not YAML: a bracket [ that opens here")


def test_a_list_that_is_needed_is_not_to_be_left_out():
    assert only_fault({"require: [{measure: agreement, at_least: 95%}]": "require: []"}) == (
        "p.yaml:15: gates[0].require: is empty; write at least one"
    )


def test_a_misspelt_section_hides_no_fault_of_another():
    rows = "gates: [{to: supervised, require: [{measure: agreement, at_least: 95}]}]\ngards: []\n"
    with pytest.raises(InvalidPolicyError) as refusal:
        parse_policy(rows, name="p.yaml")
    text = str(refusal.value)
    assert "gards: is no key here; did you mean guards?" in text
    assert "at_least: '95' is more than the whole; write 95% if per cent is meant" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('rollout: "a\ntimezone: UTC\n', "1: (file): is not YAML: a quote that opens here"),
        ("rollout: a\ntimezone UTC\nsites: [a]\n", "2: (file): is not YAML: a key without a colon"),
        ("a:\n  - b: 1\n   c: 2\n", "3: (file): is not YAML: expected <block end>"),
        ("rollout: a\n timezone: UTC\n", "2: (file): is not YAML: mapping values are not"),
        ("sites: [a, b\nzone: c\n", "1: (file): is not YAML: a bracket [ that opens here"),
    ],
)
def test_what_is_not_yaml_is_named_where_it_begins_with_what_would_be_right(text, says):
    with pytest.raises(InvalidPolicyError) as refusal:
        parse_policy(text, name="p.yaml")
    (fault,) = map(str, refusal.value.faults)
    assert fault.startswith(f"p.yaml:{says}")
    assert any(hint in fault for hint in ("opens here", "key: value", "column of its neighbours"))


def test_a_zone_is_proposed_that_has_summer_time():
    says = only_fault({"timezone: ": "timezone: CEST #"})
    assert "'CEST' is no time zone; write a name such as Europe/Vienna" in says


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\n---\nb: 2\n", "2: (file): holds a second document"),
        ("- a\n", "1: (file): holds no keys; a policy starts with `rollout: its-name`"),
        ("rollout: &a x\ntimezone: *a\n", "2: timezone: is an alias; write the value out here"),
        ("rollout: !!python/object:a x\n", "1: rollout: has the tag"),
        ("a:\n\t- b\n", "2: (file): is not YAML: found character '\\t' that cannot start any token; indent"),
        ("[" * 3000, "1: (file): is nested too deeply"),
    ],
)  # fmt: skip
def test_what_is_no_policy_file_says_so(text, says):
    with pytest.raises(InvalidPolicyError) as refusal:
        parse_policy(text, name="p.yaml")
    assert any(fault.startswith(f"p.yaml:{says}") for fault in map(str, refusal.value.faults))


def test_an_empty_file_names_everything_that_it_needs():
    with pytest.raises(InvalidPolicyError) as refusal:
        parse_policy("")
    named = [fault.field for fault in refusal.value.faults]
    assert named == ["rollout", "timezone", "levers", "sites", "evidence", "gates"]


def test_faults_of_form_do_not_hide_the_others():
    faults = faults_in(
        {
            "America/Denver": "Denver",
            "meadow]": "creek]",
            "at_most: 0.3": "at_most: 30%",
            "windows: [night], never": "windows: [dusk], never",
        }
    )
    lines = [fault.split(":")[1] for fault in faults]
    assert lines == ["2", "10", "16", "20"]


def test_what_could_not_be_read_is_reported_once():
    assert len(faults_in({"labels: [bear, no-bear]": "labls: [bear, no-bear]"})) == 1
    assert len(faults_in({"{id: day,": "{"})) == 1
    assert len(faults_in({"[{id: supervised, blind: 50%}": "[{id: [x], blind: 50%}"})) == 1


def test_a_refusal_is_the_one_of_the_core():
    with pytest.raises(PolicyRefusedError) as refusal:
        parse_policy("")
    assert refusal.value.code == "policy-refused"
    assert str(refusal.value).count("\n") == 5


WRONG = Path(__file__).with_name("wrong_policy.yaml")


def test_a_thoroughly_wrong_file_reads_well(snapshot):
    with pytest.raises(InvalidPolicyError) as refusal:
        load_policy(WRONG)
    assert str(refusal.value) == snapshot
