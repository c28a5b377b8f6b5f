"""Read policy files: return a policy, or raise with all faults at once."""

from pathlib import Path

from rollout.core.errors import PolicyRefusedError
from rollout.core.policy.policy import Policy
from rollout.formats.policy.build import build_policy
from rollout.formats.policy.checks import find_policy_faults
from rollout.formats.policy.document import find_length_faults, find_size_faults, parse_document
from rollout.formats.policy.yaml_reader import Document, DocumentFault, format_path, read_document


class InvalidPolicyError(PolicyRefusedError):
    """A refused policy file; `faults` has one line for each fault."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def read_policy(path: Path) -> Policy:
    """Read a policy file, YAML or JSON.

    Raises:
        InvalidPolicyError: the file is not a valid policy.
        OSError: the file can't be opened.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        message = f"{path.name}:1: (file): is not UTF-8 (byte {error.start}); save it as UTF-8"
        raise InvalidPolicyError((message,)) from None
    if not text.strip():  # as a refused `rollout init > FILE` leaves it
        message = f"{path.name}:1: (file): is empty; write a policy, or draft one by `rollout init`"
        raise InvalidPolicyError((message,))
    return parse_policy(text, name=path.name)


def parse_policy(text: str, *, name: str = "policy.yaml") -> Policy:
    """Parse the text of a policy, one YAML or JSON document.

    Args:
        text: the document.
        name: file name for the faults.

    Raises:
        InvalidPolicyError: a line per fault: file, line, field, the problem and its remedy.

    >>> parse_policy("rollout: a b")
    Traceback (most recent call last):
    rollout.formats.policy.reader.InvalidPolicyError: policy.yaml:1: rollout: 'a b' is no id; ...
    """
    document = read_document(text)
    if document.value is None:
        raise InvalidPolicyError(_format_faults(document, document.faults, name))
    if length_faults := find_length_faults(document.value):
        raise InvalidPolicyError(_format_faults(document, (*document.faults, *length_faults), name))
    parsed = parse_document(document)
    if large := find_size_faults(parsed.shape):
        raise InvalidPolicyError(
            _format_faults(document, (*document.faults, *parsed.faults, *large), name)
        )
    policy = build_policy(parsed.shape, text)
    faults = (*document.faults, *parsed.faults, *find_policy_faults(parsed, policy))
    if faults:
        raise InvalidPolicyError(_format_faults(document, faults, name))
    return policy


def _format_faults(
    document: Document, faults: tuple[DocumentFault, ...], name: str
) -> tuple[str, ...]:
    rows = sorted(
        (document.find_line(fault.path), index, fault) for index, fault in enumerate(faults)
    )
    return tuple(
        f"{name}:{line}: {format_path(fault.path)}: {fault.text}" for line, _, fault in rows
    )
