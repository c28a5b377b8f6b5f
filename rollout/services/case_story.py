"""One case with what stands behind it: by which stage and draw it was decided, and what was chosen.

What may be shown of a case, and the note of it, is `explaining`'s; this adds nothing where that
keeps anything back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rollout.core.asking import Question, assign
from rollout.core.cleaning import Choice
from rollout.core.places import Cell
from rollout.core.policy import Policy
from rollout.core.records import Case
from rollout.core.reviewing import draws_of, due_at
from rollout.core.rights import Caller
from rollout.core.scope import Scope, acting
from rollout.services.explaining import Explained, explain
from rollout.services.standing import Standing, kept_policy, standing
from rollout.store.caller_keys import CallerKeys
from rollout.store.cleanings import Cleanings
from rollout.store.ledger import Ledger
from rollout.store.newest import Newest
from rollout.store.policies import Policies
from rollout.store.session import Database, Transaction
from rollout.store.spans import Spans


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """Who decides a case by the scope of then, worked out again from the ledger.

    Attributes:
        revision: of the ledger, that the answer was given from; where none was recorded, the last
            one before the case occurred.
        recorded: whether it was.
        version: the acting one; "" in shadow.
        stage: that it held there; in shadow `shadow`.
        decider: `human` or `model`.
        exposure: what a person sees who decides or audits: `blind` or `assisted`.
        audited: whether a blind verdict was asked for afterwards.
        share: the share of units that the draw would have treated alike.
        drawn: the draw of the case's unit; None while the case is open.
        because: why, in one phrase.
    """

    revision: int
    recorded: bool
    version: str
    stage: str
    decider: str
    exposure: str
    audited: bool
    share: float
    drawn: float | None
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All that may be told of a case.

    Attributes:
        explained: as the service explains it.
        zone: of its site; the policy's where the policy names the site no more.
        closes: until when a verdict on it counts as evidence.
        media: addresses of pictures by name.
        ruling: None where it is kept back, or the case's site and window were never a cell.
        choices: what people chose about it for training, the last one last.
    """

    explained: Explained
    zone: str
    closes: datetime
    media: Mapping[str, str] = field(default_factory=dict)
    ruling: Ruling | None = None
    choices: Sequence[Choice] = ()


def case_story(database: Database, caller: Caller, name: str, key: str, at: datetime) -> Story:
    """Return all that may be told of a case, noted as shown.

    Raises:
        UnknownCase: there is none of that key that the caller may see.
        UnknownRollout: there is none that the caller may see.
        NotAllowed: the caller may not read cases.
        StaleRevision: the case was put before them just now; ask again.
    """
    explained = explain(database, caller, name, key, at)
    with database.reading() as transaction:
        stood = standing(transaction, name)
        number = CallerKeys(transaction, stood.rollout).find([key])[key]
        case = Newest(transaction, stood.rollout).cases([number])[number]
        closes = due_at(stood.policy, case.occurred_at, explained.case.received_at)
        told = not explained.hidden
        return Story(
            explained=explained,
            zone=stood.policy.zone_of(case.site),
            closes=closes,
            media=case.media,
            ruling=_ruling(transaction, stood, explained, case, closes, at) if told else None,
            choices=_choices(transaction, stood, number, at) if told else (),
        )


def _choices(
    transaction: Transaction, stood: Standing, number: int, at: datetime
) -> Sequence[Choice]:
    """Return what was chosen, unless people judge the case now, as a known one."""
    if number in Spans(transaction, stood.rollout).unseen(at):
        return ()
    return Cleanings(transaction, stood.rollout).of([number])


def _ruling(
    transaction: Transaction,
    stood: Standing,
    explained: Explained,
    case: Case,
    closes: datetime,
    at: datetime,
) -> Ruling | None:
    ledger = Ledger(transaction, stood.rollout)
    given = _revision(explained)
    revision = ledger.revision_at(case.occurred_at) if given is None else given
    scope = ledger.scope_of(min(revision, stood.scope.revision))
    policy = _policy(transaction, stood, scope)
    if policy is None or case.site not in policy.site:
        return None
    here = acting(scope, policy, Cell(case.site, case.window), case.occurred_at)
    version = "" if here is None else here[0]
    said = {one.version: one for one in explained.predictions}.get(version)
    asked = Question(
        site=case.site,
        at=case.occurred_at,
        version=version or "-",  # in shadow whichever is asked about is not the one that acts
        key=case.key,
        episode=case.episode or "",
        confidence=None if said is None else said.confidence,
        attributes=case.attributes,
    )
    made = assign(scope, policy, stood.rollout.salt, asked, now=case.occurred_at)
    return Ruling(
        revision=revision,
        recorded=given is not None,
        version=version,
        stage=made.stage,
        decider=made.decider,
        exposure=made.exposure,
        audited=made.audited,
        share=made.share,
        drawn=draws_of(policy, stood.rollout.salt, case)[0] if closes <= at else None,
        because=made.because,
    )


def _revision(explained: Explained) -> int | None:
    """Return the revision that an answer or a permit brought back, None where none did."""
    done = (one.scope_revision for one in explained.actions)
    said = (one.scope_revision for one in explained.predictions)
    return next((one for one in (*done, *said) if one is not None), None)


def _policy(transaction: Transaction, stood: Standing, scope: Scope) -> Policy | None:
    """Return the policy that was in force, None before the first."""
    if scope.policy_hash == stood.scope.policy_hash:
        return stood.policy
    if not scope.policy_hash:
        return None
    texts = Policies(transaction, stood.rollout).texts({scope.policy_hash})
    return kept_policy(texts[scope.policy_hash])
