"""People sign in: by password, by a one-time link, or by an identity provider's word.

Each way ends in a session. Passwords are kept by argon2 with its own parameters, and anew when
these change; an unknown name costs the same work as a known one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from rollout.core.access.access_events import IdentityLinked, PasswordSet
from rollout.core.errors import NotAllowed, PersonRefused, TooManyTries, Unauthenticated
from rollout.core.scope.permissions import Caller
from rollout.services.access.access_state import Changing, changing, require_own
from rollout.services.access.keys import SIZE, read_token, write_token
from rollout.services.access.login_throttle import Tries
from rollout.services.access.users import found_house
from rollout.services.support.clock import Clock
from rollout.store.access.access_ledger import House
from rollout.store.access.one_time_links import OneTimeLinks
from rollout.store.access.sessions import Sessions, session_hash
from rollout.store.access.users import People, Person
from rollout.store.database.session import Database, Transaction

SHORTEST, LONGEST = 12, 256  # letters of a password
LASTS = timedelta(hours=12)
"""A session is over then, however much it is used."""
AT_ONCE = 2
"""Passwords hashed at a time: each takes 64 MiB."""
IN_LINE = 6
"""Of them and those who wait for a turn: more are refused, for each holds one of the threads
that a stop needs too."""
WRONG = "the name or the password is wrong, or they may not sign in; ask an admin for a link"
NO_LINK = "this link is not valid: it works once, for a day; ask an admin for another"
NO_SESSION = "nobody is signed in by a session; `POST /v1/session` begins one"
NO_IDENTITY = "the identity provider names nobody who is known here; ask an admin to add you"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session that began: its token for the cookie, and the page's token, both this once."""

    name: str
    token: str = field(repr=False)
    csrf: str = field(repr=False)
    expires_at: datetime


class SigningIn:
    """One replica's ways in; failures are counted in its memory."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Callable[[int], bytes],
        hasher: PasswordHasher | None = None,
    ) -> None:
        """Hash nothing yet."""
        self._database, self._clock, self._entropy = database, clock, entropy
        self._hasher = PasswordHasher() if hasher is None else hasher
        self._names, self._addresses = Tries(free=5), Tries(free=20)
        self._turns, self._line = BoundedSemaphore(AT_ONCE), BoundedSemaphore(IN_LINE)

    def by_password(self, name: str, password: str, *, address: str, at: datetime) -> SignedIn:
        """Begin a session for who gives their password.

        Raises:
            Unauthenticated: name or password is wrong, or they may not; it is not said which.
            TooManyTries: this name or address failed too often lately; says how long to wait.
        """
        with self._counted(name, address):
            user, stored_hash = self._kept(name)
            if not self._right(stored_hash, password) or user is None:
                raise Unauthenticated(WRONG)
        new_hash = None
        if stored_hash is not None and self._hasher.check_needs_rehash(stored_hash):
            new_hash = self._hashed(password)
        with self._database.writing() as transaction:
            House(transaction)
            if self._password(transaction, name) != stored_hash:
                raise Unauthenticated(WRONG)
            if new_hash is not None:
                People(transaction).set_password(user, new_hash)
            return self._started(transaction, user, at)

    def by_link(
        self, token: str, password: str, *, at: datetime, address: str, name: str = ""
    ) -> SignedIn:
        """Use a one-time link up: set the password of its person, and begin a session.

        Args:
            token: the link's.
            password: of 12 letters or more.
            at: now.
            address: where the try comes from.
            name: of the first admin; of other links nobody asks for it.

        Raises:
            Unauthenticated: the link is unknown, used or over.
            PersonRefused: the password or the first admin's name can't be; the link stays valid.
            TooManyTries: this address failed too often lately.
        """
        with self._counted("", address):
            password_hash = self._hashed(_long_enough(password, name))
            return self._linked(token, name, password, password_hash, at)

    def _linked(self, token: str, name: str, password: str, hashed: str, at: datetime) -> SignedIn:
        with self._database.writing() as transaction:
            access_ledger = House(transaction)
            is_valid, user = OneTimeLinks(transaction).use(token, at=at)
            if not is_valid:
                raise Unauthenticated(NO_LINK)
            users = People(transaction)
            if user is None:
                access_ledger.append(found_house(transaction, name, at))
                user = users.find(name)
                assert user is not None  # noqa: S101 - the line before added them
            _long_enough(password, user.name)
            _set(transaction, access_ledger, user, user.name, hashed, at)
            return self._started(transaction, user, at)

    def by_identity(self, issuer: str, subject: str, email: str, *, at: datetime) -> SignedIn:
        """Begin a session for whom an identity provider vouches.

        The first time they are known by a verified e-mail address, and linked to the subject;
        from then on by the subject alone. Nobody is added and no right is given.

        Args:
            issuer: the provider.
            subject: how it calls them, always the same.
            email: an address that it has verified; "" where it has not.
            at: now.

        Raises:
            Unauthenticated: it is nobody who may sign in here.
        """
        with self._database.writing() as transaction:
            access_ledger, users = House(transaction), People(transaction)
            user = users.of_identity(issuer, subject)
            if user is None and email:
                user = users.of_email(email)
                if user is None or not users.link(user, issuer, subject, at=at):
                    raise Unauthenticated(NO_IDENTITY)
                link_event = IdentityLinked(at=at, by=user.name, user=user.name, issuer=issuer)
                access_ledger.append([link_event])
            if user is None or user.machine or user.disabled_at is not None:
                raise Unauthenticated(NO_IDENTITY)
            return self._started(transaction, user, at)

    def set_password(
        self,
        caller: Caller,
        name: str,
        password: str,
        *,
        at: datetime,
        current: str | None = None,
        vouched: bool = False,
    ) -> None:
        """Set a password; every session and link of that person ends.

        Args:
            caller: who asks: the person, or an admin.
            name: whose password.
            password: of 12 letters or more.
            at: now.
            current: the present password, asked of who sets their own and has one.
            vouched: it is not asked: by a command on the database itself.

        Raises:
            NotAllowed: the caller may not, or the present password is wrong.
            UnknownPerson: nobody has the name.
            PersonRefused: the password can't be, or nobody signs in under that name.
            TooManyTries: the present password was wrong too often lately.
        """
        require_own(caller, name, "set the password")
        password_hash = self._hashed(_long_enough(password, name))
        if caller.name == name and not vouched:
            self._require_current(name, current or "")
        with changing(self._database, caller) as change:
            require_own(change.caller, name, "set the password")
            user = _who_signs_in(change, name)
            _set(change.transaction, change.house, user, caller.name, password_hash, at)

    def current(self, token: str) -> SignedIn:
        """Return the session of a token with the page's token: a page was loaded again.

        Whether it has expired was asked at the door.

        Raises:
            Unauthenticated: there is none, or it ended.
        """
        with self._database.reading() as transaction:
            session = Sessions(transaction).find(session_hash(read_token(token)))
            if session is None:
                raise Unauthenticated(NO_SESSION)
            user_name = People(transaction).numbered(session.person).name
        return SignedIn(user_name, token, write_token(session.csrf), session.expires_at)

    def sign_out(self, token: str, *, at: datetime) -> None:
        """End a session; one that is over stays so."""
        with self._database.writing() as transaction:
            Sessions(transaction).end(session_hash(read_token(token)), at=at)

    def sign_out_everywhere(self, caller: Caller, name: str, *, at: datetime) -> None:
        """End every session of a person: one's own, or as an admin anybody's.

        Raises:
            NotAllowed: it is somebody else, and the caller is no admin.
            UnknownPerson: nobody has the name.
        """
        require_own(caller, name, "end the sessions")
        with changing(self._database, caller) as change:
            require_own(change.caller, name, "end the sessions")
            Sessions(change.transaction).end_all(change.person(name), at=at)

    @contextmanager
    def _counted(self, name: str, address: str) -> Iterator[None]:
        """Let a try begin only if it need not wait, and count it if it fails."""
        now = self._clock.boot()
        throttles = [(t, k) for t, k in ((self._names, name), (self._addresses, address)) if k]
        for throttle, throttle_key in throttles:
            throttle.require(throttle_key, now=now)
        try:
            yield
        except (Unauthenticated, NotAllowed):
            for throttle, throttle_key in throttles:
                throttle.failed(throttle_key, now=now)
            raise
        self._names.passed(name)

    def _require_current(self, name: str, current: str) -> None:
        stored_hash = self._kept(name)[1]
        with self._counted(name, ""):
            if stored_hash is not None and not self._right(stored_hash, current):
                raise NotAllowed("the present password is wrong; an admin can make a link")

    def _kept(self, name: str) -> tuple[Person | None, str | None]:
        with self._database.reading() as transaction:
            return People(transaction).find(name), self._password(transaction, name)

    def _password(self, transaction: Transaction, name: str) -> str | None:
        users = People(transaction)
        user = users.find(name)
        return None if user is None or user.machine else users.password(user)

    def _right(self, kept: str | None, password: str) -> bool:
        """Compare, with the same work where there is nothing to compare with."""
        dummy_hash = self._nobodys  # made by the first try, whoever's it is
        with self._turn(), suppress(VerificationError, InvalidHashError):
            self._hasher.verify(kept or dummy_hash, password[: LONGEST + 1])
            return kept is not None
        return False

    @cached_property
    def _nobodys(self) -> str:
        return self._hashed(write_token(self._entropy(SIZE)))

    def _hashed(self, password: str) -> str:
        with self._turn():
            return self._hasher.hash(password)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._line.acquire(blocking=False):
            raise TooManyTries("too many sign in at once; try again in a few seconds")
        try:
            with self._turns:
                yield
        finally:
            self._line.release()

    def _started(self, transaction: Transaction, person: Person, at: datetime) -> SignedIn:
        token, csrf, expires_at = self._entropy(SIZE), self._entropy(SIZE), at + LASTS
        Sessions(transaction).start(person, token, csrf, at=at, expires_at=expires_at)
        return SignedIn(person.name, write_token(token), write_token(csrf), expires_at)


def _long_enough(password: str, name: str) -> str:
    if not SHORTEST <= len(password) <= LONGEST:
        raise PersonRefused(f"a password has {SHORTEST} to {LONGEST} letters; a sentence is fine")
    if name and name.lower() in password.lower() and len(password) < len(name) + SHORTEST:
        raise PersonRefused("a password is more than one's name")
    return password


def _who_signs_in(change: Changing, name: str) -> Person:
    user = change.person(name)
    if user.machine or user.disabled_at is not None:
        raise PersonRefused(f"{name} is a service account or disabled, and can't sign in")
    return user


def _set(
    transaction: Transaction, house: House, person: Person, by: str, hashed: str, at: datetime
) -> None:
    People(transaction).set_password(person, hashed)
    Sessions(transaction).end_all(person, at=at)
    OneTimeLinks(transaction).end(person, at=at)
    house.append([PasswordSet(at=at, by=by, user=person.name)])
