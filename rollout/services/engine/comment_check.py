"""Stored comments, compared with the hashes in the ledger."""

from collections.abc import Iterator

from rollout.core.ledger.comments import CommentDraft, hash_comment
from rollout.core.ledger.ledger import parse_event
from rollout.core.scope.record_events import CommentAdded
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.comments import CommentStore, StoredComment
from rollout.store.ledger.ledger import Ledger
from rollout.store.records.external_keys import ExternalKeys


def find_comment_faults(transaction: Transaction, rollout: Rollout) -> list[str]:
    """Return a text for each comment that is missing, was changed, or has no entry."""
    comments = {
        comment.revision: comment for comment in CommentStore(transaction, rollout).list_all()
    }
    case_ids = [comment.case_id for comment in comments.values() if comment.case_id is not None]
    keys = ExternalKeys(transaction, rollout).find_keys(case_ids)
    hashes = {
        revision: _compute_hash(comment, keys.get(comment.case_id or 0, ""))
        for revision, comment in comments.items()
    }
    return list(_iterate_faults(transaction, rollout, comments, hashes))


def _iterate_faults(
    transaction: Transaction,
    rollout: Rollout,
    comments: dict[int, StoredComment],
    hashes: dict[int, str],
) -> Iterator[str]:
    rows = Ledger(transaction, rollout).list_rows(kinds={CommentAdded.__name__})
    events = {row.revision: parse_event(row) for row in rows}
    for revision, event in events.items():
        assert isinstance(event, CommentAdded)  # noqa: S101 - the rows are of this kind
        if revision not in comments:
            yield f"the comment of entry {revision} is missing"
        elif comments[revision].about != event.about or hashes[revision] not in {
            "",
            event.content_hash,
        }:
            yield f"the comment of entry {revision} is not that of its hash"
    for revision in comments.keys() - events.keys():
        yield f"comment {revision} has no entry in the ledger"


def _compute_hash(comment: StoredComment, case: str) -> str:
    """Return the hash of a comment as it is stored, "" if it was erased."""
    if comment.text is None or comment.salt is None:
        return ""
    return hash_comment(comment.salt, CommentDraft(comment.text, case, comment.answers))
