"""Compare the actions and outcomes that ticks counted with the stored ones, by their hashes."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from rollout.services.engine.evidence_report import EvidenceReport
from rollout.store.counting.counted_records import RecordLine
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.records.record_hashes import ErasedHashes, load_case_hashes

RECORDS_PER_CHECK: Final = 2_000


class CountedRecordCheck:
    """Checks counted actions and outcomes in batches, so that memory is bounded."""

    def __init__(self, transaction: Transaction, rollout: Rollout, report: EvidenceReport) -> None:
        self._transaction, self._rollout, self._report = transaction, rollout, report
        self._lines: list[RecordLine] = []

    def pass_lines(self, lines: Iterable[RecordLine]) -> Iterator[RecordLine]:
        """Yield the lines, which are also checked."""
        for line in lines:
            if len(self._lines) == RECORDS_PER_CHECK:
                self.finish()
            self._lines.append(line)
            yield line

    def finish(self) -> None:
        """Check the lines that were passed on."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        self._report.other_records += len(lines)
        case_ids = {line.case_id for line in lines}
        stored_hashes = {
            row.hash for row in load_case_hashes(self._transaction, self._rollout, case_ids)
        }
        missing = [line for line in lines if line.record_hash not in stored_hashes]
        if missing:
            self._explain_missing(missing)

    def _explain_missing(self, lines: Sequence[RecordLine]) -> None:
        """Find the events that erased records; the others are faults."""
        case_ids = {line.case_id for line in lines}
        erased_hashes = ErasedHashes(self._transaction, self._rollout).load_by_case(case_ids)
        case_keys = ExternalKeys(self._transaction, self._rollout).find_keys(case_ids)
        for line in lines:
            if line.record_hash in erased_hashes:
                self._report.erased_records += 1
                self._report.erasures.add(erased_hashes[line.record_hash])
            else:
                case_key = case_keys.get(line.case_id, f"number {line.case_id}")
                self._report.add_faults([_describe_missing(line, case_key)])


def _describe_missing(line: RecordLine, case_key: str) -> str:
    return (
        f"the {line.kind} of case {case_key}, counted in slot {line.slot}: it changed or is "
        f"missing, and no event erased it (hash {line.record_hash.hex()[:12]}…)"
    )
