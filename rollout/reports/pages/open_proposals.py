"""Proposals that need approvals, read from the next steps of a report.

A stored report holds the next step of a cell as a sentence only.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rollout.reports.figures.facts import ReportFacts

PROPOSAL_PATTERN = re.compile(
    r"(?P<kind>[\w -]+?) to (?P<stage>\S+) \((?P<proposal>[^)]+)\)"
    r" needs (?P<needed>\d+) more approvals?[,;] open until (?P<until>.+)"
)


@dataclass(frozen=True, slots=True)
class OpenProposal:
    """A proposal that needs `needed` more approvals until `until`, a formatted time."""

    site: str
    window: str
    version: str
    kind: str
    stage: str
    proposal: str
    needed: int
    until: str


def find_open_proposals(facts: ReportFacts) -> tuple[OpenProposal, ...]:
    """Return the proposals that need approvals, in the order of the cells."""
    return tuple(_iterate_proposals(facts))


def _iterate_proposals(facts: ReportFacts) -> Iterator[OpenProposal]:
    for evidence in facts.evidence:
        match = PROPOSAL_PATTERN.match(evidence.next_step)
        if match is not None:
            yield OpenProposal(
                site=evidence.site,
                window=evidence.window,
                version=evidence.version,
                kind=match["kind"],
                stage=match["stage"],
                proposal=match["proposal"],
                needed=int(match["needed"]),
                until=match["until"],
            )
