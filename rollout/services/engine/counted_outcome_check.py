"""Count units with outcomes again, from the records that they rest on, and compare them.

A unit is resolved under the policy that counted it, from those of today's records whose hashes it
holds. So values that arrived later play no part.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rollout.core.policy.evidence_sources import OWN_EPISODE_PREDICTION
from rollout.core.policy.policy import Policy
from rollout.services.engine.evidence_report import EvidenceReport
from rollout.services.engine.outcome_counting import open_unit_keys, resolve_outcome_lines
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.unit_counting import add_unit_cases, open_stored_history
from rollout.services.engine.unit_recount import split_by_records
from rollout.store.counting.unit_records import SelectedOutcomeRecords
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.records.record_hashes import ErasedHashes, load_case_hashes, split_hashes
from rollout.tally.outcome_buffer import CountedOutcome
from rollout.tally.unit_arrays import IntArray

UNITS_PER_CHECK: Final = 500
COMPARED: Final = (
    *("occurred", "site", "window", "definition", "drawn", "score", "known_share"),
    *("sources", "source_fault"),
)
OutcomeKey = tuple[int, str, str]


class CountedOutcomeCheck:
    """Checks counted outcomes in batches, so that memory is bounded."""

    def __init__(
        self, transaction: Transaction, state: RolloutState, report: EvidenceReport
    ) -> None:
        self._transaction, self._state, self._report = transaction, state, report
        self._lines: list[CountedOutcome] = []
        self._policies: tuple[Policy, ...] = ()

    def pass_lines(
        self, lines: Iterable[CountedOutcome], policies: tuple[Policy, ...]
    ) -> Iterator[CountedOutcome]:
        """Yield the lines, which were counted under one of `policies` and are also checked."""
        for line in lines:
            if len(self._lines) == UNITS_PER_CHECK or policies is not self._policies:
                self.finish()
            self._policies = policies
            self._lines.append(line)
            yield line

    def finish(self) -> None:
        """Check the lines that were passed on."""
        lines, self._lines = self._lines, []
        if lines:
            intact_lines = list(self._filter_intact(lines))
            self._report.units += len(intact_lines)
            for group in split_by_records(intact_lines):
                self._report.add_faults(self._find_faults(group))

    def _filter_intact(self, lines: Sequence[CountedOutcome]) -> Iterator[CountedOutcome]:
        """Yield the units with all their records; report the others."""
        rollout, case_ids = self._state.rollout, self._list_cases(lines)
        stored_hashes = {row.hash for row in load_case_hashes(self._transaction, rollout, case_ids)}
        missing = {part for line in lines for part in split_hashes(line.record_hashes)}
        missing -= stored_hashes
        erased_hashes = ErasedHashes(self._transaction, rollout)
        revisions = erased_hashes.find_revisions(missing, case_ids)
        for line in lines:
            parts = missing.intersection(split_hashes(line.record_hashes))
            if not parts:
                yield line
            elif parts <= revisions.keys():
                self._report.erased_units += 1
                self._report.erasures |= {revisions[part] for part in parts}
            else:
                text = f"{len(parts)} of its records changed or are missing, and no event erased"
                self._report.add_faults([f"{self._name_unit(line)}: {text} them"])

    def _list_cases(self, lines: Sequence[CountedOutcome]) -> set[int]:
        case_ids = {line.case_id for line in lines}
        for policy in self._policies:
            history = open_stored_history(self._transaction, replace(self._state, policy=policy))
            case_ids |= add_unit_cases(history, policy, case_ids)
        return case_ids

    def _find_faults(self, lines: Sequence[CountedOutcome]) -> Sequence[str]:
        """Return a sentence for each unit that its records give under none of the policies."""
        faults_by_policy = (
            list(self._compare_units(replace(self._state, policy=policy), lines))
            for policy in self._policies
        )
        return min(faults_by_policy, key=len, default=[])

    def _compare_units(self, state: RolloutState, lines: Sequence[CountedOutcome]) -> Iterator[str]:
        expected = _resolve_again(self._transaction, state, lines)
        for line in lines:
            unit = expected.get((line.unit, line.version, line.outcome))
            if fault := _compare_unit(line, unit):
                yield f"{self._name_unit(line)}: {fault}"

    def _name_unit(self, line: CountedOutcome) -> str:
        keys = ExternalKeys(self._transaction, self._state.rollout).find_keys({line.case_id})
        case_key = keys.get(line.case_id, f"number {line.case_id}")
        return (
            f"the {line.outcome} of case {case_key} and version {line.version}, counted in slot "
            f"{line.slot}"
        )


def _resolve_again(
    transaction: Transaction, state: RolloutState, lines: Sequence[CountedOutcome]
) -> Mapping[OutcomeKey, CountedOutcome]:
    hashes = {part for line in lines for part in split_hashes(line.record_hashes)}
    records = SelectedOutcomeRecords(hashes, state.first_names)
    case_ids = {line.case_id for line in lines}
    finders = (_omit_buckets, open_unit_keys(transaction, state).find_ids)
    # an end of training that was recorded later took no unit back that had been counted
    state = replace(state, versions={})
    units = resolve_outcome_lines(transaction, state, case_ids, records, *finders)
    return {(unit.unit, unit.version, unit.outcome): unit for unit in units}


def _omit_buckets(occurred: IntArray, _values: NDArray[np.float64]) -> IntArray:
    """Return zeros: buckets follow from the policies of their time, and are not compared."""
    return np.zeros(len(occurred), dtype=np.int64)


def _compare_unit(line: CountedOutcome, unit: CountedOutcome | None) -> str:
    """Return what differs, or ""."""
    if unit is None:
        return "its records give no such unit"
    if unit.slot > line.slot:
        return f"its deadline passes in slot {unit.slot}"
    for name in COMPARED:
        stored, expected = getattr(line, name), getattr(unit, name)
        if (name, stored, expected) == ("source_fault", None, OWN_EPISODE_PREDICTION):
            continue  # counted before senders were judged by the episode; the digest covers it
        if stored != expected:
            return f"counted with {name} {stored}; its records give {expected}"
    return ""
