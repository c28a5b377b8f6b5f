"""A client decides as the service would, and never past its lease, whatever its clocks do."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.engine.decide.assignment import CaseQuestion, decide_assignment
from rollout_client.client import EdgeClient, LedgerRolledBackError
from rollout_client.leases import (
    MAX_CLOCK_DRIFT,
    MAX_STEP_BACK,
    ClockReading,
    MachineClocks,
    compute_time_left,
)
from rollout_client.local_scope import InvalidSnapshotError, UnknownFormError, parse_snapshot
from rollout_client.questions import LocalQuestion
from rollout_client.seen_heads import FileHeadStore, LedgerHead
from tests.client.edge_clients import (
    AFTER,
    BEFORE,
    LEASE,
    OPEN,
    SECOND,
    STOPPED,
    TAKES,
    MovableClocks,
    ask,
    build_scope_body,
    create_client,
    local,
)
from tests.client.local_answers import SALT, decide_locally
from tests.factories import HOUR, MINUTE, NOON, autonomous, eventful, policy

# The same answers as the service's


@settings(max_examples=60)
@given(
    st.sampled_from([OPEN, STOPPED, eventful(), autonomous(policy(lease=12 * HOUR))]),
    st.sampled_from(["creek", "lake", "moon"]),
    st.sampled_from(["v1", "v2"]),
    st.integers(0, 30).map(str),
    st.timedeltas(min_value=timedelta(0), max_value=100 * 24 * HOUR),
)
def test_a_snapshot_answers_as_the_scope_that_it_was_made_of(rollout, site, version, key, later):
    now = rollout.at - HOUR + later
    asked = CaseQuestion(site, now, version, key)
    wanted = decide_assignment(rollout.scope, rollout.policy, SALT, asked, now=now, time_left=LEASE)
    told = decide_locally(local(rollout, issued_at=now), asked, now=now, time_left=LEASE)
    assert told == wanted or (site == "moon" and told.decider == wanted.decider == "human")


def test_without_the_salt_or_a_lease_people_decide():
    asked, now = LocalQuestion("creek", OPEN.at, "v1", "k9"), OPEN.at

    def answer(scope, time_left=LEASE):
        return scope.decide(asked, now=now, time_left=time_left).answer

    assert answer(local(OPEN)).decider == "model"
    assert answer(local(OPEN, salt=None)).decider == "human"
    assert answer(local(OPEN, sites=("lake",))).decider == "human"
    assert answer(local(OPEN), timedelta(0)).reason == "the lease has ended"


TABLE = BEFORE["table"]


@pytest.mark.parametrize(
    "spoilt",
    [
        {},
        BEFORE | {"head_code": None, "revision": None},
        BEFORE | {"issued_at": None},
        BEFORE | {"issued_at": "2027-06-01T12:00:00"},
        BEFORE | {"salt": "zz"},
        BEFORE | {"sites": 5},
        BEFORE | {"table": None},
        BEFORE | {"table": TABLE | {"sites": TABLE["sites"][:1]}},
        BEFORE | {"table": TABLE | {"answers": TABLE["answers"][:1]}},
        BEFORE | {"table": TABLE | {"stages": []}},
        BEFORE | {"table": TABLE | {"windows": TABLE["windows"][:1]}},
        BEFORE | {"table": TABLE | {"edges": [*TABLE["edges"], 0.99]}},
        BEFORE | {"table": TABLE | {"since": "2027-06-01T12:00:00"}},
    ],
)
def test_what_is_no_snapshot_is_refused(spoilt):
    with pytest.raises(InvalidSnapshotError):
        parse_snapshot(spoilt)


@pytest.mark.parametrize("form", [0, 2, "1", None])
def test_a_table_of_an_unknown_form_is_refused_and_a_human_decides(form):
    newer = AFTER | {"table": AFTER["table"] | {"form": form}}
    client = create_client(BEFORE, newer)
    client.renew()
    assert ask(client).decider == "model"
    with pytest.raises(UnknownFormError):
        client.renew()
    assert (ask(client).decider, client.permit, client.is_renewal_due) == ("human", "", True)


def test_a_newer_answer_that_cant_be_read_ends_the_former_table():
    client = create_client(BEFORE, AFTER | {"table": {"form": 1}})
    client.renew()
    with pytest.raises(InvalidSnapshotError):
        client.renew()
    assert ask(client).decider == "human"


# The lease


def readings(seconds, *, wall=None):
    sent = ClockReading(5.0, NOON)
    gone = timedelta(seconds=seconds)
    return sent, ClockReading(5.0 + seconds, NOON + (gone if wall is None else wall))


def test_a_lease_is_a_little_shorter_than_said_by_the_clocks_error_and_the_act():
    at_once = compute_time_left(LEASE, *readings(0))
    assert at_once == LEASE * (1 - MAX_CLOCK_DRIFT)
    assert compute_time_left(LEASE, *readings(20), action_delay=TAKES) == at_once - 22 * SECOND
    assert compute_time_left(LEASE, *readings(60)) < timedelta(0)


@pytest.mark.parametrize(
    ("wall", "usable"),
    [
        (-MAX_STEP_BACK, True),
        (-MAX_STEP_BACK - SECOND / 1000, False),
        (LEASE, True),
        (LEASE + SECOND / 1000, False),
    ],
)
def test_a_wall_clock_that_was_set_ends_the_lease(wall, usable):
    assert (compute_time_left(LEASE, *readings(10, wall=wall)) > timedelta(0)) == usable


def test_without_a_clock_that_counts_sleep_there_is_no_lease():
    sent, now = readings(1)
    assert (
        compute_time_left(LEASE, ClockReading(None, NOON), now)
        == compute_time_left(LEASE, sent, ClockReading(None, NOON))
        == MAX_STEP_BACK * 0
    )
    assert (
        compute_time_left(LEASE, now, sent) == MAX_STEP_BACK * 0
    )  # it went back: the machine started anew


def test_this_machine_counts_seconds_since_it_started():
    clocks = MachineClocks()
    first, second = clocks.read(), clocks.read()
    assert first.boot is None or 0 < first.boot <= second.boot
    assert abs(first.wall - datetime.now(UTC)) < MINUTE


# The client


def test_before_it_has_read_anything_people_decide_and_it_is_time_to_ask():
    client = create_client()
    assert ask(client).reason == "no usable scope was read yet"
    assert client.is_renewal_due
    assert client.permit == ""


def test_an_action_is_dated_by_the_service_whatever_the_machine_says():
    clocks = MovableClocks()

    def answer_slowly(_):
        clocks.move(7)
        return BEFORE

    client = EdgeClient("creek", answer_slowly, clocks)
    unread = client.build_action("k9", "alarm", "siren", "v1")
    assert (unread["at"], unread["permit"]) == (clocks.wall.isoformat(), "")
    client.renew()
    clocks.wall += HOUR  # the machine's clock steps; its boot clock doesn't
    clocks.boot += 20
    record = client.build_action("k9", "alarm", "siren", "v1")
    issued_at = datetime.fromisoformat(BEFORE["issued_at"])
    assert record == {
        "kind": "action",
        "key": "k9",
        "lever": "alarm",
        "action": "siren",
        "by": "model",
        "at": (issued_at + 20 * SECOND).isoformat(),
        "version": "v1",
        "permit": "permit",
    }


def test_it_renews_after_a_third_of_the_lease_and_stops_at_its_end():
    clocks = MovableClocks()
    client = create_client(BEFORE, clocks=clocks)
    client.renew()
    assert (client.is_renewal_due, client.permit, ask(client).decider) == (False, "permit", "model")
    clocks.move(21)
    assert client.is_renewal_due
    assert ask(client).decider == "model"
    clocks.move(38.9)
    assert ask(client).decider == "model"
    clocks.move(0.1)
    assert ask(client).decider == "human"


def test_a_lease_is_counted_from_before_the_scope_was_asked_for():
    clocks = MovableClocks()

    def answer_slowly(_):
        clocks.move(7)
        return BEFORE

    client = EdgeClient("creek", answer_slowly, clocks)
    client.renew()
    clocks.move(52.9)
    assert ask(client).decider == "model"
    clocks.move(0.1)
    assert ask(client).decider == "human"


def test_a_case_of_another_site_has_that_sites_lease():
    body = BEFORE | {"sites": [BEFORE["sites"][0], BEFORE["sites"][1] | {"lease": 1.0}]}
    clocks = MovableClocks()
    client = create_client(body, clocks=clocks)
    client.renew()
    clocks.move(5)
    assert ask(client, site="creek").reason == "the model decides"
    assert ask(client, site="lake").reason == "the lease has ended"


def test_a_failed_renewal_leaves_the_lease_that_there_is():
    clocks = MovableClocks()
    client = create_client(BEFORE, {"not": "a scope"}, clocks=clocks)
    client.renew()
    clocks.move(30)
    with pytest.raises(InvalidSnapshotError):
        client.renew()
    assert ask(client).decider == "model"
    clocks.move(30)
    assert ask(client).decider == "human"


def test_a_renewal_that_narrows_holds_at_once():
    client = create_client(BEFORE, AFTER)
    client.renew()
    client.renew()
    assert ask(client).decider == "human"


@pytest.mark.parametrize(
    "body", [BEFORE, AFTER | {"hash": "f" * 64}], ids=["an earlier row", "another hash"]
)
def test_a_ledger_that_was_set_back_renews_nothing(body):
    client = create_client(AFTER, body)
    client.renew()
    with pytest.raises(LedgerRolledBackError):
        client.renew()
    assert ask(client).decider == "human"


def test_it_says_the_highest_head_with_each_question():
    asked = []
    client = EdgeClient("creek", lambda head: asked.append(head) or AFTER, MovableClocks())
    client.renew()
    client.renew()
    assert asked == [LedgerHead(), LedgerHead(AFTER["revision"], AFTER["hash"], 1, "1.1.5be1")]


def test_a_restored_ledger_of_a_later_era_renews_though_its_revision_is_lower(tmp_path):
    heads = FileHeadStore(tmp_path / "head.json")
    restored = BEFORE | {"era": 2, "head_code": "1.2.77"}
    client = create_client(AFTER, restored, AFTER, head_store=heads)
    client.renew()
    client.renew()
    assert ask(client).decider == "model"
    assert heads.load() == LedgerHead(BEFORE["revision"], BEFORE["hash"], 2, "1.2.77")
    with pytest.raises(LedgerRolledBackError):
        client.renew()  # the first era is over


def test_a_new_key_changes_the_code_and_not_the_head():
    client = create_client(AFTER, AFTER | {"head_code": "2.1.88"})
    client.renew()
    client.renew()
    assert client.head_store.load().code == "2.1.88"


def test_the_file_of_an_older_client_is_a_head_without_a_code(tmp_path):
    (tmp_path / "head.json").write_text('{"revision": 41, "hash": "9f2c"}', encoding="utf-8")
    assert FileHeadStore(tmp_path / "head.json").load() == LedgerHead(41, "9f2c", 1, "")


def test_a_restart_forgets_the_lease_and_keeps_the_head(tmp_path):
    heads = FileHeadStore(tmp_path / "head.json")
    assert heads.load() == LedgerHead()
    create_client(AFTER, head_store=heads).renew()
    again = create_client(BEFORE, head_store=heads)
    assert ask(again).decider == "human"
    with pytest.raises(LedgerRolledBackError):
        again.renew()
    assert [path.name for path in tmp_path.iterdir()] == ["head.json"]


def test_a_handed_over_client_waits_for_a_newer_head_even_over_a_restart(tmp_path):
    stores = {name: FileHeadStore(tmp_path / name) for name in ("head", "latch")}
    files = {"head_store": stores["head"], "latch_store": stores["latch"]}
    newer = build_scope_body(OPEN, number=OPEN.scope.revision + 1)
    client = create_client(BEFORE, BEFORE, **files)
    client.renew()
    assert ask(client).decider == "model"
    client.hand_over()
    assert ask(client).reason == "handed over to a human until a newer scope is read"
    client.renew()  # the same head
    assert ask(client).decider == "human"
    again = create_client(BEFORE, newer, **files)
    again.renew()
    assert ask(again).decider == "human"
    again.renew()
    assert ask(again).decider == "model"


def test_a_snapshot_that_was_being_fetched_does_not_lift_a_hand_over():
    newest = OPEN.scope.revision + 1
    client = create_client(BEFORE)
    client.renew()

    def fetch_meanwhile(_):
        client.hand_over()
        return build_scope_body(OPEN, number=newest)  # of before the harm

    client.fetch_scope = fetch_meanwhile
    client.renew()
    assert ask(client).decider == "human"
    client.fetch_scope = lambda _: build_scope_body(OPEN, number=newest + 1)
    client.renew()
    assert ask(client).decider == "model"


def test_a_second_hand_over_does_not_lower_the_first_one(tmp_path):
    latch = FileHeadStore(tmp_path / "latch")
    client = create_client(BEFORE, latch_store=latch)
    client.renew()
    client.hand_over()
    again = create_client(BEFORE, latch_store=latch)  # the restart forgot its head
    again.hand_over()
    again.renew()
    assert ask(again).decider == "human"


def test_a_hand_over_holds_where_the_stored_head_is_unreadable(tmp_path):
    client = create_client(BEFORE, head_store=FileHeadStore(tmp_path / "head"))
    client.renew()
    (tmp_path / "head").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no head"):
        client.hand_over()
    assert ask(client).decider == "human"


def test_a_file_that_holds_no_head_is_not_taken_for_a_beginning(tmp_path):
    (tmp_path / "head.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no head"):
        FileHeadStore(tmp_path / "head.json").load()
