"""How accounts sign in (keys, sessions, links, resets), secrets of permits, and the access ledger.

API keys of users and service accounts are shown once, stored as a hash, and named by a prefix. The
caller makes the secret from the operating system's random source. It is long, so a plain SHA-256
can't be searched. Passwords are hashed with argon2 instead.

Sessions of users: a random token that only the browser has, stored as a hash.

One-time links: with one a user sets the first password, or the first admin signs up.

The secrets that sign permits are the same for all replicas, and two of them are valid.

The access ledger: one writer at a time changes users, permissions and keys. It has digests of how
an account signs in, so single edits are found. A digest is salted by its account, since an e-mail
address could be guessed. Erasing the account deletes the salt.
"""

import hmac
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from rollout.data.access.users import StoredUser, Users
from rollout.data.database.append_failures import ACCESS
from rollout.data.database.bulk import insert_once
from rollout.data.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.data.database.session import Repository, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.tables.tables import (
    api_keys,
    credential_resets,
    identities,
    ledger_heads,
    one_time_links,
    permit_keys,
    recovery_codes,
    second_factors,
    sessions,
    sign_in_addresses,
    users,
)
from rollout.engine.ledger.access_events import AccessEvent
from rollout.engine.ledger.ledger import to_canonical_json
from rollout.kernel.calendar.instants import to_micros

MIN_SECRET_LENGTH = 32  # letters: 128 bits in hexadecimal


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as lists show it, without its secret."""

    holder: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as authentication compares it, with its secret's hash."""

    user_id: int
    prefix: str
    hash: bytes = field(repr=False)
    expires_at: datetime | None
    second_factor: str = ""


class ApiKeys(Repository):
    """The API keys of all accounts."""

    def add(
        self,
        user: StoredUser,
        *,
        prefix: str,
        secret: str,
        at: datetime,
        expires_at: datetime | None = None,
        second_factor: str = "",
    ) -> None:
        """Store the hash of a new key.

        `second_factor` is the kind that its own user gave in the session that creates it.

        Raises:
            ValueError: the secret is too short.
            IntegrityError: the prefix exists already; make another.
        """
        if len(secret) < MIN_SECRET_LENGTH:
            raise ValueError(f"a secret needs {MIN_SECRET_LENGTH} letters or more")
        row = {
            "user_id": user.number,
            "prefix": prefix,
            "hash": hash_secret(secret),
            "created_at": at,
            "expires_at": expires_at,
            "second_factor": second_factor or None,
        }
        self._transaction.execute(insert(api_keys).values(row))

    def list_open(self, user_ids: Collection[int] | None = None) -> Sequence[StoredKey]:
        """Return the unrevoked keys of enabled accounts.

        Expired keys are included: the caller compares the time.
        """
        query = (
            select(api_keys)
            .join(users, api_keys.c.user_id == users.c.id)
            .where(api_keys.c.revoked_at.is_(None), users.c.disabled_at.is_(None))
        )
        if user_ids is not None:
            query = query.where(api_keys.c.user_id.in_(user_ids))
        return [
            StoredKey(row.user_id, row.prefix, row.hash, row.expires_at, row.second_factor or "")
            for row in self._transaction.execute(query)
        ]

    def find_next_end(self) -> datetime | None:
        """Return when the first service account is without a valid key.

        That of an enabled account whose last unrevoked key ended counts, too; None if no key of
        one ends.
        """
        last_end = func.max(api_keys.c.expires_at)
        query = (
            select(last_end)
            .join(users, api_keys.c.user_id == users.c.id)
            .where(
                api_keys.c.revoked_at.is_(None),
                users.c.disabled_at.is_(None),
                users.c.service_account.is_(True),
            )
            .group_by(api_keys.c.user_id)
            .having(func.count() == func.count(api_keys.c.expires_at))  # none without an end
            .order_by(last_end)
            .limit(1)
        )
        end: datetime | None = self._transaction.execute(query).scalar()
        return end

    def record_uses(self, uses: Mapping[str, datetime]) -> None:
        """Store when each key, by prefix, was last used."""
        for prefix, at in uses.items():
            statement = update(api_keys).where(api_keys.c.prefix == prefix)
            self._transaction.execute(statement.values(last_used_at=at))

    def revoke(self, prefix: str, *, at: datetime) -> bool:
        """Revoke a key; return False if it was revoked before."""
        return self._revoke(api_keys.c.prefix == prefix, at) > 0

    def revoke_all(self, user: StoredUser, *, at: datetime) -> None:
        """Revoke all keys of a user."""
        self._revoke(api_keys.c.user_id == user.number, at)

    def _revoke(self, condition: ColumnElement[bool], at: datetime) -> int:
        statement = update(api_keys).where(condition, api_keys.c.revoked_at.is_(None))
        return self._transaction.execute(statement.values(revoked_at=at)).rowcount

    def find(self, prefix: str) -> ApiKey | None:
        """Return the key with this prefix, or None."""
        return next(iter(self._load_keys(_select_keys().where(api_keys.c.prefix == prefix))), None)

    def list_all(self) -> Sequence[ApiKey]:
        """Return the keys of all accounts, oldest first."""
        return self._load_keys(_select_keys())

    def list_for_user(self, user: StoredUser) -> Sequence[ApiKey]:
        """Return the keys of a user, oldest first."""
        return self._load_keys(_select_keys().where(api_keys.c.user_id == user.number))

    def _load_keys(self, query: Select[Any]) -> list[ApiKey]:
        return [
            ApiKey(
                holder=row.holder,
                prefix=row.prefix,
                created_at=row.created_at,
                expires_at=row.expires_at,
                revoked_at=row.revoked_at,
                last_used_at=row.last_used_at,
            )
            for row in self._transaction.execute(query.order_by(api_keys.c.id))
        ]


def hash_secret(secret: str) -> bytes:
    """Return the hash under which a secret is stored."""
    return sha256(secret.encode()).digest()


def _select_keys() -> Select[Any]:
    return select(api_keys, users.c.name.label("holder")).join(
        users, users.c.id == api_keys.c.user_id
    )


MAX_ADDRESSES_PER_USER = 50


class SignInAddresses(Repository):
    """The addresses of all users, the newest of each."""

    def has(self, user: StoredUser, address: str) -> bool:
        """Return whether the user signed in from an address before."""
        query = select(sign_in_addresses.c.used_at).where(
            sign_in_addresses.c.user_id == user.number,
            sign_in_addresses.c.hash == _hash_address(user, address),
        )
        return self._transaction.execute(query).first() is not None

    def add(self, user: StoredUser, address: str, *, at: datetime) -> None:
        """Store an address, and delete the user's oldest ones above the limit."""
        row = {"user_id": user.number, "hash": _hash_address(user, address), "used_at": at}
        is_new = insert_once(self._transaction, sign_in_addresses, row)
        if not is_new:
            return
        is_own = sign_in_addresses.c.user_id == user.number
        query = select(sign_in_addresses.c.hash).where(is_own)
        newest_first = query.order_by(sign_in_addresses.c.used_at.desc())
        hashes = self._transaction.execute(newest_first.offset(MAX_ADDRESSES_PER_USER)).scalars()
        old = sign_in_addresses.c.hash.in_(list(hashes))
        self._transaction.execute(delete(sign_in_addresses).where(is_own, old))


def _hash_address(user: StoredUser, address: str) -> bytes:
    """Return the hash of an address, unlike that of another user's same address."""
    return sha256(f"{user.number} {address}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Session:
    """A session that was not ended; the caller compares its expiry."""

    user_id: int
    csrf: bytes = field(repr=False)
    expires_at: datetime
    seen_at: datetime
    second_factor: str = ""


class Sessions(Repository):
    """The sessions of all users, by the hash of their token."""

    def start(
        self,
        user: StoredUser,
        token: bytes,
        csrf: bytes,
        *,
        at: datetime,
        expires_at: datetime,
        second_factor: str = "",
    ) -> None:
        """Store a new session and delete the user's old ones.

        `second_factor` is the kind that was given, "" for none.
        """
        is_over = or_(sessions.c.expires_at <= at, sessions.c.ended_at.is_not(None))
        self._transaction.execute(
            delete(sessions).where(sessions.c.user_id == user.number, is_over)
        )
        row = {
            "user_id": user.number,
            "hash": hash_session_token(token),
            "csrf": csrf,
            "created_at": at,
            "expires_at": expires_at,
            "last_used_at": at,
            "second_factor": second_factor or None,
        }
        self._transaction.execute(insert(sessions).values(row))

    def find(self, hashed: bytes) -> Session | None:
        """Return the session with this token hash, unless ended."""
        query = select(sessions).where(sessions.c.hash == hashed, sessions.c.ended_at.is_(None))
        return self._transaction.find(
            query,
            lambda row: Session(
                row.user_id,
                row.csrf,
                row.expires_at,
                row.last_used_at or row.created_at,
                row.second_factor or "",
            ),
        )

    def list_open(self, hashes: Iterable[bytes]) -> set[bytes]:
        """Return those of some token hashes whose sessions were not ended."""
        query = select(sessions.c.hash).where(
            sessions.c.hash.in_(list(hashes)), sessions.c.ended_at.is_(None)
        )
        return set(self._transaction.execute(query).scalars())

    def set_second_factor(self, hashed: bytes, kind: str) -> None:
        """Store the kind of second factor that was given during a session."""
        statement = update(sessions).where(sessions.c.hash == hashed)
        self._transaction.execute(statement.values(second_factor=kind))

    def record_uses(self, uses: Mapping[bytes, datetime]) -> None:
        """Store when each session, by token hash, was last used."""
        for hashed, at in uses.items():
            statement = update(sessions).where(sessions.c.hash == hashed)
            self._transaction.execute(statement.values(last_used_at=at))

    def end(self, hashed: bytes, *, at: datetime) -> None:
        """End a session; an ended one keeps its first end time."""
        self._end(sessions.c.hash == hashed, at)

    def end_all(self, user: StoredUser, *, at: datetime) -> None:
        """End all sessions of a user."""
        self._end(sessions.c.user_id == user.number, at)

    def end_others(self, user: StoredUser, hashed: bytes, *, at: datetime) -> None:
        """End all sessions of a user but the one with this token hash."""
        self._end((sessions.c.user_id == user.number) & (sessions.c.hash != hashed), at)

    def _end(self, condition: ColumnElement[bool], at: datetime) -> None:
        statement = update(sessions).where(condition, sessions.c.ended_at.is_(None))
        self._transaction.execute(statement.values(ended_at=at))


def hash_session_token(token: bytes) -> bytes:
    """Return the hash under which a token is stored.

    The token is random and long, so a plain hash can't be searched.
    """
    return sha256(token).digest()


@dataclass(frozen=True, slots=True)
class CredentialReset:
    """A reset; `reset_by` is the number of the user who made it, 0 if unknown."""

    user_id: int
    reset_by: int
    credential: str
    reset_at: datetime


class CredentialResets(Repository):
    """All resets since they are recorded."""

    def add(
        self, user: StoredUser, by: StoredUser | None, credential: str, *, at: datetime
    ) -> None:
        """Store a reset of a user's credential."""
        row = {
            "user_id": user.number,
            "reset_by": 0 if by is None else by.number,
            "credential": credential,
            "reset_at": at,
        }
        self._transaction.execute(insert(credential_resets).values(row))

    def list_all(self) -> Sequence[CredentialReset]:
        """Return all resets, oldest first."""
        query = select(credential_resets).order_by(credential_resets.c.id)
        return [
            CredentialReset(row.user_id, row.reset_by, row.credential, row.reset_at)
            for row in self._transaction.execute(query)
        ]


class OneTimeLinks(Repository):
    """The one-time links, stored by the hash of their secret."""

    def add(
        self,
        user: StoredUser | None,
        secret: str,
        *,
        at: datetime,
        expires_at: datetime,
        by: StoredUser | None = None,
    ) -> None:
        """Store a link's hash and creator; without a user it is the first admin's."""
        row = {
            "user_id": None if user is None else user.number,
            "hash": hash_secret(secret),
            "created_at": at,
            "expires_at": expires_at,
            "created_by": None if by is None else by.number,
        }
        self._transaction.execute(insert(one_time_links).values(row))

    def find_valid(self, secret: str, *, at: datetime) -> tuple[bool, StoredUser | None]:
        """Return whether a link is valid now, and its user, without using it."""
        query = select(one_time_links.c.user_id).where(
            one_time_links.c.hash == hash_secret(secret),
            one_time_links.c.used_at.is_(None),
            one_time_links.c.expires_at > at,
        )
        row = self._transaction.execute(query).one_or_none()
        return row is not None, self._find_user(row and row.user_id)

    def find_creator(self, secret: str) -> StoredUser | None:
        """Return the admin who created a link, or None if unknown."""
        query = select(one_time_links.c.created_by).where(
            one_time_links.c.hash == hash_secret(secret)
        )
        return self._find_user(self._transaction.execute(query).scalar())

    def redeem(self, secret: str, *, at: datetime) -> tuple[bool, StoredUser | None]:
        """Use a link: return whether it was valid, and its user.

        The user is None for the first admin's link. Of concurrent calls exactly one succeeds.
        """
        is_link = one_time_links.c.hash == hash_secret(secret)
        is_valid = (one_time_links.c.used_at.is_(None), one_time_links.c.expires_at > at)
        statement = update(one_time_links).where(is_link, *is_valid)
        if not self._transaction.execute(statement.values(used_at=at)).rowcount:
            return False, None
        query = select(one_time_links.c.user_id).where(is_link)
        return True, self._find_user(self._transaction.execute(query).scalar())

    def _find_user(self, user_id: int | None) -> StoredUser | None:
        return None if user_id is None else Users(self._transaction).get_by_id(user_id)

    def end_links(self, user: StoredUser, *, at: datetime) -> None:
        """End a user's open links, and those of first admins."""
        user_id = one_time_links.c.user_id
        statement = update(one_time_links).where(
            or_(user_id == user.number, user_id.is_(None)), one_time_links.c.used_at.is_(None)
        )
        self._transaction.execute(statement.values(used_at=at))


def compute_link_digest(link_hash: bytes, expires_at: int) -> str:
    """Return the digest of a link; its secret is random, so no salt is needed."""
    return sha256(b"%s %d" % (link_hash, expires_at)).hexdigest()


VALID_KEYS = 2


@dataclass(frozen=True, slots=True)
class PermitKey:
    """A signing secret, and the number by which permits name it."""

    number: int
    secret: bytes = field(repr=False)


class PermitKeys(Repository):
    """The signing keys of one database."""

    def list_valid(self) -> Sequence[PermitKey]:
        """Return the valid keys, newest first; the first one signs new permits."""
        query = select(permit_keys).order_by(permit_keys.c.id.desc()).limit(VALID_KEYS)
        return [PermitKey(row.id, row.secret) for row in self._transaction.execute(query)]

    def rotate(self, secret: bytes, *, at: datetime) -> None:
        """Add a new signing key; the previous one stays valid."""
        self._transaction.execute(insert(permit_keys).values(secret=secret, created_at=at))


@dataclass(frozen=True, slots=True)
class AccessLedgerHead:
    """Revision and hash of the newest entry of the access ledger."""

    revision: int | None
    hash: str


class AccessLedger:
    """The access ledger, locked until the writing transaction ends."""

    def __init__(self, transaction: Transaction) -> None:
        """Lock the head, so that later reads see the latest state."""
        Rollouts(transaction).open_access_ledger()
        self._transaction, self._ledger = transaction, Ledger(transaction, ACCESS_CHAIN)
        lock_query = select(ledger_heads.c.revision).where(
            ledger_heads.c.rollout == ACCESS_CHAIN.number
        )
        self.revision: int = transaction.execute(lock_query.with_for_update()).scalar_one()
        transaction.tally.announce(ACCESS_CHAIN.name, ACCESS)  # accounts are changed before it

    def append(self, events: Iterable[AccessEvent]) -> int:
        """Append the transaction's events and return the new revision.

        The last event about an account gets the digest of its credentials as they are now.
        """
        self.revision += len(self._ledger.append(self._add_digests(events), after=self.revision))
        return self.revision

    def _add_digests(self, events: Iterable[AccessEvent]) -> list[AccessEvent]:

        all_events = list(events)
        last_places = {event.account: place for place, event in enumerate(all_events)}
        for account, place in last_places.items():
            if account is not None:
                digest = compute_digest(self._transaction, account)
                all_events[place] = all_events[place].add_credentials(digest)
        return all_events


def load_access_head(transaction: Transaction) -> AccessLedgerHead:
    """Return the head of the access ledger; None revision if empty."""
    query = select(ledger_heads).where(ledger_heads.c.rollout == ACCESS_CHAIN.number)
    row = transaction.execute(query).one_or_none()
    return (
        AccessLedgerHead(None, "")
        if row is None
        else AccessLedgerHead(row.revision or None, row.hash)
    )


DOMAIN = "rollout-credentials-1\n"
COLUMNS: tuple[tuple[Table, tuple[str, ...], ColumnElement[bool] | None], ...] = (
    (api_keys, ("prefix", "hash", "expires_at", "second_factor"), api_keys.c.revoked_at.is_(None)),
    (identities, ("issuer", "subject"), None),
    (second_factors, ("secret",), second_factors.c.confirmed_at.is_not(None)),
    (recovery_codes, ("hash",), recovery_codes.c.used_at.is_(None)),
)
"""What an account signs in with, besides password and address: table, columns, valid rows."""


def compute_digest(transaction: Transaction, user_name: str) -> str:
    """Return the digest of an account's credentials now; "" if there is none or it is erased."""
    user = transaction.execute(select(users).where(users.c.name == user_name)).one_or_none()
    if user is None or user.salt is None:
        return ""
    values: dict[str, Any] = {
        "email": user.email,
        "password": user.password,
        "first_credential_at": _to_plain(user.first_credential_at),
    }
    for table, names, is_valid in COLUMNS:
        query = select(*(table.c[name] for name in names)).where(table.c.user_id == user.id)
        rows = transaction.execute(query if is_valid is None else query.where(is_valid))
        values[table.name] = sorted([_to_plain(value) for value in row] for row in rows)
    text = DOMAIN + to_canonical_json(values)
    return hmac.digest(user.salt, text.encode(), "sha256").hex()


def list_open_links(transaction: Transaction) -> list[tuple[str, str]]:
    """Return the user, "" for none, and the digest of each link that was not used."""
    query = (
        select(one_time_links.c.hash, one_time_links.c.expires_at, users.c.name)
        .join(users, users.c.id == one_time_links.c.user_id, isouter=True)
        .where(one_time_links.c.used_at.is_(None))
    )
    return [
        (row.name or "", compute_link_digest(row.hash, to_micros(row.expires_at)))
        for row in transaction.execute(query)
    ]


def _to_plain(value: Any) -> Any:
    """Return a column's value for canonical JSON; null as "", so that rows can be sorted."""
    match value:
        case None:
            return ""
        case bytes():
            return value.hex()
        case str():
            return value
        case _:
            return to_micros(value)
