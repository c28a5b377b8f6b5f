"""What an alarm counted, in words that are true of each measure's counts."""

import json
from datetime import timedelta

import pytest

from rollout.kernel.facts import AlarmSubject, StoredAlarm, Trigger, parse_facts, to_facts
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.policy import Guard, describe_guard
from rollout.kernel.populations import BothArms, EachValue
from rollout.kernel.units import OutcomeRule
from rollout.kernel.words import TRIGGERS, say_against, say_alarm, say_cause
from tests.factories import policy

REVENUE = OutcomeRule("revenue", 0.0, 100.0, timedelta(days=1), "EUR")
BY_GROUP = Condition(MEASURES["agreement"], 0.9, population=EachValue("group"))
MIX = Condition(MEASURES["drift"], 0.1)


def of(measure, threshold, **parts):
    return Condition(MEASURES[measure], threshold, **parts)


COUNTED = [
    (of("agreement", 0.9), "agreement at least 90 %", "blind decisions disagree"),
    (
        of("agreement", 0.9, lever="picture"),
        "agreement (picture) at least 90 %",
        "blind decisions disagree",
    ),
    (
        of("recall", 0.8, label="bear", lever="picture"),
        "recall of bear (picture) at least 80 %",
        "blind decisions for bear were predicted otherwise",
    ),
    (
        of("precision", 0.8, label="0001234"),
        "precision of 0001234 at least 80 %",
        "predictions of 0001234 disagree with the blind decision",
    ),
    (of("cost", 0.2), "cost at most 0.2", "units have a cost"),
    (of("override", 0.05), "override at most 5 %", "assisted decisions override the model"),
    (
        of("action_change", 2.0, action="siren"),
        "action_change of siren at most 2",
        "cases get siren from the model only",
    ),
    (of("harm", 0.0, label="bite"), "harm of bite at most 0", "outcomes name bite"),
    (of("harm", 0.0), "harm at most 0", "outcomes name a harm"),
    (of("failures", 0.02), "failures at most 2 %", "answers failed"),
    (of("latency_p95", 20.0), "latency_p95 at most 20 s", "answers slower than 20 s"),
    (of("missing", 0.05), "missing at most 5 %", "units closed without a decision"),
    (of("unaudited", 0.1), "unaudited at most 10 %", "audits overdue"),
]


@pytest.mark.parametrize(("condition", "guard", "text"), COUNTED)
def test_each_measure_counts_in_its_own_words(condition, guard, text):
    alarm = StoredAlarm(condition, against=15, records=1820)
    assert say_alarm(alarm) == f"{guard}: 15 of 1,820 {text}"
    assert say_against(alarm) == f"15 of 1,820 {text}"


SUBJECTS = [
    (AlarmSubject("group", "b"), BY_GROUP, "group=b", "blind decisions disagree"),
    (
        AlarmSubject("decision", "bear", "fewer", 0.5),
        MIX,
        "fewer decision=bear (was 50 %)",
        "cases speak for fewer decision=bear",
    ),
    (
        AlarmSubject("group"),
        MIX,
        "group with a value that the reference lacks",
        "cases speak for group with a value that the reference lacks",
    ),
]


@pytest.mark.parametrize(("subject", "condition", "name", "text"), SUBJECTS)
def test_an_alarm_of_a_value_names_it(subject, condition, name, text):
    alarm = StoredAlarm(condition, against=8, records=10, subject=subject)
    assert say_alarm(alarm) == f"{condition.describe(name)}: 8 of 10 {text}"


def test_silence_gain_and_repeated_suspensions_have_no_shares():
    silence = StoredAlarm(of("heartbeat", 7200.0), against=51 * 60 + 5, records=1)
    gain = of("gain", 0.0, population=BothArms(REVENUE))
    again = StoredAlarm(of("failures", 0.02), suspensions=3)
    assert say_alarm(silence) == (
        "heartbeat at most 7200 s: no heartbeat for 2 d 3 h in opening hours"
    )
    assert say_alarm(StoredAlarm(gain, against=-32_000, records=1820)) == (
        "gain of revenue at least 0 EUR: -3.2 EUR a unit so far, over 1,820 units"
    )
    assert say_alarm(again) == say_against(again) == "third suspension in 24 h"


def test_alarms_of_one_cell_are_one_text_and_without_any_a_user_gives_the_reason():
    first = StoredAlarm(of("agreement", 0.9), against=9, records=9)
    second = StoredAlarm(BY_GROUP, against=31, records=60, subject=AlarmSubject("group", "new"))
    assert say_cause("", alarms=(first, second)) == (
        "agreement at least 90 %: 9 of 9 blind decisions disagree; also in alarm: agreement of"
        " group=new at least 90 %: 31 of 60 blind decisions disagree"
    )
    assert say_cause("snow on the lens") == "snow on the lens"


def test_an_alarm_is_its_facts():
    subject = AlarmSubject("decision", "bear", "more", 0.125)
    alarm = StoredAlarm(of("drift", 0.1), timedelta(days=7), 8, 10, subject)
    facts = json.loads(json.dumps(to_facts(alarm)))
    assert facts == {
        "condition": {"measure": "drift", "threshold": "0.1"},
        "over": "604800.0",
        "against": 8,
        "records": 10,
        "subject": {
            "attribute": "decision",
            "value": "bear",
            "moved": "more",
            "share": "0.125",
        },
    }
    assert parse_facts(StoredAlarm, facts) == alarm


def test_a_guard_has_an_id_of_its_facts_and_a_text_of_its_own():
    guard = Guard(
        of("recall", 0.8, label="bear", lever="picture"), "report", over=timedelta(hours=4)
    )
    assert guard.id == "recall:bear:picture>=0.8/14400s"
    assert describe_guard(guard) == "recall of bear (picture) at least 80 % over 4h"
    assert Guard(BY_GROUP, "report").id == "agreement by group>=0.9"
    rules = policy(guards=(guard, Guard(MIX, "report")))
    assert rules.describe_guards({guard.id, "drift<=0.1", "cost<=0.2"}) == (
        "cost<=0.2, drift of decisions at most 10 %, recall of bear (picture) at least 80 % over 4h"
    )


REVISION = " revision 2-57, which this ledger lost: a backup was restored or a failover lost rows;"
TIMES = {"wall": "2027-06-01T12:00:00+00:00", "database": "2027-06-01T14:00:00+00:00"}
ACTED = {
    "forbidden": "the scope did not allow it then, nor does a lease",
    "no-permit": "no permit of ours names this case and version",
    "ended-permit": "its permit had ended",
    "other-era": "its permit is of another era: the database was restored in between",
    "other-decider": "its permit says that a human decides",
    "no-prediction": "no prediction of this version was stored before the action or with it",
    "unsure": "the predicted confidence is below the policy's floor",
    "other-action": "it is not the policy's action for the predicted answer",
    "other-answer": "another name of the version answered the case otherwise",
}
SAID = [
    *((kind, {"decider": "human"}, f"v7 acted on k: {text}") for kind, text in ACTED.items()),
    (
        "clocks-apart",
        {"clocks": TIMES},
        "clocks disagree: the wall clock 2027-06-01 12:00:00Z, the database's clock 2027-06-01 14:",
    ),
    (
        "clock-back",
        {"clock": "11:00", "latest": "12:00"},
        "the clock shows 11:00, but the last entry or tick is of 12:00; if the clock is right",
    ),
    (
        "sender-ahead",
        {"dated": "13:00", "received": "12:00"},
        "k dated an action 13:00 and sent it by 12:00: set its clock, or let it count from the",
    ),
    ("unknown-head", {"revision": 57}, "k has sent revision 57 with a hash that is not here, and"),
    ("lost-head", {"revision": "2-57"}, "k has seen" + REVISION),
    ("lost-entry", {"revision": "2-57"}, "a replica has read" + REVISION),
    ("write", {"at": "12:00"}, "a write failed, last seen at 12:00: disk full"),
    ("write", {"at": "12:00", "ledger": "access"}, "a write to the access ledger failed, last"),
    (
        "batch",
        {"at": "12:00", "rows": 9, "holds": "records"},
        "a write of 9 rows with `records` failed, last seen at 12:00: disk full",
    ),
    (
        "unfamiliar",
        {"units": 9, "agreed": 14, "judged": 20},
        "unfamiliar: k, 9 units judged today, 14 of 20 agree",
    ),
    (
        "unfamiliar",
        {"units": 1, "agreed": 0, "judged": 1},
        "unfamiliar: k, 1 unit judged today, 0 of 1 agree",
    ),
]


@pytest.mark.parametrize(("kind", "values", "text"), SAID)
def test_what_the_program_saw_has_words(kind, values, text):
    trigger = Trigger(kind, values)
    assert say_cause("disk full", trigger, about="k", version="v7").startswith(text)
    assert parse_facts(Trigger, json.loads(json.dumps(to_facts(trigger)))) == trigger
    assert {said for said, _, _ in SAID} == TRIGGERS.keys()


@pytest.mark.parametrize(
    ("later", "text"),
    [
        ("case", "came"),
        ("corrected-case", "was corrected"),
        ("prediction", "came"),
        ("corrected-prediction", "was corrected"),
    ],
)
def test_an_action_may_be_shown_by_what_came_later(later, text):
    record = later.removeprefix("corrected-")
    for kind in ("forbidden", "no-prediction", "unsure", "other-action", "other-answer"):
        said = say_cause("", Trigger(kind, {"later": later}), about="k", version="v7")
        assert said == f"v7 acted on k: its {record} {text} later: {ACTED[kind]}"


def test_a_stop_names_no_client_and_a_receipt_no_case():
    lost = say_cause("", Trigger("lost-head", {"revision": "2-57"}))
    assert lost.startswith("a client has seen" + REVISION)
    assert say_cause("", Trigger("no-permit", {})).startswith("no permit of ours names this case")
