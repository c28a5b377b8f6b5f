"""The key that signs checkpoints: Ed25519, in a file outside the database."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rollout.core.ledger.checkpoints import Checkpoint, CheckpointError

KEY_LENGTH = 32  # bytes, of either key
SHARED_BITS = 0o077


def create_signing_key(path: Path) -> str:
    """Create a private key that only its owner can read; return the public key in hex.

    Raises:
        CheckpointError: the file exists or can't be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key.private_bytes_raw().hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise CheckpointError(f"{path} exists; name a new file, or keep this key") from error
    except OSError as error:
        raise CheckpointError(f"{path} can't be written: {error.strerror}") from error
    return key.public_key().public_bytes_raw().hex()


class CheckpointSigner:
    """Signs checkpoints with the key of a file."""

    def __init__(self, path: Path) -> None:
        """Read the key.

        Raises:
            CheckpointError: the file can't be read, others can read it, or it holds no key.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        try:
            is_shared = path.stat().st_mode & SHARED_BITS
            key = bytes.fromhex(path.read_text("ascii").strip())
        except OSError as error:
            raise CheckpointError(
                f"{path} can't be read ({error.strerror}); `rollout ledger create-key {path}`"
                " creates a key"
            ) from error
        except ValueError:
            key, is_shared = b"", 0
        if is_shared:
            raise CheckpointError(f"others can read {path}; run `chmod 600 {path}`")
        if len(key) != KEY_LENGTH:
            raise CheckpointError(f"{path} holds no key that `rollout ledger create-key` wrote")
        self._key = Ed25519PrivateKey.from_private_bytes(key)
        self.public_key = self._key.public_key().public_bytes_raw().hex()

    def sign(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint with key and signature."""
        signature = self._key.sign(checkpoint.content).hex()
        return replace(checkpoint, key=self.public_key, signature=signature)


def check_signatures(
    checkpoints: Iterable[Checkpoint], public_key: str, name: str
) -> Iterator[Checkpoint]:
    """Yield the checkpoints; each must be signed with the given key.

    Raises:
        CheckpointError: a signature is not the key's, or the text is no public key.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key.strip()))
    except ValueError as error:
        raise CheckpointError(
            "a public key has 64 hexadecimal digits; `rollout ledger create-key` printed it"
        ) from error
    for number, checkpoint in enumerate(checkpoints, 1):
        try:
            key.verify(bytes.fromhex(checkpoint.signature), checkpoint.content)
        except (InvalidSignature, ValueError) as error:
            raise CheckpointError(
                f"{name}, checkpoint {number}: its signature is not of this key; it was changed, or"
                " another key signed it"
            ) from error
        yield checkpoint


@dataclass(frozen=True, slots=True)
class CheckpointTargets:
    """Who signs checkpoints, and where they go; without a signer none are made.

    Attributes:
        file: the file that each new checkpoint is appended to, None for none.
        channel: name of the channel that gets new checkpoints, "" for none.
    """

    signer: CheckpointSigner | None = None
    file: Path | None = None
    channel: str = ""

    def require_signer(self) -> CheckpointSigner:
        """Return the signer.

        Raises:
            CheckpointError: none is configured.
        """
        if self.signer is None:
            raise CheckpointError(
                "no key signs checkpoints here; create one (`rollout ledger create-key FILE`) and"
                " name the file in ROLLOUT_CHECKPOINT_KEY_FILE"
            )
        return self.signer


NO_CHECKPOINTS = CheckpointTargets()


def open_checkpoint_targets(key_file: str, file: str, channel: str) -> CheckpointTargets:
    """Return the targets that settings name; texts are "" for none.

    Raises:
        CheckpointError: the key can't be read, or a target has no key.
    """
    if not key_file:
        if file or channel:
            raise CheckpointError(
                "checkpoints have a target but no key; name it in ROLLOUT_CHECKPOINT_KEY_FILE"
            )
        return NO_CHECKPOINTS
    return CheckpointTargets(
        CheckpointSigner(Path(key_file)), Path(file) if file else None, channel
    )
