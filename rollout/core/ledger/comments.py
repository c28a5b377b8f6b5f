"""Comments of a discussion: what may be stored, its hash, and who may read it yet.

A comment is stored outside the ledger, which has its salted hash. Its text may say what the model
answered on any case that was stored by then. So a user who may be asked for blind reviews reads it
once those cases are closed.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from unicodedata import category

from rollout.core.errors import RefusalError
from rollout.core.ledger.ledger_texts import LedgerText

MAX_COMMENT_LENGTH: Final = 4_000
"""Maximum characters of a comment."""
FILLERS: Final = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters of Hangul and Braille that show nothing."""
CLOCK_MARGIN: Final = timedelta(minutes=1)
"""By how much the clock that stamped a case may differ from the one that stamped a comment."""


@dataclass(frozen=True, slots=True)
class CommentDraft:
    """What a user wrote.

    Attributes:
        case: key of the linked case, "" for none.
        answers: id of the comment that it answers, None for none.
    """

    text: str
    case: str = ""
    answers: int | None = None


@dataclass(frozen=True, slots=True)
class CommentOrigin:
    """Who wrote a comment, when, and about which case."""

    by: str
    at: datetime
    case_id: int | None


def is_storable(text: str) -> bool:
    r"""Return whether every database can store a text.

    >>> is_storable("snow"), is_storable("a\0"), is_storable("\ud800")
    (True, False, False)
    """
    return not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text)


def _is_invisible(char: str) -> bool:
    """Return whether a letter shows nothing alone: also zero-width ones, marks and fillers."""
    return char.isspace() or category(char) in {"Cc", "Cf", "Mn"} or char in FILLERS


def find_comment_fault(text: str) -> str:
    """Return what is wrong with a comment's text and what to do, "" if nothing.

    >>> find_comment_fault("a" * 4_000), find_comment_fault("a" * 4_001)
    ('', 'Shorten the comment to 4,000 characters; it has 4,001')
    """
    if all(map(_is_invisible, text)):
        return "Write a comment: it is empty"
    if len(text) > MAX_COMMENT_LENGTH:
        return f"Shorten the comment to {MAX_COMMENT_LENGTH:,} characters; it has {len(text):,}"
    if not is_storable(text):
        return "The comment contains a character that can't be stored, such as NUL; remove it"
    return ""


def clean_draft(draft: CommentDraft) -> CommentDraft:
    r"""Return a draft with its lines ended by one sign, and no spaces around it.

    Raises:
        RefusalError: the text is empty or too long, or has a character that can't be stored.

    >>> clean_draft(CommentDraft(" Was there snow?\r\nOr fog?\n")).text
    'Was there snow?\nOr fog?'
    """
    text = draft.text.replace("\r\n", "\n").strip()
    if fault := find_comment_fault(text):
        raise RefusalError(fault)
    return CommentDraft(text, draft.case.strip(), draft.answers)


def hash_comment(salt: bytes, draft: CommentDraft) -> str:
    """Return the salted hash of a comment, its linked case and what it answers."""
    fields = [draft.text, draft.case, draft.answers]
    return LedgerText(salt, json.dumps(fields, ensure_ascii=False)).hash


def find_hidden_comments(
    comments: Sequence[CommentOrigin],
    reader: str,
    *,
    closed_until: datetime,
    hidden_cases: Collection[int],
) -> frozenset[int]:
    """Return the positions of comments that a user who may be asked blind can't read yet.

    Each comment after a hidden one may quote it, so it is hidden too, unless the reader wrote it.

    Args:
        comments: a discussion, oldest first.
        closed_until: every case stored by then is closed.
        hidden_cases: linked cases on which the reader may still be asked.
    """
    first = next(
        (
            position
            for position, comment in enumerate(comments)
            if comment.at >= closed_until or comment.case_id in hidden_cases
        ),
        len(comments),
    )
    return frozenset(
        position
        for position, comment in enumerate(comments)
        if position >= first and comment.by != reader
    )


def compute_closed_time(at: datetime, grace: timedelta, open_since: datetime | None) -> datetime:
    """Return a time by which every stored case is closed.

    Args:
        at: now.
        grace: for so long after its receipt a case counts what is decided.
        open_since: earliest receipt of a case with an open blind review; None without one.
    """
    closed = at - grace
    return min(closed, open_since or closed) - CLOCK_MARGIN
