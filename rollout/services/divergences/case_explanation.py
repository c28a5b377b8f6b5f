"""Cases for people and machines: pages of them, and one explained.

Whoever may judge a case that is still open is shown nothing of what versions, and others, said of
it: not in a page, not by a filter, not in what was done or counted. What is shown to a person is
noted before it leaves.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from rollout.core.calendar.sites import Cell
from rollout.core.errors import NotAllowed, StaleRevision
from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.core.records.label_cleaning import Choice
from rollout.core.records.records import Action, Case, Decision, Outcome, Prediction
from rollout.core.records.reviews import PREDICTION, VERDICTS, UnknownCase, draws_of, due_at
from rollout.core.scope.assignment import Question, assign
from rollout.core.scope.permissions import Act, Caller, require
from rollout.core.scope.scope import Scope, acting
from rollout.services.engine.rollout_state import Standing, kept_policy, standing
from rollout.services.reviews.exposure import hidden_from, record_shown
from rollout.store.counting.count_windows import Spans
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import Policies
from rollout.store.records.case_pages import CasePages, Count, Filter
from rollout.store.records.external_keys import CallerKeys
from rollout.store.records.recent_units import Newest
from rollout.store.records.rejected_records import Item, SetAside
from rollout.store.reviews.cleanings import Cleanings
from rollout.tally.slots import instant

__all__ = [
    "KEPT_BACK",
    "Aside",
    "CasePage",
    "Counted",
    "Explained",
    "Filter",
    "Listed",
    "aside_of",
    "cases_of",
    "explain",
]

CASE_PAGE, CASES_PAGE, ASIDE_PAGE = "case", "cases", "rejected-records"
AT_ONCE = 500  # cases that are looked at for a page whose filter the database can't judge alone
MOST_LOOKED_AT = 20  # such looks for one page: a page may be short, its cursor goes on
KEPT_BACK = "you may still judge this case: what is said of it is kept back"
OPEN_KINDS = frozenset({"case", "heartbeat"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A case in a page. `differs` is None, and `versions` empty, where that may not be shown."""

    number: int
    key: str
    site: str
    window: str
    occurred_at: datetime
    received_at: datetime
    episode: str | None
    attributes: Mapping[str, str]
    versions: Sequence[str]
    differs: bool | None


@dataclass(frozen=True, slots=True)
class CasePage:
    """Some cases; `next` is the number after which the next page begins, None at the end."""

    items: Sequence[Listed]
    next: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Where the case was counted: `slot` is the instant of the tick that counted it."""

    version: str
    track: str
    slot: datetime
    site: str
    window: str
    attempt: int
    definition: str
    lever: str
    predicted: str
    decided: str
    reviewer: str | None
    excluded: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One case. `hidden`: the caller may judge it, so what others said is kept back."""

    case: Listed
    hidden: bool
    waits: str
    predictions: Sequence[Prediction]
    decisions: Sequence[Decision]
    actions: Sequence[Action]
    outcomes: Sequence[Outcome]
    counted: Sequence[Counted]


@dataclass(frozen=True, slots=True)
class Aside:
    """An item that was set aside."""

    number: int
    received_at: datetime
    kind: str
    key: str
    body: str
    reason: str


def cases_of(
    database: Database,
    caller: Caller,
    name: str,
    wanted: Filter,
    at: datetime,
    *,
    before: int | None = None,
    limit: int = 100,
) -> CasePage:
    """Return cases that fit, newest first.

    Args:
        database: where the rollout is.
        caller: who asks; of sites that they may not read nothing is given.
        name: of the rollout.
        wanted: which cases.
        at: now.
        before: where the page before ended.
        limit: how many at most; a page may hold fewer and yet go on.

    Raises:
        UnknownRollout: there is none that the caller may see.
        NotAllowed: the caller may not read cases.
    """
    require(caller, Act.EXPLAIN, name)
    with database.reading() as transaction:
        stood = standing(transaction, name)
        wanted = replace(wanted, sites=_sites(caller, stood, wanted.sites))
        page = _page(_Look(transaction, stood, caller, at), wanted, before, limit)
    _note(database, stood, caller, [one.key for one in page.items if one.differs is not None], at)
    return page


def _page(look: "_Look", wanted: Filter, before: int | None, limit: int) -> CasePage:
    """Look at cases until the page is full: what may not be shown, or only reads alike, is out."""
    store = CasePages(look.transaction, look.stood.rollout)
    told = wanted.differs or wanted.version is not None
    size = min(limit, AT_ONCE) if not told else AT_ONCE
    found: list[Listed] = []
    for _ in range(MOST_LOOKED_AT):
        rows = store.page(wanted, before=before, limit=size + 1)
        numbers = list(rows)[:size]
        for one in look.listed({number: rows[number] for number in numbers}):
            before = one.number
            if not told or (one.differs is not None and (one.differs or not wanted.differs)):
                found.append(one)
                if len(found) == limit:
                    return CasePage(found, one.number)
        if len(rows) <= size:
            return CasePage(found, None)
    return CasePage(found, before)


def _sites(
    caller: Caller, stood: Standing, wanted: Collection[str] | None
) -> Collection[str] | None:
    """Return the sites that are asked for and may be read; None is all there are."""
    name = stood.rollout.name
    if caller.may(Act.EXPLAIN, name):
        return wanted
    mine = {r.site for r in caller.rights if r.site and caller.may(Act.EXPLAIN, name, r.site)}
    return mine if wanted is None else mine & set(wanted)


def explain(database: Database, caller: Caller, name: str, key: str, at: datetime) -> Explained:
    """Return all that is known of one case: said, done, turned out, counted.

    Raises:
        UnknownCase: there is none of that key that the caller may see.
        UnknownRollout: there is none that the caller may see.
        NotAllowed: the caller may not read cases.
    """
    require(caller, Act.EXPLAIN, name)
    with database.reading() as transaction:
        stood = standing(transaction, name)
        found = _explained(_Look(transaction, stood, caller, at), key)
    if not found.hidden:
        _note(database, stood, caller, [key], at, page=CASE_PAGE)
    return found


def _explained(look: "_Look", key: str) -> Explained:
    store = CasePages(look.transaction, look.stood.rollout)
    number = CallerKeys(look.transaction, look.stood.rollout).find([key]).get(key)
    received = None if number is None else store.received_at(number)
    if number is None or received is None:
        raise UnknownCase(f"no case {key}; send it to `records` first")
    (case,) = look.listed({number: received})
    if not look.caller.may(Act.EXPLAIN, look.stood.rollout.name, case.site):
        raise UnknownCase(f"no case {key}; send it to `records` first")
    hidden = case.differs is None
    newest = Newest(look.transaction, look.stood.rollout)
    said = newest.decisions([number]).get(number, {}).values()
    counts = store.counts(number)
    return Explained(
        case=case,
        hidden=hidden,
        waits=_waits(look.stood.policy, case, counts, hidden=hidden),
        predictions=() if hidden else [*newest.predictions([number]).get(number, {}).values()],
        decisions=[d for d in said if not hidden or d.reviewer == look.caller.name],
        actions=() if hidden else store.actions(number, key),
        outcomes=() if hidden else store.outcomes(number, key),
        counted=() if hidden else [_counted(look.stood.policy, one) for one in counts],
    )


def _waits(policy: Policy, case: Listed, counts: Sequence[Count], *, hidden: bool) -> str:
    """Say what has yet to come before the case is settled; "" where nothing has."""
    if case.site not in policy.site:
        return f"{case.site} is no site of the policy: it is never evidence"
    if not hidden and any(count.track == "gate" for count in counts):
        return ""
    closes = f"closes {due_at(policy, case.occurred_at, case.received_at).isoformat()}"
    return closes if hidden or case.versions else f"no prediction yet; {closes}"


def _counted(policy: Policy, count: Count) -> Counted:
    return Counted(
        version=count.version,
        track=count.track,
        slot=instant(count.slot, policy.tick),
        site=count.site,
        window=count.window,
        attempt=count.attempt,
        definition=count.definition,
        lever=count.lever,
        predicted=count.predicted,
        decided=count.decided,
        reviewer=count.reviewer,
        excluded=count.excluded,
    )


def aside_of(
    database: Database, caller: Caller, name: str, at: datetime, *, after: int = 0, limit: int = 100
) -> Sequence[Aside]:
    """Return what was set aside, oldest first. Items name no site, so a right for all is needed.

    To a reviewer what was said of a case that is still open is kept back, and what was wrong in it.

    Raises:
        UnknownRollout: there is none that the caller may see.
        NotAllowed: the caller may not read all sites.
    """
    require(caller, Act.READ, name)
    if not caller.may(Act.READ, name):
        raise NotAllowed(f"{caller.name} reads some sites alone; what is set aside is of any: ask")
    with database.reading() as transaction:
        stood = standing(transaction, name)
        kept = SetAside(transaction, stood.rollout).after(after, limit=limit)
        about = {one.item.key for one in kept if one.item.kind not in OPEN_KINDS}
        hidden = hidden_from(transaction, stood, caller, about, at)
    shown = [o.item.key for o in kept if o.item.kind not in OPEN_KINDS and o.item.key not in hidden]
    _note(database, stood, caller, shown, at, page=ASIDE_PAGE)
    return [
        Aside(
            number=one.number,
            received_at=one.received_at,
            kind=one.item.kind,
            key=one.item.key,
            body="" if _kept_back(one.item, hidden) else one.item.body,
            reason=KEPT_BACK if _kept_back(one.item, hidden) else one.item.reason,
        )
        for one in kept
    ]


def _kept_back(item: Item, hidden: Collection[str]) -> bool:
    """Say whether an item is of a case that may be judged blind; its reason can quote it."""
    return item.kind not in OPEN_KINDS and item.key in hidden


def _note(
    database: Database,
    stood: Standing,
    caller: Caller,
    keys: Sequence[str],
    at: datetime,
    page: str = CASES_PAGE,
) -> None:
    """Note what a person is about to be shown; machines judge nothing."""
    if caller.machine or not keys:
        return
    with database.writing() as transaction:
        for what in (PREDICTION, VERDICTS):
            record_shown(transaction, stood, caller, keys, what=what, page=page, at=at)
        if hidden_from(transaction, stood, caller, keys, at):  # they took one meanwhile
            raise StaleRevision("you have just been given one of these cases; ask again")


@dataclass(frozen=True, slots=True)
class _Look:
    """A caller's look at the cases of a rollout, within one transaction."""

    transaction: Transaction
    stood: Standing
    caller: Caller
    at: datetime

    def listed(self, received: Mapping[int, datetime]) -> Sequence[Listed]:
        """Return cases as this caller may see them, in the order given."""
        newest = Newest(self.transaction, self.stood.rollout)
        cases = newest.cases(received)
        keys = [case.key for case in cases.values()]
        hidden = hidden_from(self.transaction, self.stood, self.caller, keys, self.at)
        said, decided = newest.predictions(received), newest.decisions(received)
        return [
            self._listed(
                number,
                cases[number],
                received[number],
                None if cases[number].key in hidden else said.get(number, {}),
                decided.get(number, {}),
            )
            for number in received
        ]

    def _listed(
        self,
        number: int,
        case: Case,
        received: datetime,
        said: Mapping[str, Prediction] | None,
        decided: Mapping[str, Decision],
    ) -> Listed:
        levers = self.stood.policy.levers
        return Listed(
            number=number,
            key=case.key,
            site=case.site,
            window=case.window,
            occurred_at=case.occurred_at,
            received_at=received,
            episode=case.episode,
            attributes=case.attributes,
            versions=() if said is None else sorted(said),
            differs=None if said is None else _differ(levers, said.values(), decided.values()),
        )


def _differ(
    levers: Sequence[Lever], said: Collection[Prediction], decided: Collection[Decision]
) -> bool:
    """Say whether a version and a person who was sure gave different answers on a lever."""
    return any(
        _differs(lever, model.answers.get(lever.id), person.answers.get(lever.id))
        for lever in levers
        for model in said
        for person in decided
        if not person.unsure
    )


def _differs(lever: Lever, model: str | None, person: str | None) -> bool:
    if person is None or model == person:
        return False
    if model is None or lever.number is None:
        return True
    try:
        theirs = float(person)
        return abs(float(model) - theirs) > lever.number.tolerance.at(theirs)
    except ValueError:
        return True


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
