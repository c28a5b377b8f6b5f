"""Check counted units: the records behind them are there, and give the same units again."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from rollout.core.policy.policy import Policy
from rollout.services.engine.evidence_report import EvidenceReport
from rollout.services.engine.reviewer_recount import ReviewerRecount
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.sealed_spans import SealedSpan
from rollout.services.engine.unit_counting import add_unit_cases, open_stored_history
from rollout.services.engine.unit_recount import recount_units
from rollout.store.counting.unit_digests import UnitLine
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.records.record_hashes import ErasedHashes, load_case_hashes, split_hashes

UNITS_PER_COUNT: Final = 2_000


class CountedUnitCheck:
    """Checks units in batches: the records behind them, and the count."""

    def __init__(
        self,
        transaction: Transaction,
        state: RolloutState,
        report: EvidenceReport,
        reviewers: ReviewerRecount | None,
    ) -> None:
        """Without `reviewers`, units that depend on reviewer checks are not counted again."""
        self._reviewers = reviewers
        self._tick_slots: dict[int, int] = {}
        self._transaction, self._state, self._report = transaction, state, report
        self._lines: list[UnitLine] = []
        self._span: SealedSpan | None = None

    def add(self, line: UnitLine, span: SealedSpan) -> None:
        """Add a unit that was counted under one of the span's policies."""
        if not line.record_hashes:
            self._report.unhashed_units += 1
            self._report.unhashed_events |= {span.revision} - {0}
            return
        has_other_policies = self._span is not None and span.policies is not self._span.policies
        if len(self._lines) == UNITS_PER_COUNT or has_other_policies:
            self.finish()
        self._span = span
        self._tick_slots[line.slot] = span.until
        self._lines.append(line)

    def finish(self) -> None:
        """Check the units that were added."""
        lines, self._lines = self._lines, []
        if self._span is None or not lines:
            return
        policies = self._span.policies
        intact_lines = list(self._filter_intact(lines, policies))
        tick_slots, self._tick_slots = self._tick_slots, {}
        needs_checks = any(
            policy.evidence.min_reviewer_agreement is not None for policy in policies
        )
        if needs_checks and self._reviewers is None:
            self._report.unrepeatable_units += len(intact_lines)
            return
        result = recount_units(
            self._transaction,
            self._state,
            policies,
            intact_lines,
            self._reviewers if needs_checks else None,
            tick_slots,
        )
        self._report.units += len(intact_lines) - result.unrepeatable
        self._report.unrepeatable_units += result.unrepeatable
        self._report.add_faults(result.faults)

    def _filter_intact(
        self, lines: Sequence[UnitLine], policies: Sequence[Policy]
    ) -> Iterator[UnitLine]:
        """Yield the units with all their records; report the others."""
        case_ids = {line.case_id for line in lines}
        for policy in policies:
            history = open_stored_history(self._transaction, replace(self._state, policy=policy))
            case_ids |= add_unit_cases(history, policy, case_ids)
        rollout = self._state.rollout
        stored_hashes = {row.hash for row in load_case_hashes(self._transaction, rollout, case_ids)}
        erased_hashes = ErasedHashes(self._transaction, rollout)
        revisions = erased_hashes.find_revisions(
            {part for line in lines for part in split_hashes(line.record_hashes)} - stored_hashes,
            case_ids,
        )
        for line in lines:
            missing = [
                part for part in split_hashes(line.record_hashes) if part not in stored_hashes
            ]
            if not missing:
                yield line
            elif all(part in revisions for part in missing):
                self._report.erased_units += 1
                self._report.erasures |= {revisions[part] for part in missing}
            else:
                self._report.add_faults([self._describe_missing(line, missing)])

    def _describe_missing(self, line: UnitLine, missing: Sequence[bytes]) -> str:
        case_keys = ExternalKeys(self._transaction, self._state.rollout).find_keys({line.case_id})
        case_key = case_keys.get(line.case_id, f"number {line.case_id}")
        return (
            f"the {line.track} unit of case {case_key} and version {line.version}, counted in slot "
            f"{line.slot}: {len(missing)} of its records changed or are missing, and no event "
            f"erased them (hash {missing[0].hex()[:12]}…)"
        )
