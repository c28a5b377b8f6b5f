"""Policy files: text in, a policy or every fault at once out (model.md §8)."""

from pathlib import Path

from rollout.core.errors import PolicyRefused
from rollout.core.policy.policy import Policy
from rollout.formats.policy.build import build_policy
from rollout.formats.policy.checks import faults_of
from rollout.formats.policy.document import long_faults, read_shape, size_faults
from rollout.formats.policy.yaml_reader import Document, Fault, field_path, read_lines


class PolicyFaults(PolicyRefused):
    """A policy file with faults: `faults` has one line for each, `str()` all of them."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def read_policy(path: Path) -> Policy:
    """Read a policy file, YAML or JSON.

    Raises:
        PolicyFaults: the file is no policy; one line per fault.
        OSError: the file can't be opened.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        message = f"{path.name}:1: (file): is not UTF-8 (byte {error.start}); save it as UTF-8"
        raise PolicyFaults((message,)) from None
    return load_policy(text, name=path.name)


def load_policy(text: str, *, name: str = "policy.yaml") -> Policy:
    """Read the text of a policy.

    Args:
        text: one YAML or JSON document.
        name: how faults call the file.

    Raises:
        PolicyFaults: one line per fault: file, line, field, what is wrong, what would be right.

    >>> load_policy("rollout: a b")
    Traceback (most recent call last):
    rollout.formats.policy.reader.PolicyFaults: policy.yaml:1: rollout: 'a b' is no id; use ...
    """
    document = read_lines(text)
    if document.value is None:
        raise PolicyFaults(_lines(document, document.faults, name))
    if length_faults := long_faults(document.value):
        raise PolicyFaults(_lines(document, (*document.faults, *length_faults), name))
    parsed = read_shape(document)
    if large := size_faults(parsed.policy):
        raise PolicyFaults(_lines(document, (*document.faults, *parsed.faults, *large), name))
    policy = build_policy(parsed.policy, text)
    faults = (*document.faults, *parsed.faults, *faults_of(parsed, policy))
    if faults:
        raise PolicyFaults(_lines(document, faults, name))
    return policy


def _lines(document: Document, faults: tuple[Fault, ...], name: str) -> tuple[str, ...]:
    rows = sorted((document.line(fault.place), index, fault) for index, fault in enumerate(faults))
    return tuple(
        f"{name}:{line}: {field_path(fault.place)}: {fault.says}" for line, _, fault in rows
    )
