"""Comments on proposals and incidents, each with the revision of its ledger entry."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, insert, select, update

from rollout.store.database.rollouts import Rollout, match_cases
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import comments


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredComment:
    """A comment; salt and text are None once it is erased."""

    revision: int
    about: str
    at: datetime
    author: str
    answers: int | None
    case_id: int | None
    salt: bytes | None
    text: str | None


COLUMNS = tuple(comments.c[name] for name in StoredComment.__dataclass_fields__)


class CommentStore:
    """The comments of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def add(self, comment: StoredComment) -> None:
        """Store a comment."""
        values = {column.name: getattr(comment, column.name) for column in COLUMNS}
        row = {"rollout": self._rollout.number, **values}
        self._transaction.execute(insert(comments).values(row))

    def list_about(self, about: str) -> list[StoredComment]:
        """Return the comments on a proposal or an incident, oldest first."""
        query = select(*COLUMNS).where(self._is_own, comments.c.about == about)
        rows = self._transaction.execute(query.order_by(comments.c.revision))
        return [_build_comment(row) for row in rows]

    def list_all(self) -> list[StoredComment]:
        """Return all comments of the rollout, oldest first."""
        query = select(*COLUMNS).where(self._is_own).order_by(comments.c.revision)
        return [_build_comment(row) for row in self._transaction.execute(query)]

    @property
    def _is_own(self) -> ColumnElement[bool]:
        return comments.c.rollout == self._rollout.number


def erase_comment_texts(
    transaction: Transaction, rollout: Rollout, *conditions: ColumnElement[bool]
) -> int:
    """Erase texts and salts within `open_purge`; return how many there were."""
    is_stored = (comments.c.rollout == rollout.number, comments.c.text.is_not(None))
    statement = update(comments).where(*is_stored, *conditions)
    return transaction.execute(statement.values(text=None, salt=None)).rowcount


def erase_comments_of_cases(
    transaction: Transaction, rollout: Rollout, case_ids: Collection[int]
) -> int:
    """Erase the comments that link one of the cases, within `open_purge`; return their number."""
    return erase_comment_texts(
        transaction, rollout, *match_cases(transaction, rollout, comments, case_ids)
    )


def erase_comments_by(transaction: Transaction, rollout: Rollout, author: str) -> int:
    """Erase the comments of an author, within `open_purge`; return their number."""
    return erase_comment_texts(transaction, rollout, comments.c.author == author)


def _build_comment(row: Row[Any]) -> StoredComment:
    return StoredComment(**{column.name: getattr(row, column.name) for column in COLUMNS})
