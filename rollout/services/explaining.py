"""Cases for people and machines: pages of them, and one explained.

Whoever may judge a case that is still open is shown nothing of what versions, and others, said of
it: not in a page, not by a filter, not in what was done or counted. What is shown to a person is
noted before it leaves.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from rollout.core.errors import NotAllowed, StaleRevision
from rollout.core.levers import Lever
from rollout.core.policy import Policy
from rollout.core.records import Action, Case, Decision, Outcome, Prediction
from rollout.core.reviewing import PREDICTION, VERDICTS, UnknownCase, due_at
from rollout.core.rights import Act, Caller, require
from rollout.services.showing import hidden_from, record_shown
from rollout.services.standing import Standing, standing
from rollout.store.caller_keys import CallerKeys
from rollout.store.case_pages import CasePages, Count, Filter
from rollout.store.newest import Newest
from rollout.store.session import Database, Transaction
from rollout.store.set_aside import Item, SetAside
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
