"""Forms kept for a user whose session ended: sealed text that only the browser's page holds.

The seal says whose form it is, and opens for that user alone. Its key follows from the permit key,
which all replicas share, so any of them can open it.
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import new as hmac_new
from typing import Final

from rollout.services.access.keys import read_token, write_token
from rollout.store.access.sessions import Sessions
from rollout.store.access.users import Users
from rollout.store.database.session import Database

FORM_LIFETIME: Final = timedelta(minutes=15)
"""Time for which a form is kept."""
NONCE_LENGTH: Final = 12  # bytes
PURPOSE: Final = b"kept form"


@dataclass(frozen=True, slots=True)
class KeptForm:
    """A form that a user sent without a session.

    Attributes:
        action: the path to which it was sent.
        page: the path of its page, with the query.
        fields: its fields; a repeated name has several values.
    """

    action: str
    page: str
    fields: Mapping[str, list[str]]


def seal_form(
    database: Database,
    secret: bytes,
    nonce: bytes,
    page_token: str,
    form: KeptForm,
    *,
    at: datetime,
) -> str:
    """Return a form sealed for its user, "" if the page token is of no session.

    The token names the session, which may be over: its cookie may be gone. `secret` is that of
    the newest permit key, `nonce` has `NONCE_LENGTH` random bytes.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    with database.begin_read() as transaction:
        user_id = Sessions(transaction).find_user_id(read_token(page_token))
        if user_id is None:
            return ""
        user_name = Users(transaction).get_by_id(user_id).name
    expires_at = (at + FORM_LIFETIME).timestamp()
    content = [user_name, expires_at, form.action, form.page, dict(form.fields)]
    packed = zlib.compress(json.dumps(content).encode())
    return write_token(nonce + AESGCM(_derive_key(secret)).encrypt(nonce, packed, PURPOSE))


def open_form(
    secrets: Iterable[bytes], sealed: str, user_name: str, *, at: datetime
) -> KeptForm | None:
    """Return a sealed form, or None if it is another user's, too old or no seal.

    `secrets` are those of the valid permit keys.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    sealed_bytes = read_token(sealed)
    nonce, rest = sealed_bytes[:NONCE_LENGTH], sealed_bytes[NONCE_LENGTH:]
    for secret in secrets:
        try:
            packed = AESGCM(_derive_key(secret)).decrypt(nonce, rest, PURPOSE)
        except (InvalidTag, ValueError):
            continue
        owner, expires_at, action, page, fields = json.loads(zlib.decompress(packed))
        is_valid = owner == user_name and at.timestamp() < expires_at
        return KeptForm(action, page, fields) if is_valid else None
    return None


def _derive_key(secret: bytes) -> bytes:
    return hmac_new(secret, PURPOSE, sha256).digest()
