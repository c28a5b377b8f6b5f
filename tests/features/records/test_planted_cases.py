"""Declared before any record, marked in the record and the ledger, and unseen by reviewers."""

import itertools
import re
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import pytest
from sqlalchemy import delete, func, select, update

from rollout.data.counting.closed_units import PeriodRecords
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.case_pages import load_rollout_activities
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.history import StoredHistory
from rollout.data.records.incoming_cases import ExposureStore, PlantedCases, SiteSignStore
from rollout.data.records.records import RejectedRecords, build_rejected_record
from rollout.data.tables.tables import cases, planted_cases
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.events import CasesPlanted
from rollout.engine.records.records import Prediction, RejectedItem
from rollout.features.divergences.cases import CaseFilter, find_cases, load_case_details
from rollout.features.erasure.erasure import ErasureRequest, erase_case
from rollout.features.records.planted_cases import (
    PlantingRefusedError,
    PlantingRequest,
    PlantingResult,
    declare_planted_cases,
    find_planting_faults,
)
from rollout.kernel.calendar.instants import to_micros
from rollout.kernel.errors import NotAllowedError
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.rollout_state import load_rollout_state
from tests.data.databases import on_postgresql
from tests.features.review_room import ANA, DAN, MINUTE, Room, person
from tests.live.test_evidence_check import attacking

ZOE = Caller(
    "zoe", role_assignments=(AssignedRole("admin", "bears"), AssignedRole("reviewer", "bears"))
)


EYE = person("eye", AssignedRole("viewer", "bears"), AssignedRole("reviewer", "bears"))


@pytest.fixture
def room(database):
    return Room(database)


def declare(room, *keys, by=DAN, reason="a bear at the bin"):
    request = PlantingRequest(frozenset(keys), reason)
    return declare_planted_cases(room.database, by, "bears", request, room.at)


def list_declared(room):
    with room.database.begin_read() as transaction:
        ledger = Ledger(transaction, room.stood.rollout)
        ledger.verify()
        return [e for e in ledger.list_events() if isinstance(e, CasesPlanted)]


def load_marks(room):
    with room.database.begin_read() as transaction:
        return list(transaction.execute(select(cases.c.planted).order_by("case_id")).scalars())


def test_a_declared_case_is_marked_in_record_hash_and_ledger(room):
    assert declare(room, "p1", "p2") == PlantingResult(2, 0)
    assert declare(room, "p1", "p2") == PlantingResult(0, 2)
    room.arrive("n1").arrive("p1")
    assert load_marks(room) == [None, True]
    (event,) = list_declared(room)
    assert (event.by, event.cases, event.reason) == ("dan", 2, "a bear at the bin")
    with room.database.begin_read() as transaction:
        store = PlantedCases(transaction, room.stood.rollout)
        assert list(store.load_digests().values()) == [(2, event.digest, to_micros(event.at))]
        assert store.count() == (2, 1)
        assert list(find_planting_faults(transaction, room.stood.rollout)) == []
    with attacking(room.database, "planted_cases") as transaction:
        newest = select(func.max(planted_cases.c.case_id)).scalar_subquery()
        transaction.execute(delete(planted_cases).where(planted_cases.c.case_id == newest))
    with room.database.begin_read() as transaction:
        (fault,) = find_planting_faults(transaction, room.stood.rollout)
    assert "which declares 2, or others" in fault
    faults = EvidenceCheck(room.database, "bears").check_all().faults
    assert faults == []
    for key, was, becomes in (("p1", True, None), ("n1", None, True)):
        with attacking(room.database, "cases") as transaction:
            where = cases.c.planted.is_(was)
            transaction.execute(update(cases).where(where).values(planted=becomes))
        assert (
            f"the case of case {key}" in EvidenceCheck(room.database, "bears").check_all().faults[0]
        )


def test_a_declaration_names_the_entry_of_the_access_ledger_that_permits_it(room):
    declare(room, "p1", by=replace(DAN, access_head=4))
    with room.database.begin_read() as transaction:
        ledger = Ledger(transaction, room.stood.rollout)
        (row,) = ledger.list_rows(kinds={CasesPlanted.__name__})
    assert row.access_head == 4


def test_planted_cases_and_others_come_in_one_batch_in_any_order(room):
    declare(room, "p1", "p2")
    room.arrive("p1", "n1").arrive("n2", "p2")
    assert sorted(map(str, load_marks(room))) == ["None", "None", "True", "True"]
    assert EvidenceCheck(room.database, "bears").check_all().faults == []


@pytest.mark.parametrize("known", ["case", "prediction"])
def test_what_is_known_already_is_refused_with_all_beside_it(room, known):
    if known == "case":
        room.arrive("n1", label=None)
    else:
        room.keep(Prediction(key="n1", version="v1", answers={"alarm": "bear"}))
    with pytest.raises(PlantingRefusedError, match="records of n1 came before, so answers"):
        declare(room, "p1", "n1")
    assert list_declared(room) == []
    room.arrive("p1")
    assert set(load_marks(room)) == {None}


def test_a_rejected_record_is_known_too(room):
    rejected = RejectedItem("prediction", "n1", '{"answers": {"alarm": "bear"}}', "no version")
    with room.database.begin_write() as transaction:
        RejectedRecords(transaction, room.stood.rollout).add([rejected], received_at=room.at)
    with pytest.raises(PlantingRefusedError, match="records of n1 came before, so answers"):
        declare(room, "p1", "n1")
    assert declare(room, "p1") == PlantingResult(1, 0)


def test_a_rejected_record_of_a_key_with_umlauts_is_known_too(room):
    prediction = Prediction(key="bär-1", version="v1", answers={"alarm": "bear"})
    rejected = build_rejected_record(prediction, "no version")
    with room.database.begin_write() as transaction:
        RejectedRecords(transaction, room.stood.rollout).add([rejected], received_at=room.at)
    with pytest.raises(PlantingRefusedError, match="records of bär-1 came before, so answers"):
        declare(room, "bär-1")


@pytest.mark.parametrize(
    ("who", "error"),
    [
        (ANA, NotAllowedError),
        (person("op", AssignedRole("operator", "bears")), NotAllowedError),
        (replace(DAN, is_service_account=True), NotAllowedError),
    ],
)
def test_a_user_who_administers_declares(room, who, error):
    with pytest.raises(error):
        declare(room, "p1", by=who)


def test_no_reason_or_key_is_refused(room):
    for keys, reason in ((("p1",), " "), ((), "why"), (("p\n1",), "why")):
        with pytest.raises(PlantingRefusedError, match="nothing was declared"):
            declare(room, *keys, reason=reason)


def test_a_reviewer_cannot_tell_a_planted_case_and_its_planter_is_not_asked(room):
    declare(room, "case-p", by=ZOE)
    room.arrive("case-n").arrive("case-p").later(MINUTE)
    first = room.take(EYE)
    hidden = [
        repr(load_case_details(room.database, EYE, "bears", key, room.at)).replace(key, "key")
        for key in ("case-n", "case-p")
    ]
    room.judge(EYE, first.review)
    second = room.take(EYE)
    assert {first.case.key, second.case.key} == {"case-n", "case-p"}
    shown = [repr(task.case).replace(task.case.key, "key") for task in (first, second)]
    assert shown[0] == shown[1]
    hidden = [re.sub(r"number=\d+", "number", text) for text in hidden]
    assert hidden[0] == hidden[1]
    assert "planted=None" in hidden[1]
    assert load_case_details(room.database, DAN, "bears", "case-p", room.at).planted
    given = [room.take(ZOE), room.take(ZOE)]
    assert {task.case.key for task in given if task} <= {"case-n"}


def test_who_repeats_a_declaration_is_not_asked_either(room):
    declare(room, "case-p")
    room.arrive("case-n").arrive("case-p").later(MINUTE)
    with pytest.raises(PlantingRefusedError, match="records of case-n, case-p came before"):
        declare(room, "case-n", "case-p", by=ZOE)
    assert declare(room, "case-p", by=ZOE) == PlantingResult(0, 1)
    given = [room.take(ZOE), room.take(ZOE)]
    assert {task.case.key for task in given if task} <= {"case-n"}
    assert len(list_declared(room)) == 1


def test_the_order_of_cases_is_that_of_their_first_records(room):
    """A number from the declaration would put a planted case behind all that came since."""
    room.arrive("n1")
    declare(room, "p1", "p2", by=ZOE)
    room.arrive("n2").arrive("n3", "p2").arrive("p1").arrive("n4")
    pages, cursor = [], None
    while not pages or cursor:
        page = find_cases(
            room.database, DAN, "bears", CaseFilter(), room.at, before=cursor, limit=1
        )
        cursor = page.next
        pages += page.items
    assert [case.key for case in pages] == ["n4", "p1", "p2", "n3", "n2", "n1"]
    numbers = [case.number for case in pages]
    assert [a - b for a, b in itertools.pairwise(numbers[:-1])] == [1, 1, 1, 1]
    with room.database.begin_read() as transaction:
        known = ExposureStore(transaction, room.stood.rollout).list_for_reviewer("zoe", numbers)
    assert {case.key for case in pages if case.number in known} == {"p1", "p2"}


@on_postgresql
def test_a_record_that_comes_during_a_declaration_waits_for_it(room):
    with ThreadPoolExecutor(1) as pool:
        with room.database.begin_write() as transaction:
            ids = ExternalKeys(transaction, room.stood.rollout).assign_ids(["p1"]).new_ids
            store = PlantedCases(transaction, room.stood.rollout)
            store.add(ids, at=room.at, revision=9)
            arriving = pool.submit(room.arrive, "p1")
            assert wait([arriving], timeout=0.2).not_done
        arriving.result()
    assert load_marks(room) == [True]


def test_no_program_learns_which_case_is_planted(room):
    declare(room, "case-p")
    room.arrive("case-n").arrive("case-p").later(MINUTE)
    for role in ("ingest", "viewer"):
        program = Caller(
            "camera", role_assignments=(AssignedRole(role, "bears"),), is_service_account=True
        )
        details = [
            load_case_details(room.database, program, "bears", key, room.at)
            for key in ("case-n", "case-p")
        ]
        is_hidden = role == "ingest"  # it could still send the decision
        assert [(case.hidden, case.planted) for case in details] == [(is_hidden, None)] * 2


def test_an_erased_planted_case_stays_declared(room):
    declare(room, "p1")
    room.arrive("p1")
    (event,) = list_declared(room)
    erase_case(room.database, ErasureRequest(DAN, "bears", "asked", room.at), "p1")
    with room.database.begin_read() as transaction:
        store = PlantedCases(transaction, room.stood.rollout)
        assert list(store.load_digests().values()) == [(1, event.digest, to_micros(event.at))]
        assert store.count() == (1, 0)
        assert load_rollout_state(transaction, "bears").policy.rollout == "bears"
    assert EvidenceCheck(room.database, "bears").check_all().faults == []


def test_no_sign_of_life_and_no_record_of_a_figure_is_a_planted_case(room):
    declare(room, "p1")
    room.arrive("p1")
    with room.database.begin_read() as transaction:
        rollout = room.stood.rollout
        sites = room.stood.policy.sites_by_id
        assert SiteSignStore(transaction, rollout).load_case_spans(sites) == {}
        assert PeriodRecords(transaction, rollout).load_last_received() == {}
        activity = load_rollout_activities(transaction, room.at - MINUTE)[rollout.number]
        assert (activity.last_case_at, activity.recent_cases) == (None, 0)
        records = StoredHistory(transaction, rollout, levers=["alarm"]).load_records()
        frames = (records.cases, records.predictions, records.decisions, records.outcomes)
        assert all(frame.is_empty() for frame in frames)
        assert records.planted.predictions["case_key"].to_list() == ["p1"]
