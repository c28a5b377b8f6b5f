"""Events about stored records and reports: they never change the scope."""

from dataclasses import dataclass, field
from datetime import datetime

from rollout.engine.decide.scope_builder import ScopeBuilder
from rollout.engine.events.base import FREE_TEXT, OMITTED_WHEN_EMPTY, LedgerEvent, Reach
from rollout.kernel.calendar.sites import Cell


class RecordEvent(LedgerEvent):
    """An event that never changes the scope."""

    __slots__ = ()
    stage_reach = Reach.NONE

    def apply(self, builder: ScopeBuilder) -> None:
        """Leave the scope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsPurged(RecordEvent):
    """Records before an instant were deleted: `counts` rows of `tables`.

    `digest` covers the hashes of the deleted records, which the database keeps.
    """

    removes_records = True

    before: datetime
    tables: tuple[str, ...]
    counts: tuple[int, ...]
    digest: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})

    @property
    def removed_digest(self) -> str:
        """Return the digest of the deleted records."""
        return self.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CasesErased(RecordEvent):
    """The contents of cases were erased on request; their counts stay.

    Attributes:
        keys: hashes of the keys of the cases, which need the rollout's salt.
        episode: hash of the erased episode's key, if there was one.
        tables, counts: the database's tables, and how many rows were deleted or changed in each.
        records_digest: digest of the hashes of the deleted records; the database keeps these.
        reports: numbers of the sealed reports from which rows were erased.
    """

    erases = removes_records = discards_evidence = ends_snapshots = True

    keys: tuple[str, ...]
    tables: tuple[str, ...]
    counts: tuple[int, ...]
    records_digest: str = ""
    reports: tuple[int, ...] = ()
    episode: str = ""
    reason: str = field(default="", metadata={FREE_TEXT: True})

    @property
    def removed_digest(self) -> str:
        """Return the digest of the changed records."""
        return self.records_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class NameErased(RecordEvent):
    """A pseudonym replaced the name of a user or reviewer in this rollout.

    Attributes:
        pseudonym: the id that stands for the name from now on; no table holds the name for it.
        name_hash: hash of the name, which needs the rollout's salt.
        tables, counts: the database's tables, and how many rows were changed in each.
        records_digest: digest of the hashes of the changed decisions; the database keeps these.
    """

    erases = removes_records = discards_evidence = ends_snapshots = True

    pseudonym: str
    name_hash: str
    tables: tuple[str, ...]
    counts: tuple[int, ...]
    records_digest: str = ""
    reason: str = field(default="", metadata={FREE_TEXT: True})

    @property
    def removed_digest(self) -> str:
        """Return the digest of the changed records."""
        return self.records_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsImported(RecordEvent):
    """`by` imported recorded files and vouches for the times of receipt in them.

    `at` is the time of the ledger entry before, so that the imported records, which are older than
    the import, keep their order.

    Attributes:
        imported_at: the time of the import.
        files, digests: the files' names and the SHA-256 of each.
        cases: all cases of the files that have a time.
        stated_receipts: how many of these cases state when they were received; the others count as
            received when they occurred.
        received_since, received_until: the first and the last time of receipt of these cases.
        cells, cell_cases: the cells of the policy that have cases, and how many each has.
    """

    imported_at: datetime
    files: tuple[str, ...]
    digests: tuple[str, ...]
    cases: int
    stated_receipts: int
    received_since: datetime
    received_until: datetime
    cells: tuple[Cell, ...]
    cell_cases: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CasesPlanted(RecordEvent):
    """A user declared cases as planted, before any record of them.

    Attributes:
        cases: how many cases were declared.
        digest: digest of the hashes of their keys, which need the rollout's salt.
        file_digest: SHA-256 of the file that declares them, if an import does.
    """

    cases: int
    digest: str
    file_digest: str = ""
    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCutoffSet(RecordEvent):
    """The training cases of `version` reach up to an instant: gates don't count those cases.

    Guards do. Units that were counted before stay counted. Of an import, `at` is the time of the
    ledger entry before, as in `RecordsImported`.
    """

    is_for_all = True

    version: str
    trained_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarDataSet(RecordEvent):
    """A service counts with other data than before: from here on days may lie in other windows.

    Attributes:
        program: the version of the program.
        time_zones: a digest of the offsets of the sites' time zones.
        holidays: the year, and a digest of the public holidays of the sites' countries.
        changed: which of these differ from the entry of this kind before; none in the first.
    """

    program: str
    time_zones: str
    holidays: str = ""
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSealed(RecordEvent):
    """A version of a report on the cases in [since, until) was stored.

    `number` counts the versions of the same span. `sha256` is its seal; `state` is `provisional`
    while decisions are due, then `final`.
    """

    is_hidden = True

    report: str
    since: datetime
    until: datetime
    number: int
    state: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsCounted(RecordEvent):
    """A tick counted units: `digest` covers them and the hashes of the `records` behind them.

    It covers every unit, action and outcome that was counted after the event of this kind before
    it.
    """

    keeps_scope = seals_units = is_hidden = True

    records: int
    digest: str

    @property
    def sealed_digest(self) -> str:
        """Return its digest."""
        return self.digest
