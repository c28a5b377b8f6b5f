"""Who comes in: by a key, or by the session of a browser.

A replica holds everybody with their rights and keys in memory, and confirms that against the head
of the house chain: one short read at most every half second. So a request costs microseconds, and
whatever is revoked, disabled, taken or signed out anywhere holds here within that half second.
What is unknown here is asked for once more, so that a key opens the door as soon as it is made.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hmac import compare_digest
from threading import Lock
from typing import TypeVar

from rollout.core.errors import CrossSite, Unauthenticated
from rollout.core.rights import Caller, Right
from rollout.services.clock import Clock
from rollout.services.house import caller_of
from rollout.services.keys import parts
from rollout.services.tokens import read_token, write_token
from rollout.store.api_keys import ApiKeys, KeptKey, hash_of
from rollout.store.house import HouseHead, house_head
from rollout.store.ledger import Ledger
from rollout.store.people import People, Person
from rollout.store.rollouts import HOUSE_CHAIN
from rollout.store.session import Database, Transaction
from rollout.store.sessions import Session, Sessions, session_hash

STALE = 0.5
"""Seconds: the greatest age of what a replica knows of people, keys and sessions."""
NOTED = timedelta(minutes=1)
"""How often at most it is written when a key or session was used last."""
IDLE = timedelta(hours=2)
"""A session that nobody uses for so long is over."""
SESSIONS = 1_000  # that are held in memory
MANY = 200  # changed names from which on everybody is read anew
K = TypeVar("K")
NO_KEY = "this key is not valid; `rollout keys list` shows those that are, an admin makes another"
NO_SESSION = "nobody is signed in, or no longer; sign in again"
NO_CSRF = "the page's token is missing or of another session; load the page again"


@dataclass(frozen=True, slots=True)
class Register:
    """Everybody who may come in, as of one revision of the house chain."""

    head: HouseHead
    callers: Mapping[int, Caller]
    keys: Mapping[str, KeptKey] = field(repr=False)
    confirmed: float


@dataclass(frozen=True, slots=True)
class Seen:
    """A session as it was read, and when that was, in seconds since boot."""

    session: Session
    read: float


class Door:
    """One replica's door."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Read nothing yet."""
        self._database, self._clock = database, clock
        self._register: Register | None = None
        self._sessions: OrderedDict[bytes, Seen] = OrderedDict()
        self._lock = Lock()
        self._key_uses: dict[str, datetime] = {}
        self._session_uses: dict[bytes, datetime] = {}
        self._noted: datetime | None = None

    def at_hand(self, text: str, at: datetime) -> Caller | None:
        """Return whose key it is without asking the database; None where it has to be asked."""
        known = self._register
        return self._holder(known, text, at) if known is not None and self._fresh(known) else None

    def caller_of_key(self, text: str, at: datetime) -> Caller:
        """Return whose key it is.

        Raises:
            Unauthenticated: nobody's; unknown, expired, revoked and disabled are not told apart.
            StoreError: the database can't be asked; nothing older is believed instead.
        """
        began = self._clock.boot()
        found = self._holder(self._known(), text, at)
        found = found or self._holder(self._known(since=began), text, at)
        if found is None:
            raise Unauthenticated(NO_KEY)
        return found

    def caller_of_session(self, token: str, at: datetime, *, csrf: str | None = None) -> Caller:
        """Return who is signed in.

        Args:
            token: as the cookie holds it.
            at: now.
            csrf: the page's token, asked for by whatever changes something; None does not ask.

        Raises:
            Unauthenticated: nobody; unknown, expired, ended and disabled are not told apart.
            CrossSite: the page's token is not that of the session.
        """
        hashed, began = session_hash(read_token(token)), self._clock.boot()
        session = self._session(hashed)
        if session is None or self._over(hashed, session, at):
            raise Unauthenticated(NO_SESSION)
        caller = self._known().callers.get(session.person)
        caller = caller or self._known(since=began).callers.get(session.person)
        if caller is None:
            raise Unauthenticated(NO_SESSION)
        if csrf is not None and not compare_digest(read_token(csrf), session.csrf):
            raise CrossSite(NO_CSRF)
        self._session_uses[hashed] = at
        return caller

    def session_at_hand(self, token: str, at: datetime) -> Caller | None:
        """Return who is signed in without asking the database; None where it has to be asked.

        Args:
            token: as the cookie holds it.
            at: now.
        """
        hashed, known = session_hash(read_token(token)), self._register
        seen = self._sessions.get(hashed)
        if known is None or seen is None or not self._fresh(known):
            return None
        if not 0 <= self._clock.boot() - seen.read < STALE or self._over(hashed, seen.session, at):
            return None
        caller = known.callers.get(seen.session.person)
        if caller is not None:
            self._session_uses[hashed] = at
        return caller

    def page_token(self, token: str) -> str:
        """Return what the pages of a session bring back when they change something.

        Whether the session holds was asked by `caller_of_session`.

        Raises:
            Unauthenticated: there is no such session.
        """
        session = self._session(session_hash(read_token(token)))
        if session is None:
            raise Unauthenticated(NO_SESSION)
        return write_token(session.csrf)

    def check_page_token(self, token: str, page_token: str) -> None:
        """Go on only with the page's token of a session.

        Raises:
            Unauthenticated: there is no such session.
            CrossSite: the token is not its own.
        """
        own = read_token(self.page_token(token))
        if not compare_digest(read_token(page_token), own):
            raise CrossSite(NO_CSRF)

    def note_uses(self, at: datetime) -> bool:
        """Write when keys and sessions were used last; say no if that was done a minute ago.

        To be called now and then, beside the requests: none of them ever waits for it.
        """
        if self._noted is not None and at - self._noted < NOTED:
            return False
        keys, sessions = dict(self._key_uses), dict(self._session_uses)
        if keys or sessions:
            with self._database.writing() as transaction:
                ApiKeys(transaction).used(keys)
                Sessions(transaction).seen(sessions)
        self._noted = at
        _forget(self._key_uses, keys)
        _forget(self._session_uses, sessions)
        return True

    def _holder(self, known: Register, text: str, at: datetime) -> Caller | None:
        prefix, secret = parts(text)
        key = known.keys.get(prefix)
        same = compare_digest(hash_of(secret), b"" if key is None else key.hash)
        if key is None or not same or (key.expires_at is not None and key.expires_at <= at):
            return None
        caller = known.callers[key.person]
        self._key_uses[prefix] = at
        return caller

    def _fresh(self, known: Register, since: float | None = None) -> bool:
        if since is not None:
            return known.confirmed > since
        return 0 <= self._clock.boot() - known.confirmed < STALE

    def _known(self, since: float | None = None) -> Register:
        """Return what was confirmed lately, or since an instant of the boot clock."""
        known = self._register
        if known is not None and self._fresh(known, since):
            return known
        with self._lock:
            known = self._register
            if known is not None and self._fresh(known, since):
                return known
            self._register = self._confirmed(known)
            return self._register

    def _confirmed(self, known: Register | None) -> Register:
        began = self._clock.boot()  # before the read: what is read is at least as new
        with self._database.reading() as transaction:
            head = house_head(transaction)
            if known is not None and head == known.head:
                return replace(known, confirmed=began)
            newer = None if known is None else _after(transaction, known, head, began)
            return newer or _everybody(transaction, head, began)

    def _session(self, hashed: bytes) -> Session | None:
        seen = self._sessions.get(hashed)
        began = self._clock.boot()
        if seen is not None and 0 <= began - seen.read < STALE:
            return seen.session
        with self._database.reading() as transaction:
            found = Sessions(transaction).find(hashed)
        if found is None:  # not kept: whoever makes tokens up must not crowd out the others
            return None
        with self._lock:
            self._sessions[hashed] = Seen(found, began)
            self._sessions.move_to_end(hashed)
            while len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
        return found

    def _over(self, hashed: bytes, session: Session, at: datetime) -> bool:
        seen = max(session.seen_at, self._session_uses.get(hashed, session.seen_at))
        return at >= session.expires_at or at - seen >= IDLE


def _everybody(transaction: Transaction, head: HouseHead, began: float) -> Register:
    people = People(transaction)
    callers = _callers(people.all(), people.all_rights(), head)
    keys = {key.prefix: key for key in ApiKeys(transaction).open()}
    return Register(head, callers, keys, began)


def _after(
    transaction: Transaction, known: Register, head: HouseHead, began: float
) -> Register | None:
    """Return what is known with those whom the chain names since then read anew.

    None where that is no help: they are many, or the chain is not that of before.
    """
    rows = list(Ledger(transaction, HOUSE_CHAIN).rows(after=known.head.revision or 0))
    names = {str(row.fields["user"]) for row in rows}
    if not rows or rows[0].previous != known.head.hash or len(names) > MANY:
        return None
    people = People(transaction)
    changed = people.named(names)
    numbers = {person.number for person in changed}
    callers = {n: replace(c, house=head.revision) for n, c in known.callers.items()}
    callers = {n: caller for n, caller in callers.items() if n not in numbers}
    keys = {prefix: key for prefix, key in known.keys.items() if key.person not in numbers}
    newer = _callers(changed, people.all_rights(numbers), head)
    opened = {key.prefix: key for key in ApiKeys(transaction).open(numbers)}
    return Register(head, callers | newer, keys | opened, began)


def _callers(
    people: Iterable[Person], rights: Mapping[int, Sequence[Right]], head: HouseHead
) -> dict[int, Caller]:
    return {
        p.number: caller_of(p, tuple(rights.get(p.number, ())), head.revision)
        for p in people
        if p.disabled_at is None
    }


def _forget(uses: dict[K, datetime], written: Mapping[K, datetime]) -> None:
    for name, at in written.items():
        if uses.get(name) == at:
            del uses[name]
