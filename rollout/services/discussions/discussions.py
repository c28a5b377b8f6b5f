"""The discussion of a proposal or an incident: load it, and add a comment.

Who may read the page may read and write. A user who may be asked for blind reviews in the rollout
reads comments of others once every case that was stored by then is closed: their text may say what
the model answered on any of these. What is read about a linked case is recorded as seen.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rollout.core.errors import (
    NotAllowedError,
    RefusalError,
    UnknownIncidentError,
    UnknownProposalError,
)
from rollout.core.ledger.comments import (
    CommentDraft,
    CommentOrigin,
    clean_draft,
    compute_closed_time,
    find_hidden_comments,
    hash_comment,
    is_storable,
)
from rollout.core.ledger.ledger_texts import SALT_BYTES
from rollout.core.records.records import Case
from rollout.core.records.reviews import UnknownCaseError
from rollout.core.scope.permissions import (
    Caller,
    Permission,
    may_be_asked_blind,
    require_permission,
)
from rollout.core.scope.record_events import CommentAdded
from rollout.services.engine.command_handler import retry_on_stale_revision
from rollout.services.engine.rollout_state import RolloutState, load_rollout_state
from rollout.services.reviews.exposure import find_hidden_cases, record_shown_cases
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.comments import CommentStore, StoredComment
from rollout.store.ledger.incidents import IncidentStore
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.projections import ProposalStore
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.records.newest_records import NewestRecords

PROPOSAL, INCIDENT = "proposal", "incident"
DISCUSSION_PAGE: Final = "discussion"
MAX_COMMENTS: Final = 200
"""Maximum comments of a discussion."""
MAX_DAILY_COMMENTS: Final = 200
"""Maximum comments of a user in a rollout within a day: each is an entry of the ledger."""
ONE_DAY: Final = timedelta(days=1)


class TooManyCommentsError(RefusalError):
    """The discussion is full, or its author wrote too many comments today."""

    code = "too-many-requests"


@dataclass(frozen=True, slots=True)
class DiscussionSubject:
    """What a discussion is about: `proposal` or `incident`, and its id."""

    kind: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A comment as its reader may see it.

    Attributes:
        id: revision of its entry in the ledger.
        text: "" if erased.
        case: key of the linked case; "" for none, if erased, or if the reader may not read it.
        answers: id of the comment that it answers.
    """

    id: int
    by: str
    at: datetime
    text: str
    case: str
    answers: int | None
    is_erased: bool


@dataclass(frozen=True, slots=True)
class Discussion:
    """Comments, oldest first, and how many are hidden from their reader."""

    items: tuple[Comment, ...]
    hidden: int = 0

    @property
    def hidden_text(self) -> str:
        """Say how many comments are hidden and why, "" for none."""
        if not self.hidden:
            return ""
        noun, pronoun = (
            ("comment is", "it was") if self.hidden == 1 else ("comments are", "they were")
        )
        return (
            f"{self.hidden} {noun} hidden: you may still decide a case blind that was stored"
            f" before {pronoun} written"
        )


def load_discussion(
    database: Database,
    caller: Caller,
    rollout_name: str,
    subject: DiscussionSubject,
    *,
    at: datetime,
) -> Discussion:
    """Return the comments that the caller may read.

    Exposure to linked cases is recorded first.

    Raises:
        UnknownProposalError, UnknownIncidentError: there is no such proposal or incident.
        NotAllowedError: the caller may not read its site.
        StaleRevisionError: the caller claimed a linked case meanwhile; repeat the request.
    """
    require_permission(caller, Permission.READ, rollout_name)
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, rollout_name)
        _require_readable(transaction, state, caller, subject)
        comments = CommentStore(transaction, state.rollout).list_about(subject.id)
        cases = _load_linked_cases(transaction, state, comments)
        hidden = _find_hidden(transaction, state, caller, comments, cases, at)
    shown_comments = [
        comment for position, comment in enumerate(comments) if position not in hidden
    ]
    items = tuple(_build_comment(state, caller, comment, cases) for comment in shown_comments)
    keys = [  # also of cases whose key the caller may not read: the text is about them
        case.key
        for comment in shown_comments
        if comment.author != caller.name and (case := cases.get(comment.case_id or 0)) is not None
    ]
    if keys:
        record_shown_cases(database, state, caller, keys, at, page=DISCUSSION_PAGE)
    return Discussion(items, len(hidden))


def add_comment(
    database: Database,
    caller: Caller,
    rollout_name: str,
    subject: DiscussionSubject,
    draft: CommentDraft,
    *,
    at: datetime,
) -> tuple[Comment, bool]:
    """Add a comment; return it, and whether it is new.

    Repeating one's newest comment in a discussion is safe: it is returned.

    Raises:
        RefusalError: text, or the comment that it answers, can't be stored as it is.
        UnknownCaseError: the caller may not read a case of that key.
        UnknownProposalError, UnknownIncidentError: there is no such proposal or incident.
        NotAllowedError: the caller may not read its site, or is a service account.
        TooManyCommentsError: the discussion is full, or the caller wrote too many today.
    """
    require_permission(caller, Permission.READ, rollout_name)
    if caller.is_service_account:
        raise NotAllowedError(
            f"{caller.name} is a service account; users write comments, so that each has an author"
        )
    checked_draft = clean_draft(draft)
    return retry_on_stale_revision(
        lambda: _try_add(database, caller, rollout_name, subject, checked_draft, at)
    )


def _try_add(
    database: Database,
    caller: Caller,
    rollout_name: str,
    subject: DiscussionSubject,
    draft: CommentDraft,
    at: datetime,
) -> tuple[Comment, bool]:
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, rollout_name)
        _require_readable(transaction, state, caller, subject)
        store = CommentStore(transaction, state.rollout)
        comments = store.list_about(subject.id)
        cases = _find_case(transaction, state, caller, draft.case)
        _check_answers(subject, draft, comments)
        if repeated := _find_repeated(comments, caller, draft, tuple(cases)):
            return _build_comment(state, caller, repeated, cases), False
        _check_limits(transaction, state, caller, subject, len(comments), at)
        salt = secrets.token_bytes(SALT_BYTES)
        event = CommentAdded(
            at=at, by=caller.name, about=subject.id, content_hash=hash_comment(salt, draft)
        )
        (row,) = Ledger(transaction, state.rollout).append(
            [event], after=state.scope.revision, access_head=caller.access_head
        )
        comment = StoredComment(
            revision=row.revision,
            about=subject.id,
            at=at,
            author=caller.name,
            answers=draft.answers,
            case_id=next(iter(cases), None),
            salt=salt,
            text=draft.text,
        )
        store.add(comment)
    return _build_comment(state, caller, comment, cases), True


def _require_readable(
    transaction: Transaction, state: RolloutState, caller: Caller, subject: DiscussionSubject
) -> None:
    """Raise an error unless the caller may read the proposal or incident."""
    is_proposal = subject.kind == PROPOSAL
    row = (
        ProposalStore(transaction, state.rollout).find(subject.id)
        if is_proposal
        else IncidentStore(transaction, state.rollout).find(subject.id)
    )
    if row is None:
        error_type = UnknownProposalError if is_proposal else UnknownIncidentError
        raise error_type(f"{state.rollout.name} has no {subject.kind} {subject.id}; check its id")
    sites = (row.site,) if row.site else ()
    require_permission(caller, Permission.READ, state.rollout.name, sites)


def _load_linked_cases(
    transaction: Transaction, state: RolloutState, comments: Sequence[StoredComment]
) -> Mapping[int, Case]:
    case_ids = {
        comment.case_id
        for comment in comments
        if comment.case_id is not None and comment.text is not None
    }
    return NewestRecords(transaction, state.rollout).load_cases(case_ids) if case_ids else {}


def _find_hidden(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    comments: Sequence[StoredComment],
    cases: Mapping[int, Case],
    at: datetime,
) -> frozenset[int]:
    """Return the positions of comments that the caller may not read yet."""
    from rollout.store.counting.period_records import PeriodRecords

    if not comments or not may_be_asked_blind(caller, state.rollout.name, ()):
        return frozenset()
    keys = [case.key for case in cases.values()]
    hidden_keys = find_hidden_cases(transaction, state, caller, keys, at)
    open_since = PeriodRecords(transaction, state.rollout).find_open_blind_receipt(at)
    return find_hidden_comments(
        [CommentOrigin(comment.author, comment.at, comment.case_id) for comment in comments],
        caller.name,
        closed_until=compute_closed_time(at, state.policy.evidence.grace, open_since),
        hidden_cases={number for number, case in cases.items() if case.key in hidden_keys},
    )


def _find_case(
    transaction: Transaction, state: RolloutState, caller: Caller, key: str
) -> Mapping[int, Case]:
    """Return the case of a key by its number; empty without a key."""
    if not key:
        return {}
    external_keys = ExternalKeys(transaction, state.rollout)
    case_ids = external_keys.find_ids([key]) if is_storable(key) else {}  # else drivers fail
    cases = NewestRecords(transaction, state.rollout).load_cases(case_ids.values())
    for number, case in cases.items():
        if caller.has_permission(Permission.READ_CASES, state.rollout.name, case.site):
            return {number: case}
    raise UnknownCaseError(
        f"{state.rollout.name} has no case {key} that you may read; check the key, upper and lower"
        " case differ"
    )


def _check_answers(
    subject: DiscussionSubject, draft: CommentDraft, comments: Sequence[StoredComment]
) -> None:
    if draft.answers is not None and draft.answers not in {each.revision for each in comments}:
        raise RefusalError(
            f"{subject.id} has no comment {draft.answers} to answer; give the id of one of its"
            " comments, or none"
        )


def _find_repeated(
    comments: Sequence[StoredComment],
    caller: Caller,
    draft: CommentDraft,
    case_ids: tuple[int, ...],
) -> StoredComment | None:
    """Return the newest comment if it is the caller's and says the same, else None.

    The same words after another user's comment are a new comment.
    """
    newest = comments[-1] if comments else None
    content = (caller.name, draft.text, next(iter(case_ids), None), draft.answers)
    if newest and (newest.author, newest.text, newest.case_id, newest.answers) == content:
        return newest
    return None


def _check_limits(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    subject: DiscussionSubject,
    count: int,
    at: datetime,
) -> None:
    if count >= MAX_COMMENTS:
        raise TooManyCommentsError(
            f"{subject.id} has {count} comments, as many as a discussion holds; write the rest into"
            " the reason of the decision or the note of the acknowledgement"
        )
    ledger = Ledger(transaction, state.rollout)
    daily_count = ledger.count_events(caller.name, CommentAdded.__name__, since=at - ONE_DAY)
    if daily_count >= MAX_DAILY_COMMENTS:
        raise TooManyCommentsError(
            f"you wrote {daily_count} comments in {state.rollout.name} within a day, which stay;"
            " wait a while"
        )


def _build_comment(
    state: RolloutState, caller: Caller, comment: StoredComment, cases: Mapping[int, Case]
) -> Comment:
    case = None if comment.case_id is None else cases.get(comment.case_id)
    may_read = case is not None and caller.has_permission(
        Permission.READ_CASES, state.rollout.name, case.site
    )
    return Comment(
        id=comment.revision,
        by=comment.author,
        at=comment.at,
        text=comment.text or "",
        case=case.key if case is not None and may_read else "",
        answers=comment.answers,
        is_erased=comment.text is None,
    )
