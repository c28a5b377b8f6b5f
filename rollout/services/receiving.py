"""Keep what callers send: each item once, each answered, each queued for when it is counted.

A batch is one transaction: records, due queue, reviews, what is set aside and the incidents that
follow are there together or not at all. Asking again is safe by the callers' keys.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime

from rollout.core.commands import OpenIncident
from rollout.core.events import UNAUTHORIZED, Event
from rollout.core.evolve import fold
from rollout.core.places import Cell
from rollout.core.records import Case, Decision, Heartbeat, Outcome, Prediction
from rollout.core.reviewing import ASSISTED, exposure
from rollout.core.rights import Act, Caller, require
from rollout.core.sent import (
    CASES,
    DECISIONS,
    LIGHT,
    PREDICTIONS,
    AnyCase,
    AnyRecord,
    SentDecision,
    case_of,
)
from rollout.formats.live_items import Acted, Reader, Sent, Unusable
from rollout.services.acted_before import judged_again
from rollout.services.commanding import Asked, decided
from rollout.services.heard_versions import told_of
from rollout.services.notes import Notes
from rollout.services.permission import (
    UNPERMITTED,
    Judgement,
    Known,
    Permission,
    known_by_key,
    standing_now,
)
from rollout.services.queueing import queue
from rollout.services.retrying import retried
from rollout.services.seating import answered_elsewhere, open_reviews
from rollout.services.service import Service
from rollout.services.standing import Standing, standing
from rollout.services.windows import LiveWindows
from rollout.store.caller_keys import CallerKeys
from rollout.store.ledger import Ledger
from rollout.store.records import Answer, Kept, Verdict, item_of
from rollout.store.records import Records as Store
from rollout.store.session import Transaction
from rollout.store.set_aside import Item, SetAside
from rollout.store.touched import Touched

AT_ONCE = 3_000  # items in one transaction: a stop waits for no more than that

RECORDS = (*LIGHT, Case, Prediction, Decision, Outcome)  # first those of which most are
Placed = tuple[int, AnyRecord]


def reader(service: Service, name: str, at: datetime) -> Reader:
    """Return what reads the items of a rollout: its windows, and the present.

    Raises:
        NoSuchRolloutError: there is no such rollout.
    """
    return Reader(LiveWindows(service.watch.rollout(name).standing.policy).at, at)


def receive(
    service: Service, caller: Caller, name: str, sent: Sequence[Sent], at: datetime
) -> list[Answer]:
    """Keep items and answer each, in their order.

    One bad item takes nothing from its neighbours. What can't be used is set aside with its
    reason. Items are kept in transactions of `AT_ONCE`: if one can't be done, those before it are
    kept, and sending all again answers them `duplicate`.

    Args:
        service: the replica.
        caller: who sends; where their right is for some sites, items of other sites are rejected.
        name: of the rollout.
        sent: as `reader` has read them.
        at: now.

    Raises:
        NotAllowed: the caller may send nothing here.
        UnknownRollout: there is none that the caller may see.
        StoreError: the database can't do it.
    """
    require(caller, Act.RECORD, name)
    answers: list[Answer] = []
    for start in range(0, len(sent), AT_ONCE):
        answers += _receive(service, caller, name, sent[start : start + AT_ONCE], at)
    return answers


def _receive(
    service: Service, caller: Caller, name: str, sent: Sequence[Sent], at: datetime
) -> list[Answer]:
    stood = service.watch.rollout(name).standing

    def keep() -> list[Answer]:
        with service.database.writing() as transaction:
            return _Batch(transaction, stood, service, caller, at).keep(sent)

    return retried(keep)


def keep_asked(
    transaction: Transaction,
    stood: Standing,
    cases: Sequence[Case],
    predictions: Sequence[Prediction],
    at: datetime,
) -> tuple[Answer, ...]:
    """Keep cases that were asked about, with the predictions that the assignments went with.

    Asking again changes nothing: the first assignment stays on the prediction. Versions are told
    by whoever asks.

    Args:
        transaction: the writing one; whoever opened it commits.
        stood: the rollout's standing that was answered from.
        cases: with their windows.
        predictions: with the assignment that was given.
        at: now.

    Returns:
        What became of each case, then of each prediction.

    Raises:
        StaleRevision: an incident had to be told, and the rollout moved on meanwhile.
    """
    records: tuple[AnyRecord, ...] = (*cases, *predictions)
    kept = Store(transaction, stood.rollout).keep(records, received_at=at)
    queue(transaction, stood, kept, at)
    open_reviews(transaction, stood, cases, at)
    if wrong := judged_again(transaction, stood, kept):
        _open_incidents(transaction, stood, wrong, at)
    return kept.answers


class _Batch:
    """One transaction's items, on their way to their answers."""

    def __init__(
        self,
        transaction: Transaction,
        stood: Standing,
        service: Service,
        caller: Caller,
        at: datetime,
    ) -> None:
        self._transaction = transaction
        self._stood = stood
        self._service = service
        self._caller = caller
        self._at = at
        self._answers: dict[int, Answer] = {}
        self._aside: list[Item] = []
        self._unsure: set[str] = set()

    def keep(self, sent: Sequence[Sent]) -> list[Answer]:
        """Keep what can be kept, and answer each item."""
        acted: list[tuple[int, Acted]] = []
        heard: list[tuple[int, Heartbeat]] = []
        records: list[Placed] = [
            (place, item) for place, item in enumerate(sent) if isinstance(item, RECORDS)
        ]
        for place, item in enumerate(sent) if len(records) < len(sent) else ():
            match item:
                case Acted():
                    acted.append((place, item))
                case Heartbeat():
                    heard.append((place, item))
                case Unusable():
                    self._reject(place, Item(item.kind, item.key, item.body, item.reason))
        records = self._within_rights(records, acted, heard)
        records = self._of_known_versions(records)
        records = self._as_exposed(records)
        judged = self._judged(records, [(p, a) for p, a in acted if p not in self._answers])
        records += [(place, judgement.action) for place, judgement in judged]
        kept = self._keep(records)
        self._hear([(p, h) for p, h in heard if p not in self._answers])
        SetAside(self._transaction, self._stood.rollout).add(self._aside, received_at=self._at)
        self._tell_of(judged, kept)
        return [self._answers[place] for place in range(len(sent))]

    def _reject(self, place: int, item: Item) -> None:
        self._answers[place] = Answer(Verdict.REJECTED, item.reason)
        self._aside.append(item)

    # Who may send it

    def _within_rights(
        self,
        records: list[Placed],
        acted: Iterable[tuple[int, Acted]],
        heard: Iterable[tuple[int, Heartbeat]],
    ) -> list[Placed]:
        """Reject what is about sites that the caller has no right to send from."""
        name = self._stood.rollout.name
        if self._caller.may(Act.RECORD, name):
            return records
        about = [*records, *((place, item.action) for place, item in acted)]
        sites = self._sites([record for _, record in about])
        for place, record in about:
            if fault := self._forbidden(sites[record.key]):
                self._reject(place, item_of(record, fault))
        for place, heartbeat in heard:
            if fault := self._forbidden({heartbeat.site}):
                self._reject(place, Item("heartbeat", heartbeat.site, str(heartbeat), fault))
        return self._left(records)

    def _forbidden(self, sites: Collection[str]) -> str:
        if not sites:
            return "its case is not known, so neither is its site; send the case first or with it"
        name = self._stood.rollout.name
        other = sorted(site for site in sites if not self._caller.may(Act.RECORD, name, site))
        return f"{self._caller.name} may not send records of {', '.join(other)}" if other else ""

    def _sites(self, records: Iterable[AnyRecord]) -> Mapping[str, set[str]]:
        found: dict[str, set[str]] = {record.key: set() for record in records}
        for record in records:
            if isinstance(record, CASES):
                found[record.key].add(record.site)
        numbers = CallerKeys(self._transaction, self._stood.rollout).find(found)
        stored = Touched(self._transaction, self._stood.rollout).sites(numbers.values())
        for key, number in numbers.items():
            found[key] |= stored.get(number, set())
        return found

    # What it says

    def _of_known_versions(self, records: list[Placed]) -> list[Placed]:
        """Tell of versions that are new; where too many are open, reject what they said."""
        said = [record for _, record in records]
        refused = told_of(self._transaction, self._service.database, self._stood, said, self._at)
        for place, record in records if refused else ():
            if isinstance(record, PREDICTIONS) and record.version in refused:
                self._reject(place, item_of(record, refused[record.version]))
        return self._left(records)

    def _left(self, records: list[Placed]) -> list[Placed]:
        """Return those that nothing was answered yet."""
        if not self._answers:
            return records
        return [(place, record) for place, record in records if place not in self._answers]

    def _as_exposed(self, records: list[Placed]) -> list[Placed]:
        """Give each decision the exposure that holds: what was shown here makes a claim worse."""
        judged = any(isinstance(record, DECISIONS) for _, record in records)
        store = Touched(self._transaction, self._stood.rollout)
        if not judged or not store.anything_shown():
            return records
        keys = {record.key for _, record in records if isinstance(record, DECISIONS)}
        numbers = CallerKeys(self._transaction, self._stood.rollout).find(keys)
        shown = store.shown(numbers.values())

        def exposed(record: AnyRecord) -> AnyRecord:
            if not isinstance(record, DECISIONS) or record.key not in numbers:
                return record
            told = shown.get((numbers[record.key], record.reviewer), ())
            holds = exposure(ASSISTED, told, record.claims)
            if isinstance(record, SentDecision):
                return record._replace(exposure=holds)
            return replace(record, exposure=holds)

        return [(place, exposed(record)) for place, record in records]

    def _judged(
        self, records: Iterable[Placed], acted: Sequence[tuple[int, Acted]]
    ) -> list[tuple[int, Judgement]]:
        """Say of each action what permission it had."""
        if not acted:
            return []
        keys, said = {a.action.key for _, a in acted}, [record for _, record in records]
        known = known_by_key(self._transaction, self._stood.rollout, keys, said)
        told = Counter(record.key for record in said if isinstance(record, CASES))
        # somebody may tell of it before this is kept; of several revisions any may be refused
        self._unsure = {key for key in keys if key not in known or told[key] > 1}
        stood = standing_now(self._transaction, self._stood)
        permission = Permission(self._transaction, stood, self._service.permits)
        return [
            (place, permission.judge(item.action, item.permit, known.get(item.action.key)))
            for place, item in acted
        ]

    # What is written

    def _keep(self, placed: Sequence[Placed]) -> Kept:
        places, records = zip(*placed, strict=True) if placed else ((), ())
        kept = Store(self._transaction, self._stood.rollout).keep(records, received_at=self._at)
        answers = Notes(self._stood.policy).answers(records, kept)
        self._answers.update(zip(places, answers, strict=True))
        queue(self._transaction, self._stood, kept, self._at)
        self._seat(records, kept)
        return kept

    def _seat(self, records: Sequence[AnyRecord], kept: Kept) -> None:
        """Ask people about new cases, save those that came with all the verdicts they need."""
        unseen = {"blind", "unknown"} if self._stood.policy.evidence.outside_blind else {"blind"}
        sites, needed = self._stood.policy.site, self._stood.policy.evidence.verdicts
        judged = list(kept.told(Decision, "exposure"))
        blind = Counter(number for number, exposure in judged if exposure in unseen)
        cases = {number for number, site in kept.told(Case, "site") if site in sites}
        asked = {number for number in cases if blind[number] < needed or number not in kept.new}
        if asked:
            self._ask(asked, records, kept)
        late = {number for number, _ in judged} - cases
        if late:
            answered_elsewhere(self._transaction, self._stood, late, self._at)

    def _ask(self, asked: AbstractSet[int], records: Sequence[AnyRecord], kept: Kept) -> None:
        sites, numbers = self._stood.policy.site, kept.case_ids
        of: dict[int, AnyCase] = {}
        for record, answer in zip(records, kept.answers, strict=True):
            if answer.verdict is Verdict.ACCEPTED and isinstance(record, CASES):
                number = numbers[record.key]
                if number in asked and record.site in sites:
                    of[number] = record
        cases = [case_of(case) for case in of.values()]
        open_reviews(self._transaction, self._stood, cases, self._at)

    def _hear(self, heard: Iterable[tuple[int, Heartbeat]]) -> None:
        store = Store(self._transaction, self._stood.rollout)
        for place, heartbeat in heard:
            self._answers[place] = store.hear(heartbeat, received_at=self._at)

    def _tell_of(self, judged: Iterable[tuple[int, Judgement]], kept: Kept) -> None:
        """Open an incident for each case on which the model acted without permission."""
        wrong: list[Judgement] = []
        for place, judgement in judged:
            answer, action = self._answers[place], judgement.action
            if answer.verdict is Verdict.ACCEPTED and action.permission == UNPERMITTED:
                self._answers[place] = Answer(Verdict.ACCEPTED, f"unpermitted: {judgement.why}")
                wrong.append(judgement)
        wrong += judged_again(self._transaction, self._stood, kept, self._unsure)
        if wrong:
            _open_incidents(self._transaction, self._stood, wrong, self._at)


def _open_incidents(
    transaction: Transaction, stood: Standing, wrong: Sequence[Judgement], at: datetime
) -> None:
    """Open them all in one append: who lies thousands of times holds up no stop."""
    known = known_by_key(transaction, stood.rollout, {judgement.action.key for judgement in wrong})
    now, events = standing(transaction, stood.rollout.name), list[Event]()
    after = now.scope.revision
    for judgement in wrong:
        incident = _incident(judgement, known.get(judgement.action.key), stood, at)
        opened = decided(now, _asking(incident))
        events += opened
        now = replace(now, scope=fold(opened, now.scope)) if opened else now
    Ledger(transaction, now.rollout).append(events, after=after)


def _incident(
    judgement: Judgement, known: Known | None, stood: Standing, at: datetime
) -> OpenIncident:
    """Say what is wrong and not what was done: who may still judge the case reads it too."""
    action = judgement.action
    cell = None if known is None else Cell(known.case.site, known.case.window)
    return OpenIncident(
        at=at,
        kind=UNAUTHORIZED,
        reason=f"{action.version} acted on {action.key}: {judgement.why}",
        cell=cell if cell in stood.policy.known else None,
        version=action.version or "",
        about=action.key,
    )


def _asking(incident: OpenIncident) -> Asked:
    return lambda _: incident
