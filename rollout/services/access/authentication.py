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
from rollout.core.scope.permissions import Caller, Right
from rollout.services.access.access_state import caller_of
from rollout.services.access.keys import parts, read_token, write_token
from rollout.services.support.clock import Clock
from rollout.store.access.access_ledger import HouseHead, house_head
from rollout.store.access.api_keys import ApiKeys, KeptKey, hash_of
from rollout.store.access.sessions import Session, Sessions, session_hash
from rollout.store.access.users import People, Person
from rollout.store.database.rollouts import HOUSE_CHAIN
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Ledger

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
        register = self._register
        return (
            self._holder(register, text, at)
            if register is not None and self._fresh(register)
            else None
        )

    def caller_of_key(self, text: str, at: datetime) -> Caller:
        """Return whose key it is.

        Raises:
            Unauthenticated: nobody's; unknown, expired, revoked and disabled are not told apart.
            StoreError: the database can't be asked; nothing older is believed instead.
        """
        started_at = self._clock.boot()
        caller = self._holder(self._known(), text, at)
        caller = caller or self._holder(self._known(since=started_at), text, at)
        if caller is None:
            raise Unauthenticated(NO_KEY)
        return caller

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
        token_hash, started_at = session_hash(read_token(token)), self._clock.boot()
        session = self._session(token_hash)
        if session is None or self._over(token_hash, session, at):
            raise Unauthenticated(NO_SESSION)
        caller = self._known().callers.get(session.person)
        caller = caller or self._known(since=started_at).callers.get(session.person)
        if caller is None:
            raise Unauthenticated(NO_SESSION)
        if csrf is not None and not compare_digest(read_token(csrf), session.csrf):
            raise CrossSite(NO_CSRF)
        self._session_uses[token_hash] = at
        return caller

    def session_at_hand(self, token: str, at: datetime) -> Caller | None:
        """Return who is signed in without asking the database; None where it has to be asked.

        Args:
            token: as the cookie holds it.
            at: now.
        """
        token_hash, register = session_hash(read_token(token)), self._register
        cached_session = self._sessions.get(token_hash)
        if register is None or cached_session is None or not self._fresh(register):
            return None
        if not 0 <= self._clock.boot() - cached_session.read < STALE or self._over(
            token_hash, cached_session.session, at
        ):
            return None
        caller = register.callers.get(cached_session.session.person)
        if caller is not None:
            self._session_uses[token_hash] = at
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
        session_token = read_token(self.page_token(token))
        if not compare_digest(read_token(page_token), session_token):
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
        is_same_hash = compare_digest(hash_of(secret), b"" if key is None else key.hash)
        if key is None or not is_same_hash or (key.expires_at is not None and key.expires_at <= at):
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
        register = self._register
        if register is not None and self._fresh(register, since):
            return register
        with self._lock:
            register = self._register
            if register is not None and self._fresh(register, since):
                return register
            self._register = self._confirmed(register)
            return self._register

    def _confirmed(self, known: Register | None) -> Register:
        started_at = self._clock.boot()  # before the read: what is read is at least as new
        with self._database.reading() as transaction:
            head = house_head(transaction)
            if known is not None and head == known.head:
                return replace(known, confirmed=started_at)
            updated_register = (
                None if known is None else _after(transaction, known, head, started_at)
            )
            return updated_register or _everybody(transaction, head, started_at)

    def _session(self, hashed: bytes) -> Session | None:
        cached_session = self._sessions.get(hashed)
        started_at = self._clock.boot()
        if cached_session is not None and 0 <= started_at - cached_session.read < STALE:
            return cached_session.session
        with self._database.reading() as transaction:
            session = Sessions(transaction).find(hashed)
        if session is None:  # not kept: whoever makes tokens up must not crowd out the others
            return None
        with self._lock:
            self._sessions[hashed] = Seen(session, started_at)
            self._sessions.move_to_end(hashed)
            while len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
        return session

    def _over(self, hashed: bytes, session: Session, at: datetime) -> bool:
        last_used_at = max(session.seen_at, self._session_uses.get(hashed, session.seen_at))
        return at >= session.expires_at or at - last_used_at >= IDLE


def _everybody(transaction: Transaction, head: HouseHead, began: float) -> Register:
    users = People(transaction)
    callers = _callers(users.all(), users.all_rights(), head)
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
    users = People(transaction)
    changed_users = users.named(names)
    changed_ids = {user.number for user in changed_users}
    callers = {number: replace(c, house=head.revision) for number, c in known.callers.items()}
    callers = {number: caller for number, caller in callers.items() if number not in changed_ids}
    keys = {prefix: key for prefix, key in known.keys.items() if key.person not in changed_ids}
    changed_callers = _callers(changed_users, users.all_rights(changed_ids), head)
    open_keys = {key.prefix: key for key in ApiKeys(transaction).open(changed_ids)}
    return Register(head, callers | changed_callers, keys | open_keys, began)


def _callers(
    people: Iterable[Person], rights: Mapping[int, Sequence[Right]], head: HouseHead
) -> dict[int, Caller]:
    return {
        user.number: caller_of(user, tuple(rights.get(user.number, ())), head.revision)
        for user in people
        if user.disabled_at is None
    }


def _forget(uses: dict[K, datetime], written: Mapping[K, datetime]) -> None:
    for use_key, at in written.items():
        if uses.get(use_key) == at:
            del uses[use_key]
