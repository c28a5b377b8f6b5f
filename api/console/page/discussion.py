"""The discussion on the page of a proposal or an incident, and its form."""

from typing import Final

from api.console.page.form import Form
from api.console.page.page_context import Visitor
from rollout.core.errors import RefusalError
from rollout.core.ledger.comments import CommentDraft
from rollout.core.records.reviews import UnknownCaseError
from rollout.services.discussions.discussions import (
    Discussion,
    DiscussionSubject,
    add_comment,
    load_discussion,
)

COMMENT_FIELD: Final = "comment"
CASE_FIELD: Final = "comment_case"
ANSWERS_FIELD: Final = "answers"
DISCUSSION_ANCHOR: Final = "#discussion"
MAX_REVISION: Final = 2**31 - 1


def load_page_discussion(visitor: Visitor, rollout: str, subject: DiscussionSubject) -> Discussion:
    """Return the comments that the visitor may read."""
    return load_discussion(
        visitor.service.database, visitor.caller, rollout, subject, at=visitor.at
    )


def store_comment(
    visitor: Visitor, rollout: str, subject: DiscussionSubject, form: Form
) -> dict[str, str]:
    """Store the comment of a form; return what is wrong by field, empty once it is stored."""
    answers = form.get_text(ANSWERS_FIELD)
    draft = CommentDraft(
        text=form.get_raw_text(COMMENT_FIELD),
        case=form.get_text(CASE_FIELD),
        answers=_parse_id(answers) if answers else None,
    )
    try:
        add_comment(
            visitor.service.database, visitor.caller, rollout, subject, draft, at=visitor.at
        )
    except UnknownCaseError as error:
        return {CASE_FIELD: str(error)}
    except RefusalError as error:
        if type(error) is not RefusalError:
            raise
        return {COMMENT_FIELD: str(error)}
    return {}


def read_typed(form: Form) -> dict[str, str]:
    """Return the fields of a form as they were typed."""
    return {
        COMMENT_FIELD: form.get_raw_text(COMMENT_FIELD),
        CASE_FIELD: form.get_text(CASE_FIELD),
        ANSWERS_FIELD: form.get_text(ANSWERS_FIELD),
    }


def _parse_id(text: str) -> int:
    """Return the id of a comment; 0, which no comment has, for anything else."""
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_REVISION))
    return int(text) if is_number else 0
