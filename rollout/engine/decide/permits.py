"""Permits: signatures of the answer "the model decides".

Answers are not stored. The permit carries what can't be recomputed (revision, decider, instant,
lease, key number) and a code over that with rollout, case and version. The client returns it with
the action.

A permit is bound to the answers of the prediction that came with the question, or unbound; its text
begins with a mark that says which.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from rollout.engine.decide.scope import FIRST_ERA, format_revision
from rollout.kernel.calendar.instants import MICROSECOND, from_micros, to_micros

BOUND: Final = "bound"
UNBOUND: Final = "unbound"
KIND_BY_MARK: Final[Mapping[str, str]] = {"b": BOUND, "u": UNBOUND}
MARK_BY_KIND: Final[Mapping[str, str]] = {kind: mark for mark, kind in KIND_BY_MARK.items()}
SIGNATURE_DOMAIN: Final = b"rollout-permit-1\x1f"
CODE_LENGTH = 32  # hexadecimal digits: 128 bits
PART_COUNT = 6  # of a permit without mark and digest
CLOCK_TOLERANCE: Final = timedelta(seconds=5)
"""How far the clock of who acts may differ from ours."""
_BLOCK_BYTES: Final = 64  # of SHA-256


@dataclass(frozen=True, slots=True)
class Permit:
    """A signed answer: decider, revision, time and lease.

    Attributes:
        kind: `bound` or `unbound`.
        answer_digest: of the answers to which a bound permit is bound.
        era: of the ledger; a permit is valid in its own era only.
    """

    decider: str
    revision: int
    issued_at: datetime
    lease: timedelta
    kind: str = UNBOUND
    answer_digest: str = ""
    era: int = FIRST_ERA

    @property
    def expires_at(self) -> datetime:
        """Return the instant from which it is invalid."""
        return self.issued_at + self.lease

    def allows(self, at: datetime) -> bool:
        """Return whether an action at an instant is within its lease, for a clock near ours."""
        return at <= self.expires_at + CLOCK_TOLERANCE


def compute_answer_digest(answers: Mapping[str, str | None]) -> str:
    """Return a digest of every lever's answer; a missing one equals None.

    >>> compute_answer_digest({"a": "x", "b": None}) == compute_answer_digest({"a": "x"})
    True
    """
    pairs = sorted((lever, answer) for lever, answer in answers.items() if answer is not None)
    content = _encode_parts(*(part for pair in pairs for part in pair))
    return hashlib.sha256(content).hexdigest()[:CODE_LENGTH]


def sign_permit(permit: Permit, secret: bytes, key_number: int, *subject: str) -> str:
    """Return the text of a permit.

    Args:
        key_number: finds the secret again.
        subject: rollout, case key and version; of a snapshot's permit rollout and site.

    >>> permit = Permit("model", 7, from_micros(0), timedelta(minutes=1))
    >>> text = sign_permit(permit, bytes(32), 1, "ramps", "case-1", "v1")
    >>> verify_permit(text, {1: bytes(32)}, "ramps", "case-1", "v1") == permit
    True
    """
    text = build_permit_text(permit, key_number)
    if permit.kind == BOUND:
        code = _compute_code(text, secret, (*subject, permit.answer_digest))
        return f"{text}.{permit.answer_digest}.{code}"
    return f"{text}.{_compute_code(text, secret, subject)}"


def build_permit_text(permit: Permit, key_number: int) -> str:
    """Return the unsigned text, equal for cases with the same answer.

    A bound permit's digest is no part of it: it comes with each case.
    """
    return (
        f"{MARK_BY_KIND[permit.kind]}.{key_number}.{permit.decider}"
        f".{format_revision(permit.era, permit.revision)}"
        f".{to_micros(permit.issued_at)}.{permit.lease // MICROSECOND}"
    )


def sign_permits(
    secret: bytes,
    rollout: str,
    texts: Sequence[str],
    keys: Sequence[str],
    versions: Sequence[str],
    answer_digests: Sequence[str],
) -> list[str]:
    """Return the signed permits of many cases, each as `sign_permit` returns it.

    What cases share is hashed once.

    Args:
        texts: of `build_permit_text`, mostly equal ones.
        answer_digests: "" for unbound permits.

    >>> permit = Permit("model", 7, from_micros(0), timedelta(minutes=1))
    >>> signed = sign_permit(permit, bytes(32), 1, "ramps", "case-1", "v1")
    >>> text = build_permit_text(permit, 1)
    >>> sign_permits(bytes(32), "ramps", [text], ["case-1"], ["v1"], [""]) == [signed]
    True
    """
    inner_hash, outer_hash = _start_hmac(secret, SIGNATURE_DOMAIN)
    copies_by_text = {}
    for text in set(texts):
        shared_hash = inner_hash.copy()
        shared_hash.update(_encode_parts(text, rollout))
        copies_by_text[text] = (shared_hash.copy, f"{text}.")
    version_parts = {version: f"{len(version)}:{version}" for version in set(versions)}
    copy_outer, permits = outer_hash.copy, []
    for text, key, version, digest in zip(texts, keys, versions, answer_digests, strict=True):
        copy_inner, prefix = copies_by_text[text]
        inner_copy, outer_copy = copy_inner(), copy_outer()
        case_parts = f"{len(key)}:{key}{version_parts[version]}"
        if digest:
            case_parts, prefix = f"{case_parts}{len(digest)}:{digest}", f"{prefix}{digest}."
        inner_copy.update(case_parts.encode("utf-8", "surrogatepass"))
        outer_copy.update(inner_copy.digest())
        permits.append(prefix + outer_copy.hexdigest()[:CODE_LENGTH])
    return permits


def verify_permit(text: str, secrets: Mapping[int, bytes], *subject: str) -> Permit | None:
    """Return the permit if its signature is valid for the subject, else None.

    `secrets` are the valid keys by number.
    """
    signed_text, _, code = text.rpartition(".")
    key_number, permit = _parse_text(signed_text)
    secret = secrets.get(key_number)
    if permit is None or secret is None or not code.isascii():
        return None
    if permit.kind == BOUND:
        signed_text = signed_text.rpartition(".")[0]
        subject = (*subject, permit.answer_digest)
    expected_code = _compute_code(signed_text, secret, subject)
    return permit if hmac.compare_digest(code, expected_code) else None


def _parse_text(text: str) -> tuple[int, Permit | None]:
    """Return key number and permit of a text without its code; None if malformed."""
    mark, _, rest = text.partition(".")
    kind, parts = KIND_BY_MARK.get(mark), rest.split(".")
    answer_digest = parts.pop() if kind == BOUND else ""
    if kind is None or len(parts) != PART_COUNT - 1:
        return 0, None
    key_number, decider, era_revision, issued_text, lease_text = parts
    era, _, revision = era_revision.rpartition("-")
    numbers = (key_number, era or str(FIRST_ERA), revision, issued_text, lease_text)
    if not all(n.isascii() and n.isdigit() and len(n) <= CODE_LENGTH // 2 for n in numbers):
        return 0, None
    return int(key_number), Permit(
        decider,
        int(revision),
        from_micros(int(issued_text)),
        int(lease_text) * MICROSECOND,
        kind,
        answer_digest,
        int(era or FIRST_ERA),
    )


def _compute_code(text: str, secret: bytes, subject: tuple[str, ...]) -> str:
    inner_hash, outer_hash = _start_hmac(secret, SIGNATURE_DOMAIN)
    inner_copy, outer_copy = inner_hash.copy(), outer_hash.copy()
    inner_copy.update(_encode_parts(text, *subject))
    outer_copy.update(inner_copy.digest())
    return outer_copy.hexdigest()[:CODE_LENGTH]


def _encode_parts(*parts: str) -> bytes:
    text = "".join([f"{len(part)}:{part}" for part in parts])  # lengths make the parts unambiguous
    return text.encode("utf-8", "surrogatepass")  # invalid text must fail the check, not raise


@lru_cache(maxsize=16)
def _start_hmac(secret: bytes, domain: bytes) -> tuple["hashlib._Hash", "hashlib._Hash"]:
    """Return HMAC-SHA-256's two passes up to the domain; reusing them halves the time."""
    key = secret if len(secret) <= _BLOCK_BYTES else hashlib.sha256(secret).digest()
    key = key.ljust(_BLOCK_BYTES, b"\0")
    inner_hash = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + domain)
    return inner_hash, hashlib.sha256(bytes(byte ^ 0x5C for byte in key))
