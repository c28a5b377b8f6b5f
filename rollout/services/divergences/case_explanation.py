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
        state = standing(transaction, name)
        wanted = replace(wanted, sites=_sites(caller, state, wanted.sites))
        page = _page(_Look(transaction, state, caller, at), wanted, before, limit)
    _note(
        database, state, caller, [case.key for case in page.items if case.differs is not None], at
    )
    return page


def _page(look: "_Look", wanted: Filter, before: int | None, limit: int) -> CasePage:
    """Look at cases until the page is full: what may not be shown, or only reads alike, is out."""
    store = CasePages(look.transaction, look.stood.rollout)
    uses_predictions = wanted.differs or wanted.version is not None
    batch_size = min(limit, AT_ONCE) if not uses_predictions else AT_ONCE
    cases: list[Listed] = []
    for _ in range(MOST_LOOKED_AT):
        rows = store.page(wanted, before=before, limit=batch_size + 1)
        case_ids = list(rows)[:batch_size]
        for case in look.listed({case_id: rows[case_id] for case_id in case_ids}):
            before = case.number
            if not uses_predictions or (
                case.differs is not None and (case.differs or not wanted.differs)
            ):
                cases.append(case)
                if len(cases) == limit:
                    return CasePage(cases, case.number)
        if len(rows) <= batch_size:
            return CasePage(cases, None)
    return CasePage(cases, before)


def _sites(
    caller: Caller, stood: Standing, wanted: Collection[str] | None
) -> Collection[str] | None:
    """Return the sites that are asked for and may be read; None is all there are."""
    rollout_name = stood.rollout.name
    if caller.may(Act.EXPLAIN, rollout_name):
        return wanted
    readable_sites = {
        role_assignment.site
        for role_assignment in caller.rights
        if role_assignment.site and caller.may(Act.EXPLAIN, rollout_name, role_assignment.site)
    }
    return readable_sites if wanted is None else readable_sites & set(wanted)


def explain(database: Database, caller: Caller, name: str, key: str, at: datetime) -> Explained:
    """Return all that is known of one case: said, done, turned out, counted.

    Raises:
        UnknownCase: there is none of that key that the caller may see.
        UnknownRollout: there is none that the caller may see.
        NotAllowed: the caller may not read cases.
    """
    require(caller, Act.EXPLAIN, name)
    with database.reading() as transaction:
        state = standing(transaction, name)
        case_details = _explained(_Look(transaction, state, caller, at), key)
    if not case_details.hidden:
        _note(database, state, caller, [key], at, page=CASE_PAGE)
    return case_details


def _explained(look: "_Look", key: str) -> Explained:
    store = CasePages(look.transaction, look.stood.rollout)
    case_id = CallerKeys(look.transaction, look.stood.rollout).find([key]).get(key)
    received_at = None if case_id is None else store.received_at(case_id)
    if case_id is None or received_at is None:
        raise UnknownCase(f"no case {key}; send it to `records` first")
    (case,) = look.listed({case_id: received_at})
    if not look.caller.may(Act.EXPLAIN, look.stood.rollout.name, case.site):
        raise UnknownCase(f"no case {key}; send it to `records` first")
    is_hidden = case.differs is None
    newest = Newest(look.transaction, look.stood.rollout)
    decisions = newest.decisions([case_id]).get(case_id, {}).values()
    counts = store.counts(case_id)
    return Explained(
        case=case,
        hidden=is_hidden,
        waits=_waits(look.stood.policy, case, counts, hidden=is_hidden),
        predictions=() if is_hidden else [*newest.predictions([case_id]).get(case_id, {}).values()],
        decisions=[
            decision
            for decision in decisions
            if not is_hidden or decision.reviewer == look.caller.name
        ],
        actions=() if is_hidden else store.actions(case_id, key),
        outcomes=() if is_hidden else store.outcomes(case_id, key),
        counted=() if is_hidden else [_counted(look.stood.policy, count) for count in counts],
    )


def _waits(policy: Policy, case: Listed, counts: Sequence[Count], *, hidden: bool) -> str:
    """Say what has yet to come before the case is settled; "" where nothing has."""
    if case.site not in policy.site:
        return f"{case.site} is no site of the policy: it is never evidence"
    if not hidden and any(count.track == "gate" for count in counts):
        return ""
    closing_text = f"closes {due_at(policy, case.occurred_at, case.received_at).isoformat()}"
    return closing_text if hidden or case.versions else f"no prediction yet; {closing_text}"


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
        state = standing(transaction, name)
        rejected_records = SetAside(transaction, state.rollout).after(after, limit=limit)
        case_keys = {
            record.item.key for record in rejected_records if record.item.kind not in OPEN_KINDS
        }
        hidden_keys = hidden_from(transaction, state, caller, case_keys, at)
    shown_keys = [
        o.item.key
        for o in rejected_records
        if o.item.kind not in OPEN_KINDS and o.item.key not in hidden_keys
    ]
    _note(database, state, caller, shown_keys, at, page=ASIDE_PAGE)
    return [
        Aside(
            number=record.number,
            received_at=record.received_at,
            kind=record.item.kind,
            key=record.item.key,
            body="" if _kept_back(record.item, hidden_keys) else record.item.body,
            reason=KEPT_BACK if _kept_back(record.item, hidden_keys) else record.item.reason,
        )
        for record in rejected_records
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
        for content in (PREDICTION, VERDICTS):
            record_shown(transaction, stood, caller, keys, what=content, page=page, at=at)
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
        hidden_keys = hidden_from(self.transaction, self.stood, self.caller, keys, self.at)
        predictions, decisions = newest.predictions(received), newest.decisions(received)
        return [
            self._listed(
                case_id,
                cases[case_id],
                received[case_id],
                None if cases[case_id].key in hidden_keys else predictions.get(case_id, {}),
                decisions.get(case_id, {}),
            )
            for case_id in received
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
        _differs(lever, prediction.answers.get(lever.id), decision.answers.get(lever.id))
        for lever in levers
        for prediction in said
        for decision in decided
        if not decision.unsure
    )


def _differs(lever: Lever, model: str | None, person: str | None) -> bool:
    if person is None or model == person:
        return False
    if model is None or lever.number is None:
        return True
    try:
        human_number = float(person)
        return abs(float(model) - human_number) > lever.number.tolerance.at(human_number)
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
    case_details = explain(database, caller, name, key, at)
    with database.reading() as transaction:
        state = standing(transaction, name)
        case_id = CallerKeys(transaction, state.rollout).find([key])[key]
        case = Newest(transaction, state.rollout).cases([case_id])[case_id]
        closes_at = due_at(state.policy, case.occurred_at, case_details.case.received_at)
        is_visible = not case_details.hidden
        return Story(
            explained=case_details,
            zone=state.policy.zone_of(case.site),
            closes=closes_at,
            media=case.media,
            ruling=_ruling(transaction, state, case_details, case, closes_at, at)
            if is_visible
            else None,
            choices=_choices(transaction, state, case_id, at) if is_visible else (),
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
    recorded_revision = _revision(explained)
    revision = (
        ledger.revision_at(case.occurred_at) if recorded_revision is None else recorded_revision
    )
    scope = ledger.scope_of(min(revision, stood.scope.revision))
    policy = _policy(transaction, stood, scope)
    if policy is None or case.site not in policy.site:
        return None
    acting_grant = acting(scope, policy, Cell(case.site, case.window), case.occurred_at)
    version = "" if acting_grant is None else acting_grant[0]
    prediction = {item.version: item for item in explained.predictions}.get(version)
    question = Question(
        site=case.site,
        at=case.occurred_at,
        version=version or "-",  # in shadow whichever is asked about is not the one that acts
        key=case.key,
        episode=case.episode or "",
        confidence=None if prediction is None else prediction.confidence,
        attributes=case.attributes,
    )
    assignment = assign(scope, policy, stood.rollout.salt, question, now=case.occurred_at)
    return Ruling(
        revision=revision,
        recorded=recorded_revision is not None,
        version=version,
        stage=assignment.stage,
        decider=assignment.decider,
        exposure=assignment.exposure,
        audited=assignment.audited,
        share=assignment.share,
        drawn=draws_of(policy, stood.rollout.salt, case)[0] if closes <= at else None,
        because=assignment.because,
    )


def _revision(explained: Explained) -> int | None:
    """Return the revision that an answer or a permit brought back, None where none did."""
    action_revisions = (record.scope_revision for record in explained.actions)
    prediction_revisions = (record.scope_revision for record in explained.predictions)
    return next(
        (record for record in (*action_revisions, *prediction_revisions) if record is not None),
        None,
    )


def _policy(transaction: Transaction, stood: Standing, scope: Scope) -> Policy | None:
    """Return the policy that was in force, None before the first."""
    if scope.policy_hash == stood.scope.policy_hash:
        return stood.policy
    if not scope.policy_hash:
        return None
    texts = Policies(transaction, stood.rollout).texts({scope.policy_hash})
    return kept_policy(texts[scope.policy_hash])
