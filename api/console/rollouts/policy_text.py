"""Text of the policy pages: faults, changes and line differences."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from types import MappingProxyType
from typing import Final

from markupsafe import Markup, escape

from rollout.services.policies.policies import RESTART_TITLE, PolicyChanges
from rollout.services.proposals.eligible_approvers import format_group_counts

OUTCOME_TEXTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "create": "Applying creates the rollout. Every cell starts in shadow: humans decide.",
        "unchanged": "Applying changes nothing: this policy is already in force or proposed.",
        "apply": "It loosens nothing, so applying it takes effect at once.",
        "propose": "It loosens, so applying it raises a proposal. Until users approve it, the "
        "policy in force stays.",
    }
)
FAULT_PATTERN: Final = re.compile(r"[^:]*:(\d+): (.*)", re.DOTALL)
MAX_LINES: Final = 6_000  # of both texts together; longer ones take seconds to compare
CONTEXT_LINES: Final = 3  # unchanged lines shown around a change
SIGNS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {"+": ("added", "+"), "-": ("removed", "−"), " ": ("same", " ")}
)


@dataclass(frozen=True, slots=True)
class PolicyFault:
    """One fault: line number (0 if unknown), message and typed line."""

    line: int
    text: str
    typed: str


@dataclass(frozen=True, slots=True)
class PolicyDiffLine:
    """A line of the diff; kind `added`, `removed`, `same` or `gap` (omitted lines)."""

    kind: str
    sign: str
    text: str


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """A kind of change and its items."""

    what: str
    of: tuple[str, ...]


def escape_text(text: str) -> Markup:
    r"""Return escaped text whose percent signs the page leaves unchanged.

    Pages join numbers and percent signs by no-break spaces; typed text must stay as it is.
    """
    return Markup(str(escape(text)).replace(" %", "&#32;%"))  # noqa: S704 - escaped just here


def escape_for_textarea(text: str) -> Markup:
    """Return escaped text for a `textarea` or `pre`, which drop a first newline."""
    return Markup("\n") + escape_text(text)


def build_policy_faults(fault_texts: tuple[str, ...], text: str) -> tuple[PolicyFault, ...]:
    """Return the faults of a policy with their lines.

    >>> build_policy_faults(("policy.yaml:1: rollout: 'a b' is no id",), "rollout: a b")
    (PolicyFault(line=1, text="rollout: 'a b' is no id", typed='rollout: a b'),)
    """
    lines = text.split("\n")
    return tuple(_build_fault(fault_text, lines) for fault_text in fault_texts)


def _build_fault(fault_text: str, lines: list[str]) -> PolicyFault:
    match = FAULT_PATTERN.fullmatch(fault_text)
    if match is None:
        return PolicyFault(0, fault_text, "")
    number = int(match[1])
    return PolicyFault(number, match[2], lines[number - 1] if 0 < number <= len(lines) else "")


def compare_policy_texts(before: str, after: str) -> tuple[PolicyDiffLine, ...] | None:
    """Return a line diff of two texts; None if they are too long."""
    old, new = before.splitlines(), after.splitlines()
    if len(old) + len(new) > MAX_LINES:
        return None
    return tuple(_list_diff_lines(unified_diff(old, new, n=CONTEXT_LINES, lineterm="")))


def _list_diff_lines(lines: Iterator[str]) -> Iterator[PolicyDiffLine]:
    has_started = False
    for line in lines:
        if line.startswith("@@"):
            if has_started:
                yield PolicyDiffLine("gap", "…", "")
            has_started = True
        elif has_started:
            kind, sign = SIGNS[line[:1]]
            yield PolicyDiffLine(kind, sign, line[1:])


def list_policy_changes(effect: PolicyChanges) -> tuple[PolicyChange, ...]:
    """Return what a policy would change, by kind; empty if nothing."""
    changes = (
        PolicyChange("It loosens", effect.loosens),
        PolicyChange("It needs approvals of", format_group_counts(effect.required_approvals)),
        PolicyChange("These cells are narrowed", effect.narrowed),
        PolicyChange(RESTART_TITLE, effect.restarted),
        PolicyChange("Grants and evidence are lost in", effect.cleared),
        PolicyChange("These proposals become void", effect.voided),
        PolicyChange("Its familiar cases would have sent to humans", effect.unfamiliar),
    )
    return tuple(change for change in changes if change.of)
