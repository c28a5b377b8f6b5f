"""Policies as people read them before they apply one: faults by line, what changes, differences."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from types import MappingProxyType
from typing import Final

from markupsafe import Markup, escape

from rollout.services.policies.policies import PolicyChanges
from rollout.services.proposals.eligible_approvers import counted_needs

OUTCOMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "create": "Applying makes the rollout. Every cell begins in shadow: people decide.",
        "unchanged": "Applying changes nothing: it holds already, or waits already.",
        "apply": "It loosens nothing, so applying puts it in force at once.",
        "propose": "It loosens, so applying makes a proposal. Until people approve it the "
        "policy in force stays.",
    }
)
PLACED: Final = re.compile(r"[^:]*:(\d+): (.*)", re.DOTALL)
MOST_LINES: Final = 6_000  # of two texts together: more take seconds to compare
AROUND: Final = 3  # lines that did not change, on either side of one that did
SIGNS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {"+": ("added", "+"), "-": ("removed", "−"), " ": ("same", " ")}
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: its line, 0 where it has none, what is wrong, and the line as it was typed."""

    line: int
    says: str
    typed: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A line of a comparison: `added`, `removed`, `same`, or `gap` where lines are left out."""

    kind: str
    sign: str
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """One kind of change, and what it is of."""

    what: str
    of: tuple[str, ...]


def kept(text: str) -> Markup:
    r"""Return a text for an element, so that a page can't change a letter of it.

    Pages keep numbers and their per cent sign together; what people typed stays as it is.

    >>> kept("at <95 %")
    Markup('at &lt;95&#32;%')
    """
    return Markup(str(escape(text)).replace(" %", "&#32;%"))  # noqa: S704 - escaped just here


def in_area(text: str) -> Markup:
    """Return a text for a text area or `pre`, which swallow a line's end at their beginning."""
    return Markup("\n") + kept(text)


def faults(found: tuple[str, ...], text: str) -> tuple[Fault, ...]:
    """Return the faults of a policy with the lines that they are in.

    >>> faults(("policy.yaml:1: rollout: 'a b' is no id",), "rollout: a b")
    (Fault(line=1, says="rollout: 'a b' is no id", typed='rollout: a b'),)
    """
    lines = text.split("\n")
    return tuple(_fault(fault_text, lines) for fault_text in found)


def _fault(said: str, lines: list[str]) -> Fault:
    match = PLACED.fullmatch(said)
    if match is None:
        return Fault(0, said, "")
    number = int(match[1])
    return Fault(number, match[2], lines[number - 1] if 0 < number <= len(lines) else "")


def differences(before: str, after: str) -> tuple[Difference, ...] | None:
    """Return how a text differs from another, line by line; None where they are too long."""
    old, new = before.splitlines(), after.splitlines()
    if len(old) + len(new) > MOST_LINES:
        return None
    return tuple(_differences(unified_diff(old, new, n=AROUND, lineterm="")))


def _differences(lines: Iterator[str]) -> Iterator[Difference]:
    has_started = False
    for line in lines:
        if line.startswith("@@"):
            if has_started:
                yield Difference("gap", "…", "")
            has_started = True
        elif has_started:
            kind, sign = SIGNS[line[:1]]
            yield Difference(kind, sign, line[1:])


def changes(said: PolicyChanges) -> tuple[Change, ...]:
    """Return what a policy would change, kind by kind; () where it is nothing."""
    changes = (
        Change("It loosens", said.loosens),
        Change("It needs approvals of", counted_needs(said.required_approvals)),
        Change("These cells go down", said.narrowed),
        Change("Evidence starts a new attempt, at a smaller risk, in", said.restarted),
        Change("Grants and evidence are lost in", said.cleared),
        Change("These proposals lose their ground", said.voided),
    )
    return tuple(change for change in changes if change.of)
