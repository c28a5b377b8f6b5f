import hashlib
import json
from datetime import date, timedelta
from pathlib import Path

import pytest

from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.policy import EvidenceRules, Minimum, Policy, Stage, Waves
from rollout.kernel.policy_files.reader import (
    InvalidPolicyError,
    load_policy,
    parse_checked_policy,
    parse_policy,
)
from rollout.kernel.units import Margin
from tests.shipped_policies import SHIPPED_POLICIES

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "policies"
SMALL = """
rollout: parcel-damage
timezone: Europe/Vienna
levers:
  - id: parcel
    labels: [damaged, sound]
sites: [ramp-a, ramp-b]
evidence: {unit: case}
gates:
  - to: supervised
    require:
      - {measure: agreement, at_least: 95%}
      - {measure: recall, label: damaged, at_least: 85%}
"""
HOUR = timedelta(hours=1)
DAY = 24 * HOUR


def load(more: str = "", **changed: str) -> Policy:
    text = SMALL
    for old, new in changed.items():
        assert old in text
        text = text.replace(old, new)
    return parse_policy(text + more)


@pytest.mark.parametrize("path", SHIPPED_POLICIES.values(), ids=SHIPPED_POLICIES)
def test_each_policy_that_is_shipped_loads(path):
    assert load_policy(path).gates


def test_each_worked_policy_of_the_format_loads():
    if not SHARED.is_dir():
        pytest.skip("the shared policies are not here: ../shared/policies")
    paths = sorted(SHARED.glob("*.yaml"))
    assert len(paths) >= 9
    assert all(load_policy(path).guards for path in paths)


def test_our_policies_speak_of_all_the_worked_domains():
    domains = {"bears", "camera-traps", "driving", "logos", "mail-room", "mask-door", "patrol"}
    assert domains | {"prices", "smallest"} <= set(SHIPPED_POLICIES)


def test_twelve_lines_are_a_policy_with_every_default():
    policy = load()
    assert [window.id for window in policy.windows] == ["always"]
    assert policy.stages == (Stage("supervised", blind=0.5), Stage("autonomous", audit=0.1))
    assert policy.evidence == EvidenceRules()
    assert policy.gates[0].minimum == Minimum()
    assert policy.gates[0].approvals == ("operator", "operator")
    assert (policy.lease, policy.tick, policy.observe) == (HOUR / 60, HOUR / 4, False)
    assert (policy.takeover, policy.retention.cases) == ("same-stage", None)
    assert policy.levers_by_id["parcel"].compute_cost("damaged", "sound") == 1


def test_the_hash_is_that_of_the_text():
    assert load().hash == hashlib.sha256(SMALL.encode()).hexdigest()


def test_json_says_the_same_as_yaml():
    body = {
        "rollout": "parcel-damage",
        "timezone": "Europe/Vienna",
        "levers": [{"id": "parcel", "labels": ["damaged", "sound"]}],
        "sites": ["ramp-a", "ramp-b"],
        "evidence": {"unit": "case"},
        "gates": [
            {
                "to": "supervised",
                "require": [
                    {"measure": "agreement", "at_least": 0.95},
                    {"measure": "recall", "label": "damaged", "at_least": "85%"},
                ],
            }
        ],
    }
    assert parse_policy(json.dumps(body, indent="\t")) == load()


def test_scalars_are_what_they_look_like():
    policy = load(
        "country: NO\n"
        "reports: [{name: r, at: 07:00}]\n"
        "windows: [{id: 1e3, hours: 24/7, when: {dry: [yes, 010]}}]\n",
        **{"[damaged, sound]": "[damaged, no, 0x10, null, 1_000, ~]", "ramp-a": "46.10"},
    )
    assert policy.levers[0].labels == ("damaged", "no", "0x10", "null", "1_000", "~")
    assert [site.id for site in policy.sites] == ["46.10", "ramp-b"]
    assert (policy.country, policy.reports[0].at, policy.windows[0].id) == ("NO", "07:00", "1e3")
    assert policy.windows[0].when == {"dry": ("yes", "010")}


@pytest.mark.parametrize(
    ("key", "says"), [("rollout", "'' is no id"), ("charter", "is empty; write it, or leave")]
)
def test_null_in_json_is_no_value(key, says):
    objective = {"objective": None} if key == "charter" else {}
    document = {"rollout": "r", "charter": objective} | ({} if objective else {key: None})
    with pytest.raises(InvalidPolicyError) as refusal:
        parse_policy(json.dumps(document))
    path = ".".join((key, *objective))
    assert any(
        fault.startswith(f"policy.yaml:1: {path}: {says}")
        for fault in map(str, refusal.value.faults)
    )


def test_shares_read_the_same_with_and_without_a_per_cent_sign():
    assert load(**{"95%": "0.95"}) == load()


def test_spans_are_read_in_each_unit():
    policy = load("lease: 300ms\ntick: 20m\nretention: {cases: 200d}\n")
    assert (policy.lease, policy.tick) == (timedelta(milliseconds=300), timedelta(minutes=20))
    assert policy.retention.cases == 200 * DAY


def test_lines_are_kept_in_the_unit_of_their_measure():
    policy = load(
        "guards:\n"
        "  - {measure: heartbeat, at_most: 2h}\n"
        "  - {measure: failures, at_most: 2%}\n"
        "  - {measure: harm, label: fall, at_most: 3}\n"
        "  - {measure: action_change, action: damaged, at_most: 2.5}\n"
        "  - {measure: cost, at_most: 0.3}\n"
    )
    conditions = [guard.condition for guard in policy.guards if not guard.added]
    assert [c.threshold for c in conditions] == [7200.0, 0.02, 3.0, 2.5, 0.3]
    assert [c.at_least for c in conditions] == [False] * 5
    assert conditions[2].label == "fall"


def test_guards_take_what_their_measure_does_by_default():
    policy = load(
        "guards:\n"
        "  - {measure: latency_p95, at_most: 20s}\n"
        "  - {measure: harm, at_most: 0}\n"
        "  - {measure: override, at_most: 10%}\n"
        "  - {measure: missing, at_most: 10%}\n"
        "  - {measure: action_change, action: damaged, at_most: 2}\n"
    )
    given = [(g.then, g.over) for g in policy.guards if not g.added]
    assert given == [
        ("suspend", HOUR / 4),
        ("shadow", 7 * DAY),
        ("one-stage", None),
        ("report", 7 * DAY),
        ("report", None),
    ]


def test_a_gate_where_the_model_decides_has_a_smaller_risk():
    gate = "  - {to: autonomous, require: [{measure: agreement, at_least: 95%}]}\n"
    assert [gate.risk for gate in load(gate).gates] == [0.05, 0.01]


def test_approvals_are_a_number_of_operators_or_a_list_of_groups():
    assert load("    approvals: 3\n").gates[0].approvals == ("operator",) * 3
    groups = load("    approvals: [operator, safety]\n").gates[0].approvals
    assert groups == ("operator", "safety")


def test_sites_inherit_zone_and_country():
    site = (
        "{id: ramp-a, timezone: Asia/Tokyo, country: JP, place: [35.2, 136.9], wave: 2, lease: 2h}"
    )
    policy = load("country: AT\n", **{"ramp-a,": f"{site},"})
    first, second = policy.sites
    assert (first.timezone, first.country, first.coordinates) == ("Asia/Tokyo", "JP", (35.2, 136.9))
    assert (first.wave, first.lease) == (2, 2 * HOUR)
    assert (second.timezone, second.country) == ("Europe/Vienna", "AT")


@pytest.mark.parametrize(("row", "span"), [("", 365 * DAY), (", false_alarm_every: 30d", 30 * DAY)])
def test_a_heartbeat_guard_alarms_once_a_year_by_chance(row, span):
    site = '{id: ramp-a, open: "Mo-Fr 08:00-20:00"}'
    guards = f"guards: [{{measure: heartbeat, at_most: 2h{row}}}]\n"
    policy = load(guards, **{"ramp-a,": f"{site},"})
    guard = next(g for g in policy.guards if g.condition.measure.name == "heartbeat")
    assert guard.false_alarm_span == span
    assert [site.open for site in policy.sites] == ["Mo-Fr 08:00-20:00", None]


def test_a_stage_list_replaces_the_default():
    policy = load("stages: [{id: supervised, blind: 20%, lasts: 30d}]\n")
    assert policy.stages == (Stage("supervised", blind=0.2, lasts=30 * DAY),)


def test_numbers_have_ranges_and_distances():
    lever = (
        "number: {in: EUR, from: -1, to: 500, tolerance: 5%}\n    costs: [{under: 20%, cost: 40}]"
    )
    policy = load(
        "",
        **{
            "labels: [damaged, sound]": lever,
            "      - {measure: recall, label: damaged, at_least: 85%}\n": "",
        },
    )
    number = policy.levers[0].number
    assert number is not None
    assert (number.low, number.high, number.tolerance) == (-1, 500, Margin(0.05, relative=True))
    assert policy.levers[0].compute_number_cost(70, 100) == 40


def test_limits_waves_and_freezes_are_read():
    policy = load(
        "limits: [{windows: [al*], never_above: supervised}, {sites: [ramp-a],"
        " ends: 2027-10-31}]\n"
        "waves: {stage: supervised, hold: 14d, share: 80%, at_once: 2}\n"
        'freezes: [{hours: "Dec 24-26", reason: holidays}]\n'
    )
    assert policy.limits[0].where.fits(Cell("ramp-b", "always"))
    assert policy.limits[1].ends == date(2027, 10, 31)
    assert policy.waves == Waves("supervised", hold=14 * DAY, share=0.8, at_once=2)
    assert policy.freezes[0].hours == "Dec 24-26"


def test_a_version_has_one_row():
    with pytest.raises(InvalidPolicyError, match="repeated"):
        load("versions: [{id: v8}, {id: v8}]")


@pytest.mark.parametrize("content", ["AB" * 32, "ab" * 31, "ab" * 32 + "0", "xy" * 32])
def test_a_content_is_a_whole_hash_in_lower_case(content):
    with pytest.raises(InvalidPolicyError, match="64 hexadecimal digits in lower case"):
        load(f"versions: [{{id: v7, content: {content}}}]")
    digits = 64 * "7"  # YAML reads it as a number
    assert load(f"versions: [{{id: v7, content: {digits}}}]").contents_by_version == {"v7": digits}


@pytest.mark.parametrize(
    ("sites", "fault"),
    [
        ("[{id: ramp-c, was: ramp-a}, ramp-b]", ""),
        ("[{id: ramp-c, was: ramp-b}, ramp-b]", "'ramp-b' is still one of the sites"),
        ("[{id: ramp-c, was: ramp-a}, {id: ramp-d, was: ramp-a}]", "'ramp-a' is repeated"),
    ],
)
def test_a_site_has_a_former_id_that_no_other_has(sites, fault):
    if fault:
        with pytest.raises(InvalidPolicyError, match=fault):
            load(**{"[ramp-a, ramp-b]": sites})
    else:
        assert [site.was for site in load(**{"[ramp-a, ramp-b]": sites}).sites] == ["ramp-a", ""]


def test_with_one_lever_its_name_says_nothing():
    named = load(**{"{measure: agreement,": "{measure: agreement, lever: parcel,"})
    assert named.gates == load().gates


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_bytes(b"rollout: \xff")
    with pytest.raises(InvalidPolicyError, match=r"p\.yaml:1: \(file\): is not UTF-8"):
        load_policy(path)


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_file_is_refused_once_and_not_key_by_key(tmp_path, text):
    path = tmp_path / "p.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(InvalidPolicyError) as refused:
        load_policy(path)
    assert str(refused.value) == (
        "p.yaml:1: (file): is empty; write a policy, or draft one by `rollout init`"
    )


HOURS = "windows: [{id: day, hours: 08:00-20:00}, {id: night, hours: 20:00-08:00}]\n"


def test_meaning_of_policy_that_was_checked_is_not_checked_again():
    text = f"{SMALL}{HOURS}"
    assert parse_checked_policy(text) == parse_policy(text)
    never = text.replace("08:00-20:00", "Feb 30")
    with pytest.raises(InvalidPolicyError, match="Feb has no day 30"):
        parse_policy(never)
    assert parse_checked_policy(never).windows[0].hours == "Feb 30"


def test_checked_policy_that_can_not_be_read_is_refused():
    with pytest.raises(InvalidPolicyError, match=r"policy\.yaml:2: rollout: 'a b' is no id"):
        parse_checked_policy(SMALL.replace("parcel-damage", "a b"))
