"""A discussion says nothing to who may still decide a case blind, and loses what is erased."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from rollout.core.calendar.sites import Cell
from rollout.core.errors import (
    NotAllowedError,
    RefusalError,
    UnknownIncidentError,
    UnknownProposalError,
    UnknownRolloutError,
)
from rollout.core.ledger.comments import CommentDraft
from rollout.core.records.reviews import UnknownCaseError
from rollout.core.scope.commands import OpenIncident
from rollout.core.scope.permissions import AssignedRole
from rollout.core.scope.record_events import CommentAdded
from rollout.services.discussions import discussions
from rollout.services.discussions.discussions import (
    INCIDENT,
    PROPOSAL,
    DiscussionSubject,
    TooManyCommentsError,
    add_comment,
    load_discussion,
)
from rollout.services.engine.command_handler import execute_command
from rollout.services.engine.evidence_check import EvidenceCheck
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.erasure.case_erasure import erase_case
from rollout.services.erasure.erasure import ErasureRequest
from rollout.services.erasure.name_erasure import erase_name
from rollout.services.erasure.user_export import iterate_user_data
from rollout.services.reviews.reviews import seed_gold_case
from rollout.store.counting.purge import open_purge, purge_records
from rollout.store.ledger.ledger import Ledger
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.tables.tables import comments, exposures
from tests.services.erasure.traces import find_traces
from tests.services.review_room import ANA, DAN, DAY, MINUTE, START, Room, person

AT_CREEK, AT_LAKE = DiscussionSubject(INCIDENT, "I-1"), DiscussionSubject(INCIDENT, "I-2")
VIC = person("vic", AssignedRole("viewer", "bears"))
OLA = person("ola", AssignedRole("operator", "bears"))
LEE = person("lee", AssignedRole("viewer", "bears", "lake"))
EVE = person("eve", AssignedRole("operator", "bears"), AssignedRole("reviewer", "bears", "lake"))
ADA = person("ada", AssignedRole("admin"))
GRACE = DAY + MINUTE  # of the room's policy, with what clocks may differ by


@pytest.fixture
def room(database):
    """Return a room with an incident at each site."""
    made = Room(database)
    for site in ("creek", "lake"):
        opened = OpenIncident(
            at=START - DAY,
            kind="unauthorized",
            reason=f"at {site}",
            cell=Cell(site, "always"),
            version="v1",
            about=f"old-{site}",
        )
        execute_command(database, "bears", lambda _, opened=opened: opened)
    return made


def say(room, who, text, case="", answers=None, about=AT_CREEK):
    draft = CommentDraft(text, case, answers)
    comment, _ = add_comment(room.database, who, "bears", about, draft, at=room.at)
    return comment


def read(room, who, about=AT_CREEK):
    return load_discussion(room.database, who, "bears", about, at=room.at)


def texts(room, who, about=AT_CREEK):
    discussion = read(room, who, about)
    return [comment.text for comment in discussion.items], discussion.hidden


def entries(room):
    with room.database.begin_read() as transaction:
        ledger = Ledger(transaction, room.stood.rollout)
        ledger.verify()
        return [event for event in ledger.list_events() if isinstance(event, CommentAdded)]


def find_faults(room):
    return EvidenceCheck(room.database, "bears").check_all().faults


def test_a_question_is_answered_and_links_a_case(room):
    room.arrive("creek-7")
    asked = say(room, VIC, "  Was the lens wet?\r\nIt rained.  ", "creek-7")
    answer = say(room, OLA, "Yes, until noon.", answers=asked.id)
    assert [(c.by, c.text, c.case, c.answers) for c in read(room, VIC).items] == [
        ("vic", "Was the lens wet?\nIt rained.", "creek-7", None),
        ("ola", "Yes, until noon.", "", asked.id),
    ]
    assert (asked.id, answer.id) == tuple(item.id for item in read(room, OLA).items)
    assert texts(room, VIC, AT_LAKE) == ([], 0)


def test_the_ledger_has_a_hash_and_no_text(room):
    room.arrive("creek-7")
    comment = say(room, VIC, "Was the lens wet?", "creek-7")
    assert find_traces(room.database, "lens") == ["comments.text"]
    (event,) = entries(room)
    assert (event.by, event.about, len(event.content_hash)) == ("vic", "I-1", 64)
    with room.database.begin_read() as transaction:
        ledger = Ledger(transaction, room.stood.rollout)
        (row,) = ledger.list_rows(after=comment.id - 1, until=comment.id)
    assert "creek-7" not in str(row.body)
    assert find_faults(room) == []


def test_a_changed_moved_or_missing_comment_is_found(room):
    first, second = say(room, VIC, "Was it wet?"), say(room, OLA, "Yes.")
    for values in ({"text": "No."}, {"about": "I-2"}):
        with room.database.begin_write() as transaction, open_purge(transaction):
            transaction.execute(
                update(comments).where(comments.c.revision == second.id).values(**values)
            )
        assert find_faults(room) == [f"the comment of entry {second.id} is not that of its hash"]
    with room.database.begin_write() as transaction, open_purge(transaction):
        moved = update(comments).where(comments.c.revision == first.id)
        transaction.execute(moved.values(revision=first.id - 1))
    faults = find_faults(room)
    assert f"the comment of entry {first.id} is missing" in faults
    assert f"comment {first.id - 1} has no entry in the ledger" in faults


def test_repeating_ones_newest_comment_stores_nothing(room):
    first = say(room, VIC, "Was it wet?")
    assert say(room, VIC, "Was it wet?") == first
    say(room, OLA, "Was it wet?")
    say(room, VIC, "Or foggy?")
    again = say(room, VIC, "Was it wet?")
    assert again.id > first.id
    say(room, OLA, "No.")
    assert say(room, VIC, "Was it wet?").id > again.id
    assert len(entries(room)) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a" * 4_001, "Shorten the comment to 4,000 characters; it has 4,001"),
        (" \n ", "Write a comment"),
        ("\u200b \u2060\ufeff", "Write a comment"),
        ("\u3164\u115f\u2800 \ufe0f\u034f\x1b", "Write a comment"),
        ("a\0b", "can't be stored"),
        ("a\ud800b", "can't be stored"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_what_to_do(room, text, message):
    with pytest.raises(RefusalError, match=message):
        say(room, VIC, text)
    assert entries(room) == []
    assert len(say(room, VIC, "ä" * 4_000).text) == 4_000


def test_a_case_that_the_author_may_not_read_is_refused_as_an_unknown_one(room):
    room.arrive("creek-7").arrive("lake-1", site="lake")
    for key in ("creek-7", "lake-2", "a\0b"):
        with pytest.raises(UnknownCaseError, match="check the key"):
            say(room, LEE, "This one?", key, about=AT_LAKE)
    assert say(room, LEE, "This one?", "lake-1", about=AT_LAKE).case == "lake-1"


def test_a_reader_of_one_site_reads_no_key_of_another(room):
    room.arrive("creek-7").arrive("lake-1", site="lake")
    say(room, VIC, "The same here?", "creek-7", about=AT_LAKE)
    assert [(c.text, c.case) for c in read(room, LEE, AT_LAKE).items] == [("The same here?", "")]


def test_who_reads_no_key_has_read_about_the_case_all_the_same(room):
    room.arrive("creek-7")
    say(room, VIC, "the model said bear", case="creek-7", about=AT_LAKE)
    assert [(each.text, each.case) for each in read(room, LEE, AT_LAKE).items] == [
        ("the model said bear", "")
    ]
    with room.database.begin_read() as transaction:
        rows = transaction.execute(select(exposures.c.reviewer, exposures.c.content)).all()
    assert {tuple(row) for row in rows} == {("lee", "prediction"), ("lee", "decisions")}


def test_who_may_not_read_the_page_reads_and_writes_nothing(room):
    stranger = person("sue", AssignedRole("viewer", "wolves"))
    for work in (read, lambda room, who: say(room, who, "Why?")):
        with pytest.raises(NotAllowedError):
            work(room, ANA)  # a reviewer alone
        with pytest.raises(NotAllowedError):
            work(room, LEE)  # of the other site
        with pytest.raises(UnknownRolloutError):
            work(room, stranger)
    with pytest.raises(NotAllowedError, match="service account"):
        say(room, replace(VIC, is_service_account=True), "Why?")


def test_a_subject_is_sought_among_its_own_kind(room):
    with pytest.raises(UnknownProposalError):
        say(room, VIC, "Why?", about=DiscussionSubject(PROPOSAL, "I-1"))
    with pytest.raises(UnknownIncidentError):
        read(room, VIC, DiscussionSubject(INCIDENT, "I-9"))
    with pytest.raises(RefusalError, match="has no comment 99 to answer"):
        say(room, VIC, "Because.", answers=99)
    elsewhere = say(room, VIC, "Why?", about=AT_LAKE)
    with pytest.raises(RefusalError, match="to answer"):
        say(room, VIC, "Because.", answers=elsewhere.id)


def test_limits_are_refused_with_a_sentence(room, monkeypatch):
    monkeypatch.setattr(discussions, "MAX_COMMENTS", 2)
    monkeypatch.setattr(discussions, "MAX_DAILY_COMMENTS", 3)
    for text in ("one", "two"):
        say(room, VIC, text)
    with pytest.raises(TooManyCommentsError, match="I-1 has 2 comments"):
        say(room, OLA, "three")
    say(room, VIC, "three", about=AT_LAKE)
    with pytest.raises(TooManyCommentsError, match="within a day"):
        say(room, VIC, "four", about=AT_LAKE)
    room.later(DAY + MINUTE)
    say(room, VIC, "four", about=AT_LAKE)


def test_a_reviewer_reads_the_others_once_every_case_stored_by_then_is_closed(room):
    """Also at the other site: the text may tell of any case."""
    say(room, EVE, "Mine")
    say(room, VIC, "v1 said bear on each of them")
    say(room, EVE, "My answer")
    assert texts(room, EVE) == (["Mine", "My answer"], 1)
    assert "1 comment is hidden: you may still decide a case" in read(room, EVE).hidden_text
    room.later(GRACE - 2 * MINUTE)
    assert texts(room, EVE)[1] == 1
    room.later(3 * MINUTE)
    assert texts(room, EVE)[1] == 0
    assert texts(room, OLA) == (["Mine", "v1 said bear on each of them", "My answer"], 0)


def test_a_case_with_a_later_end_keeps_comments_hidden(room):
    """It occurs in three days, so its blind review is open until a day after that."""
    room.arrive("lake-1", site="lake", occurred_at=room.at + 3 * DAY)
    room.later(MINUTE)
    say(room, VIC, "v1 will say bear")
    room.later(2 * DAY)
    assert texts(room, EVE) == ([], 1)
    room.later(2 * DAY)
    assert texts(room, EVE)[1] == 0


@pytest.mark.slow
def test_no_reviewer_reads_a_comment_while_a_case_stored_before_may_be_theirs(room):
    """Whatever the order of cases, comments and decisions."""
    for number in range(6):
        room.arrive(f"lake-{number}", site="lake")
        say(room, VIC, f"lake-{number}: v1 said bear", f"lake-{number}")
        room.later(timedelta(hours=7))
        shown, hidden = texts(room, EVE)
        closed = [key for key in range(number + 1) if (number + 1 - key) * 7 * 60 >= 24 * 60 + 1]
        assert shown == [f"lake-{key}: v1 said bear" for key in closed]
        assert hidden == number + 1 - len(closed)


def test_a_linked_case_that_becomes_a_gold_case_hides_its_comment_and_those_after(room):
    room.arrive("lake-1", site="lake")
    say(room, VIC, "About none")
    say(room, VIC, "v1 said bear", "lake-1")
    say(room, VIC, "As v1 said there")
    room.later(3 * DAY)
    assert texts(room, EVE)[1] == 0  # she is shown what v1 said
    ned = replace(EVE, name="ned")
    known = {"alarm": "fox"}
    seed_gold_case(room.database, DAN, room.stood, "lake-1", known, reviewer_count=2, at=room.at)
    assert texts(room, ned) == (["About none"], 2)


def test_reading_about_a_linked_case_is_recorded_as_seeing_its_answer(room):
    room.arrive("lake-1", site="lake")
    say(room, VIC, "v1 said bear", "lake-1")
    with room.database.begin_read() as transaction:
        assert transaction.execute(select(exposures)).all() == []
    read(room, OLA)
    read(room, EVE)
    with room.database.begin_read() as transaction:
        rows = transaction.execute(select(exposures)).all()
    assert {(row.reviewer, row.content, row.page) for row in rows} == {
        ("ola", "prediction", "discussion"),
        ("ola", "decisions", "discussion"),
    }


def test_an_erased_case_takes_the_comments_that_link_or_name_it(room):
    room.arrive("kestrel").arrive("plover")
    say(room, VIC, "Was it foggy?", "kestrel")
    say(room, VIC, "As with kestrel, I think")
    say(room, OLA, "No, it was clear", "plover")
    erase_case(room.database, ErasureRequest(ADA, "bears", "request 12", room.at), "kestrel")
    assert find_traces(room.database, "kestrel") == []
    assert find_traces(room.database, "foggy") == []
    shown = [(c.by, c.text, c.case, c.is_erased) for c in read(room, VIC).items]
    assert shown == [
        ("vic", "", "", True),
        ("vic", "", "", True),
        ("ola", "No, it was clear", "plover", False),
    ]
    assert len(entries(room)) == 3
    assert find_faults(room) == []
    erased = dict(zip(*_erasure_counts(room), strict=True))
    assert erased["comments"] == 2


def _erasure_counts(room):
    with room.database.begin_read() as transaction:
        *_, event = Ledger(transaction, room.stood.rollout).list_events()
    return event.tables, event.counts


def test_a_purged_case_takes_the_comments_that_link_it(room):
    room.arrive("kestrel").later(9 * DAY)
    say(room, VIC, "Was it foggy?", "kestrel")
    say(room, VIC, "And elsewhere?")
    with room.database.begin_write() as transaction:
        state = load_rollout_state(transaction, "bears")
        ids = list(ExternalKeys(transaction, state.rollout).find_ids(["kestrel"]).values())
        purged = purge_records(
            transaction,
            state.rollout,
            before=room.at,
            case_ids=ids,
            revision=state.scope.revision + 1,
        )
    assert purged.rows["comments"] == 1
    assert find_traces(room.database, "foggy") == []
    assert [c.is_erased for c in read(room, VIC).items] == [True, False]


def test_an_erased_user_leaves_no_comment_and_no_name(room):
    say(room, VIC, "Was it foggy?")
    say(room, OLA, "Ask Vic, vic knows")
    say(room, OLA, "No")
    result = erase_name(room.database, ErasureRequest(ADA, "", "request 13", room.at), "vic")
    first, second, third = read(room, OLA).items
    assert (first.by, first.is_erased) == (result.pseudonym, True)
    assert (second.is_erased, third.text) == (True, "No")
    for words in ("vic", "foggy"):
        assert find_traces(room.database, words) == []
    assert len(entries(room)) == 3
    assert find_faults(room) == []


def test_an_export_has_ones_own_comments_and_no_others(room):
    room.arrive("creek-7")
    first = say(room, VIC, "Was it foggy?", "creek-7")
    say(room, OLA, "No", answers=first.id)
    rows = [
        row for row in iterate_user_data(room.database, VIC, "vic") if row["table"] == "comments"
    ]
    assert rows == [
        {
            "table": "comments",
            "rollout": "bears",
            "about": "I-1",
            "revision": first.id,
            "at": room.at.isoformat(),
            "answers": None,
            "text": "Was it foggy?",
            "case": "creek-7",
        }
    ]


def test_two_replicas_store_each_comment_once_in_one_order(room, other):
    """Both have a connection of their own and write at the same time."""
    errors = []

    def write(database, who):
        try:
            for number in range(5):
                draft = CommentDraft(f"{who.name} {number}")
                add_comment(database, who, "bears", AT_CREEK, draft, at=room.at)
        except Exception as error:
            errors.append(error)
            raise

    threads = [
        threading.Thread(target=write, args=pair) for pair in ((room.database, VIC), (other, OLA))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    items = load_discussion(other, VIC, "bears", AT_CREEK, at=room.at).items
    assert [c.id for c in items] == sorted({c.id for c in items})
    for who in (VIC, OLA):
        assert [c.text for c in items if c.by == who.name] == [f"{who.name} {n}" for n in range(5)]
    assert len(entries(room)) == 10
    assert find_faults(room) == []
