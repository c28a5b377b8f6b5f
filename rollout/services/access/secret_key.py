"""The key that encrypts second factors: in a file, so that a copy of the database is not enough.

Every replica needs the same file. It is created when the first user sets up a second factor.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rollout.core.errors import RefusalError

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
