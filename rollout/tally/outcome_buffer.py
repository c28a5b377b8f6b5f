"""A rollout's counted outcomes as arrays that grow slot by slot, for the service."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from rollout.core.calendar.sites import Cell
from rollout.kernel.outcomes import OutcomeRule
from rollout.tally.outcome_units import (
    ANY_SHARE,
    DRAWN_MODEL,
    DRAWN_PEOPLE,
    NOT_ASKED,
    SOURCE_FAULTS,
    OutcomeUnits,
    build_empty_outcomes,
    join_outcomes,
)

CellVersion = tuple[Cell, str]
OutcomeKey = tuple[Cell, str, str, str]  # cell, version, outcome, definition


NO_SHARE = "None"


class CountedOutcome(NamedTuple):
    """A counted unit with an outcome, as the store holds it and digests cover it.

    Attributes:
        unit, case_id: numbers of the unit and of its first case.
        slot, occurred: slot of the count, slot of the first case.
        definition: range, direction and deadline of the outcome when it was counted.
        bucket: bucket of the unit's sampling value.
        drawn: decider, exposure and share, as stored with the question or by an offline client; an
            import has no share; None without an answer.
        score: mean score of the cases with a value; 0 without any.
        known_share: share of the cases with a value.
        record_hashes: of the records behind it, sorted and joined.
        sources: of its values, kinds and ids of accounts, sorted; None before they were stored.
        source_fault: why it is no evidence to widen; None means evidence.
    """

    unit: int
    version: str
    outcome: str
    case_id: int
    slot: int
    occurred: int
    site: str
    window: str
    definition: str
    bucket: int
    drawn: str | None
    score: float
    known_share: float
    record_hashes: bytes
    sources: str | None = None
    source_fault: str | None = None

    @property
    def text(self) -> bytes:
        """Return the line that digests cover; lines without sources are as they were."""
        values = tuple(self)
        if self.sources is None and self.source_fault is None:
            values = values[:-2]
        return f"outcome {values!a}\n".encode()


class OutcomeBuffer:
    """Counted outcomes by cell, version and outcome."""

    def __init__(self) -> None:
        self._units: dict[OutcomeKey, OutcomeUnits] = {}
        self.row_count = 0

    def add(self, lines: Iterable[CountedOutcome]) -> set[CellVersion]:
        """Add units of later slots, in order; return the cells and versions that grew."""
        groups: dict[OutcomeKey, list[CountedOutcome]] = defaultdict(list)
        for line in lines:
            cell = Cell(line.site, line.window)
            groups[cell, line.version, line.outcome, line.definition].append(line)
        for key, group in groups.items():
            earlier_units = self._units.get(key, build_empty_outcomes())
            self._units[key] = join_outcomes(earlier_units, _build_units(group))
            self.row_count += len(group)
        return {(cell, version) for cell, version, _, _ in groups}

    def list_keys(self) -> set[CellVersion]:
        """Return the cells and versions with units."""
        return {(cell, version) for cell, version, _, _ in self._units}

    def list_units(self) -> Iterator[tuple[OutcomeKey, OutcomeUnits]]:
        """Yield the units of each cell, version, outcome and definition."""
        return iter(self._units.items())

    def restore(self, units: Mapping[OutcomeKey, OutcomeUnits]) -> None:
        """Fill this empty buffer with what another one held."""
        self._units = dict(units)
        self.row_count = sum(map(len, self._units.values()))

    def read_outcomes(self, cell: Cell, version: str, outcome: OutcomeRule) -> OutcomeUnits:
        """Return the units that were counted as the outcome is defined now."""
        units = self._units.get((cell, version, outcome.id, outcome.definition))
        return build_empty_outcomes() if units is None else units


def _build_units(lines: list[CountedOutcome]) -> OutcomeUnits:
    drawn = [_parse_drawn(line.drawn) for line in lines]
    return OutcomeUnits(
        slot=np.array([line.slot for line in lines], dtype=np.int64),
        occurred=np.array([line.occurred for line in lines], dtype=np.int64),
        bucket=np.array([line.bucket for line in lines], dtype=np.int64),
        score=np.array([line.score for line in lines], dtype=np.float64),
        known_share=np.array([line.known_share for line in lines], dtype=np.float64),
        drawn_arm=np.array([arm for arm, _ in drawn], dtype=np.int64),
        drawn_share=np.array([share for _, share in drawn], dtype=np.float64),
        source_fault=np.array(
            [SOURCE_FAULTS.index(line.source_fault or "") for line in lines], dtype=np.int64
        ),
    )


def _parse_drawn(drawn: str | None) -> tuple[int, float]:
    """Return the arm and the share of a stored answer."""
    if drawn is None:
        return NOT_ASKED, ANY_SHARE
    decider, exposure, share = drawn.split()
    is_model = decider == "model" or exposure == "assisted"
    return (DRAWN_MODEL if is_model else DRAWN_PEOPLE), (
        ANY_SHARE if share == NO_SHARE else float(share)
    )
