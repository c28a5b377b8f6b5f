"""API keys, tokens as text, and the secret key that encrypts second factors.

API keys are shown once, listed without their secret, and revoked at once.

The secret key is in a file, so that a copy of the database is not enough. Every replica needs the
same file. It is created when the first user sets up a second factor.
"""

import base64
import binascii
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from rollout.data.access.tokens import ApiKey, ApiKeys, load_access_head
from rollout.data.access.users import Users
from rollout.data.database.rollouts import ACCESS_CHAIN
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.ledger.access_events import KeyCreated, KeyRevoked, OneTimeLinkCreated
from rollout.engine.ledger.ledger import parse_event
from rollout.features.access.access_state import open_access_change, require_self_or_admin
from rollout.features.access.users import KEY, record_reset
from rollout.kernel.errors import (
    InvalidAccountError,
    NotAllowedError,
    RefusalError,
    UnknownKeyError,
)

__all__ = [
    "KEY_BYTES",
    "KEY_MARK",
    "MAX_KEY_LIFETIME",
    "PREFIX_BYTES",
    "TOKEN_BYTES",
    "ApiKey",
    "CreatedKey",
    "create_key",
    "find_link_created_since",
    "load_access_revision",
    "load_keys",
    "measure_key_expiry",
    "parse_key",
    "read_token",
    "revoke_key",
    "write_token",
]

TOKEN_BYTES = 32
KEY_BYTES = 38
"""Random bytes in a key: 6 for its prefix, 32 for its secret."""
PREFIX_BYTES = 6
KEY_MARK = "ro"
USER_KEY_LIFETIME, SERVICE_ACCOUNT_KEY_LIFETIME = timedelta(days=90), timedelta(days=365)
MAX_KEY_LIFETIME = timedelta(days=730)


def load_access_revision(database: Database) -> int:
    """Return the access ledger's revision; 0 if it is empty."""
    with database.begin_read() as transaction:
        return load_access_head(transaction).revision or 0


def find_link_created_since(
    database: Database, caller: Caller, user_name: str, revision: int
) -> datetime | None:
    """Return when a user's last link was created, after a revision.

    Raises:
        NotAllowedError: the caller is no admin of all rollouts.
    """
    require_permission(caller, Permission.ADMINISTER, "")
    with database.begin_read() as transaction:
        if load_access_head(transaction).revision is None:
            return None
        ledger = Ledger(transaction, ACCESS_CHAIN)
        rows = ledger.list_rows(after=revision, kinds=(OneTimeLinkCreated.__name__,))
        link_events = [parse_event(row) for row in rows if row.fields["user"] == user_name]
    return link_events[-1].at if link_events else None


def write_token(token: bytes) -> str:
    """Return a token as text without padding.

    >>> write_token(b"ABC")
    'QUJD'
    """
    return base64.urlsafe_b64encode(token).decode().rstrip("=")


def read_token(text: str) -> bytes:
    """Return a token's bytes; empty for invalid text.

    >>> read_token("QUJD"), read_token("ä"), read_token("")
    (b'ABC', b'', b'')
    """
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except (UnicodeError, binascii.Error):
        return b""


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key with its text, which is shown only once."""

    holder: str
    prefix: str
    expires_at: datetime
    text: str = field(repr=False)


def create_key(
    database: Database,
    caller: Caller,
    holder: str,
    *,
    random_bytes: bytes,
    at: datetime,
    expires_at: datetime | None = None,
) -> CreatedKey:
    """Create a key: users for themselves, an admin for anyone.

    It expires after 90 days, for a service account after 365; `expires_at` may be up to 730 days
    ahead.

    Raises:
        NotAllowedError: the caller is another user and no admin.
        UnknownUserError: there is no such holder.
        InvalidAccountError: the holder is disabled, or the expiry is out of range.
    """
    require_self_or_admin(caller, holder, "make a key")
    if len(random_bytes) != KEY_BYTES:
        raise ValueError(f"a key needs {KEY_BYTES} bytes of entropy, not {len(random_bytes)}")
    prefix, secret = random_bytes[:PREFIX_BYTES].hex(), random_bytes[PREFIX_BYTES:].hex()
    with open_access_change(database, caller) as change:
        require_self_or_admin(change.caller, holder, "make a key")
        user, keys = change.get_user(holder), ApiKeys(change.transaction)
        if user.disabled_at is not None:
            raise InvalidAccountError(f"{holder} is disabled; enable the account first")
        end = _compute_expiry(at, expires_at, is_service_account=user.is_service_account)
        if keys.find(prefix) is not None:
            raise InvalidAccountError(f"another key has the random prefix {prefix}; try again")
        is_own = caller.name == holder
        factor = caller.second_factor if is_own else ""
        keys.add(user, prefix=prefix, secret=secret, at=at, expires_at=end, second_factor=factor)
        change.access_ledger.append(
            [KeyCreated(at=at, by=caller.name, user=holder, prefix=prefix, expires_at=end)]
        )
        if not is_own and not user.is_service_account and change.users.has_had_credential(user):
            record_reset(change.transaction, change.access_ledger, user, caller.name, KEY, at=at)
        return CreatedKey(holder, prefix, end, f"{KEY_MARK}_{prefix}_{secret}")


def load_keys(database: Database, caller: Caller, holder: str | None = None) -> tuple[ApiKey, ...]:
    """Return keys, oldest first; without holder an admin gets all.

    Raises:
        NotAllowedError: the holder is another user and the caller no admin.
    """
    require_permission(caller, Permission.IDENTIFY, "")
    if holder is None and not caller.has_permission(Permission.ADMINISTER, ""):
        holder = caller.name
    if holder not in {None, caller.name}:
        require_permission(caller, Permission.ADMINISTER, "")
    with database.begin_read() as transaction:
        if holder is None:
            return tuple(ApiKeys(transaction).list_all())
        user = Users(transaction).find(holder)
        return () if user is None else tuple(ApiKeys(transaction).list_for_user(user))


def measure_key_expiry(database: Database, caller: Caller, *, at: datetime) -> float | None:
    """Return the seconds until the first service account is without a valid key.

    Negative if one is; None if no service account has a key that ends.

    Raises:
        NotAllowedError: the caller may not read all rollouts.
    """
    require_permission(caller, Permission.READ, "")
    with database.begin_read() as transaction:
        end = ApiKeys(transaction).find_next_end()
    return None if end is None else (end - at).total_seconds()


def revoke_key(database: Database, caller: Caller, prefix: str, *, at: datetime) -> None:
    """Revoke one's own key, or any as admin; safe to repeat.

    Raises:
        UnknownKeyError: the caller sees no key with that prefix.
    """
    require_permission(caller, Permission.IDENTIFY, "")
    with open_access_change(database, caller) as change:
        keys = ApiKeys(change.transaction)
        key = keys.find(prefix)
        try:
            require_self_or_admin(change.caller, "" if key is None else key.holder, "revoke a key")
        except NotAllowedError:
            key = None
        if key is None:
            raise UnknownKeyError(
                f"{caller.name} has access to no key {prefix}; `rollout keys list` lists all"
            )
        if keys.revoke(prefix, at=at):
            change.access_ledger.append(
                [KeyRevoked(at=at, by=caller.name, user=key.holder, prefix=prefix)]
            )


def parse_key(text: str) -> tuple[str, str]:
    """Return prefix and secret of a key's text; both empty if invalid.

    >>> parse_key("ro_00ff_5ec4e7")
    ('00ff', '5ec4e7')
    """
    key_mark, _, rest = text.partition("_")
    prefix, _, secret = rest.partition("_")
    return (prefix, secret) if key_mark == KEY_MARK and prefix and secret else ("", "")


def _compute_expiry(
    at: datetime, requested_end: datetime | None, *, is_service_account: bool
) -> datetime:
    if requested_end is None:
        return at + (SERVICE_ACCOUNT_KEY_LIFETIME if is_service_account else USER_KEY_LIFETIME)
    if not at < requested_end <= at + MAX_KEY_LIFETIME:
        raise InvalidAccountError(
            f"a key expires in the future and within {MAX_KEY_LIFETIME.days} days: name a time up"
            f" to {at + MAX_KEY_LIFETIME:%Y-%m-%d}",
            field="expires_at",
        )
    return requested_end


KEY_LENGTH, NONCE_LENGTH = 32, 12  # bytes
DEFAULT_KEY_FILE = "rollout-secret.key"
SHARED_BITS = 0o077


class SecretKeyError(RefusalError):
    """The file of the secret key is missing, readable by others, or another one."""

    code = "secret-key"


class SecretKey:
    """Encrypts and decrypts small secrets with the key of a file."""

    def __init__(self, path: str, entropy: Callable[[int], bytes]) -> None:
        """Read nothing yet."""
        self._path, self._entropy = Path(path or DEFAULT_KEY_FILE), entropy

    def create(self) -> None:
        """Create the file for its owner alone, unless there is one.

        Raises:
            SecretKeyError: the file can't be written.
        """
        with suppress(FileExistsError):
            try:
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
                with os.fdopen(os.open(self._path, flags, 0o600), "w", encoding="ascii") as file:
                    file.write(self._entropy(KEY_LENGTH).hex() + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            except FileExistsError:
                raise
            except OSError as error:
                raise SecretKeyError(
                    f"{self._path} can't be written ({error.strerror}); name another file in"
                    " ROLLOUT_SECRET_KEY_FILE"
                ) from error

    def encrypt(self, secret: bytes, purpose: bytes) -> bytes:
        """Return a secret encrypted; only the same purpose decrypts it.

        Raises:
            SecretKeyError: there is no usable key.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = self._entropy(NONCE_LENGTH)
        return nonce + AESGCM(self._load()).encrypt(nonce, secret, purpose)

    def decrypt(self, encrypted: bytes, purpose: bytes) -> bytes:
        """Return what `encrypt` encrypted for this purpose.

        Raises:
            SecretKeyError: there is no usable key, or it was another key or purpose.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce, rest = encrypted[:NONCE_LENGTH], encrypted[NONCE_LENGTH:]
        try:
            return AESGCM(self._load()).decrypt(nonce, rest, purpose)
        except (InvalidTag, ValueError) as error:
            raise SecretKeyError(
                f"{self._path} is not the key that encrypted this; put the right file back, or"
                " have an admin reset the second factor"
            ) from error

    def _load(self) -> bytes:
        """Return the key; it is read at each use, so that a file put back works at once."""
        try:
            mode = self._path.stat().st_mode
            key = bytes.fromhex(self._path.read_text("ascii").strip())
        except OSError as error:
            raise SecretKeyError(
                f"{self._path} can't be read ({error.strerror}), and encrypts all second factors;"
                " put it back, or name it in ROLLOUT_SECRET_KEY_FILE"
            ) from error
        except ValueError:
            key = b""
        if mode & SHARED_BITS and os.name == "posix":
            raise SecretKeyError(f"others may read {self._path}; run `chmod 600 {self._path}`")
        if len(key) != KEY_LENGTH:
            raise SecretKeyError(f"{self._path} is no key of this service; put the right file back")
        return key
