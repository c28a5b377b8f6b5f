"""The key that signs checkpoints: Ed25519, in a file outside the database."""

import os
import secrets
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rollout.engine.ledger.ledger import Checkpoint, CheckpointError

if TYPE_CHECKING:
    from rollout.settings import Settings


KEY_LENGTH = 32  # bytes, of either key
SHARED_BITS = 0o077
DEFAULT_KEY_NAME, DEFAULT_FILE_NAME = "rollout-checkpoint.key", "rollout-checkpoints.jsonl"


def create_signing_key(path: Path) -> str:
    """Create a private key that only its owner can read; return the public key in hex.

    Raises:
        CheckpointError: the file exists or can't be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(key.private_bytes_raw().hex() + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)  # another replica that starts now finds the whole key or none
        finally:
            draft.unlink()
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
    checkpoints: Iterable[Checkpoint], public_keys: Collection[str], name: str
) -> Iterator[Checkpoint]:
    """Yield the checkpoints; each must be signed with one of the keys.

    Raises:
        CheckpointError: a signature is of none of them, or a text is no public key.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key_bytes = [bytes.fromhex(text.strip()) for text in public_keys]
        keys = {each.hex(): Ed25519PublicKey.from_public_bytes(each) for each in key_bytes}
    except ValueError as error:
        raise CheckpointError(
            "a public key has 64 hexadecimal digits; `rollout ledger create-key` printed it"
        ) from error
    for number, checkpoint in enumerate(checkpoints, 1):
        try:
            keys[checkpoint.key].verify(bytes.fromhex(checkpoint.signature), checkpoint.content)
        except (InvalidSignature, KeyError, ValueError) as error:
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
        has_second_place: whether somebody named a file or channel, away from the key.
        fault: why there is no signer where there should be one, "" for none.
    """

    signer: CheckpointSigner | None = None
    file: Path | None = None
    channel: str = ""
    has_second_place: bool = True
    fault: str = ""

    def require_signer(self) -> CheckpointSigner:
        """Return the signer.

        Raises:
            CheckpointError: none is configured.
        """
        if self.signer is None:
            raise CheckpointError(
                self.fault
                or "no key signs checkpoints here; create one (`rollout ledger create-key FILE`)"
                " and name the file in ROLLOUT_CHECKPOINT_KEY_FILE"
            )
        return self.signer


NO_CHECKPOINTS = CheckpointTargets()


def find_checkpoint_targets(settings: "Settings") -> CheckpointTargets:
    """Return where checkpoints go, without a signer; by default into a file beside the key."""
    file, channel = settings.checkpoint_file, settings.checkpoint_channel
    return CheckpointTargets(
        file=Path(file) if file else _find_key_file(settings).with_name(DEFAULT_FILE_NAME),
        channel=channel,
        has_second_place=bool(file or channel),
    )


def open_checkpoint_targets(
    settings: "Settings", *, creates_key: bool = False
) -> CheckpointTargets:
    """Return the targets, on request with a new key where none is named and there is none.

    Raises:
        CheckpointError: the key that settings name can't be read.
    """
    targets, key_file = find_checkpoint_targets(settings), _find_key_file(settings)
    try:
        if creates_key and not settings.checkpoint_key_file:
            _create_missing_key(key_file)
        return replace(targets, signer=CheckpointSigner(key_file))
    except CheckpointError as error:
        if settings.checkpoint_key_file:
            raise
        return replace(targets, fault=str(error))


def _find_key_file(settings: "Settings") -> Path:
    if settings.checkpoint_key_file:
        return Path(settings.checkpoint_key_file)
    return Path(settings.secret_key_file).parent / DEFAULT_KEY_NAME


def _create_missing_key(path: Path) -> None:
    """Create a key unless there is one; of replicas that start together one creates it."""
    if path.exists():
        return
    try:
        create_signing_key(path)
    except CheckpointError:
        if not path.exists():
            raise
