"""Received cases: when they count, which are planted, who saw them, signs of life of their site.

When a case counts: times are whole microseconds, as stored.

Planted cases: users declare them before any record of them. A declaration holds the hash of the
case's key, under a number of its own. The case gets its number with its first record, as every case
does: the order of numbers tells nobody which are planted.

Exposures: what a reviewer saw, when and on which page; stored before the page is sent. Figures
reveal cases without naming them. So for a report one row says that its reader saw figures of all
cases that occurred before `at`. Its case is `EVERY_CASE`, a number that no case has.

Signs of life: when cases occurred at a site, and its heartbeats.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    ScalarSelect,
    Table,
    func,
    insert,
    literal_column,
    select,
    true,
    type_coerce,
)

from rollout.data.database.bulk import (
    IGNORE_CONFLICTS,
    Repeated,
    encode_driver_values,
    insert_columns,
    insert_new_rows,
    lock_keys,
    select_texts,
)
from rollout.data.database.rollouts import Rollout, RolloutRepository, fetch_case_rows, match_cases
from rollout.data.records.external_keys import DECLARED, ExternalKeys, KeyIds
from rollout.data.records.record_rows import RECORD_SCHEMAS, ColumnsByName, RecordSchema
from rollout.data.tables.tables import (
    cases,
    count_queue,
    decisions,
    exposures,
    external_keys,
    heartbeats,
    outcomes,
    planted_cases,
    predictions,
)
from rollout.engine.records.records import (
    Case,
    Decision,
    Outcome,
    Prediction,
    Record,
    pick_first_draws,
)
from rollout.engine.records.reviews import fold_name
from rollout.kernel.calendar.instants import to_micros
from rollout.kernel.units import group_pairs

EVERY_CASE: Final = 0
ANY_REVIEWER: Final = ""
"""The name for readers who are not signed in; no user has it."""

FIGURES: Final = "figures"
"""The content of rows with `EVERY_CASE`; it reveals no single case."""


class ExposureEntry(NamedTuple):
    """What was shown of a case: the content, on which page, and when, in microseconds."""

    content: str
    page: str
    at: int


class ExposureStore(RolloutRepository):
    """The exposures of one rollout."""

    def add(
        self,
        entries: Iterable[tuple[int, str]],
        *,
        reviewer: str,
        page: str,
        at: datetime,
    ) -> None:
        """Store what is about to be shown: pairs of case and content."""
        common_values = {
            "rollout": self._rollout.number,
            "reviewer": reviewer,
            "page": page,
            "at": at,
        }
        rows = [
            {**common_values, "case_id": case_id, "content": content}
            for case_id, content in entries
        ]
        insert_new_rows(self._transaction, exposures, rows)

    def copy(self, new_ids: Mapping[int, int]) -> None:
        """Store what was shown of some numbers also under their new ones."""
        if not new_ids:
            return
        query = select(exposures).where(
            *match_cases(self._transaction, self._rollout, exposures, new_ids)
        )
        rows = self._transaction.execute(query).mappings().all()
        copies = [{**row, "case_id": new_ids[row["case_id"]]} for row in rows]
        insert_new_rows(self._transaction, exposures, copies)

    def record_figures(self, reviewer: str, until: datetime, *, page: str) -> None:
        """Store that a reviewer sees figures of cases before `until`."""
        known_until = self.load_figures_until(reviewer)
        if known_until is None or known_until < until:
            self.add([(EVERY_CASE, FIGURES)], reviewer=reviewer, page=page, at=until)

    def load_figures_until(self, reviewer: str) -> datetime | None:
        """Return the end of the figures that a reviewer saw, or None."""
        query = select(select_figures_until(self._rollout, reviewer))
        figures_until: datetime | None = self._transaction.execute(query).scalar()
        return figures_until

    def list_for_reviewer(
        self, reviewer: str, case_ids: Collection[int]
    ) -> Mapping[int, frozenset[tuple[str, str]]]:
        """Return by case the contents and pages that a reviewer saw."""
        query = select(exposures.c.case_id, exposures.c.content, exposures.c.page).where(
            *match_cases(self._transaction, self._rollout, exposures, case_ids),
            exposures.c.reviewer == reviewer,
        )
        pairs = ((row.case_id, (row.content, row.page)) for row in self._transaction.execute(query))
        return {case_id: frozenset(entries) for case_id, entries in group_pairs(pairs).items()}


def select_figures_until(rollout: Rollout, reviewer: str) -> ScalarSelect[Any]:
    """Return the query for the end of figures seen; null for never.

    Figures shown to `ANY_REVIEWER` count for each reviewer.
    """
    return (
        select(func.max(exposures.c.at))
        .where(
            exposures.c.rollout == rollout.number,
            exposures.c.case_id == EVERY_CASE,
            exposures.c.reviewer.in_({reviewer, ANY_REVIEWER}),
        )
        .scalar_subquery()
    )


@dataclass(slots=True)
class IncomingCase:
    """A case with the times of its records.

    Attributes:
        places: site, time and receipt of the case in each revision; empty while it is unknown.
        predicted: receipts of its predictions, in any revision.
        decisions: exposures and receipts of its decisions, in any revision.
        first_decided: the earlier of stated time and receipt of any decision or outcome; None
            without one.
    """

    places: set[tuple[str, int, int]] = field(default_factory=set)
    predicted: set[int] = field(default_factory=set)
    decisions: set[tuple[str, int]] = field(default_factory=set)
    first_decided: int | None = None

    def add_decision(self, exposure: str, submitted: int | None, received: int) -> None:
        """Add a decision in one revision."""
        self.decisions.add((exposure, received))
        self.add_decided(submitted, received)

    def add_decided(self, stated: int | None, received: int) -> None:
        """Add when the case was decided, by a decision or an outcome."""
        decided = received if stated is None or received < stated else stated
        if self.first_decided is None or decided < self.first_decided:
            self.first_decided = decided


class Place(NamedTuple):
    """Where a revision of a case says that it occurred, and when, in microseconds."""

    revision: int
    site: str
    window: str
    occurred: int


class DrawRow(NamedTuple):
    """What a revision of a case drew, and when it was received."""

    case_id: int
    draws: str | None
    received_at: int
    revision: int


def _select_raw(column: Column[Any]) -> ColumnElement[Any]:
    return type_coerce(column, BigInteger)


SelectedColumns = tuple[ColumnElement[Any], ...]
CASE_COLUMNS: Final[SelectedColumns] = (
    *(cases.c.case_id, cases.c.site),
    *(_select_raw(cases.c.occurred_at), _select_raw(cases.c.received_at)),
)
PREDICTION_COLUMNS: Final[SelectedColumns] = (
    predictions.c.case_id,
    _select_raw(predictions.c.received_at),
)
DECISION_COLUMNS: Final[SelectedColumns] = (
    *(decisions.c.case_id, decisions.c.exposure),
    *(_select_raw(decisions.c.submitted_at), _select_raw(decisions.c.received_at)),
)
OUTCOME_COLUMNS: Final[SelectedColumns] = (
    outcomes.c.case_id,
    *(_select_raw(outcomes.c.at), _select_raw(outcomes.c.received_at)),
)
SITE_COLUMNS: Final[SelectedColumns] = (cases.c.case_id, cases.c.site)
PLACE_COLUMNS: Final[SelectedColumns] = (
    *(cases.c.case_id, cases.c.revision, cases.c.site, cases.c.window),
    _select_raw(cases.c.occurred_at),
)
DRAW_COLUMNS: Final[SelectedColumns] = (
    *(cases.c.case_id, cases.c.draws),
    *(_select_raw(cases.c.received_at), cases.c.revision),
)
EXPOSURE_COLUMNS: Final[SelectedColumns] = (
    *(exposures.c.case_id, exposures.c.reviewer),
    *(exposures.c.content, exposures.c.page, _select_raw(exposures.c.at)),
)


class IncomingCases(RolloutRepository):
    """The cases of one rollout with received records."""

    def load_cases(self, case_ids: Collection[int]) -> dict[int, IncomingCase]:
        """Return the stored cases."""
        cases_by_id: dict[int, IncomingCase] = {case_id: IncomingCase() for case_id in case_ids}
        for case_id, site, occurred, received in self._load_columns(cases, CASE_COLUMNS, case_ids):
            cases_by_id[case_id].places.add((site, occurred, received))
        for case_id, received in self._load_columns(predictions, PREDICTION_COLUMNS, case_ids):
            cases_by_id[case_id].predicted.add(received)
        for case_id, *decision in self._load_columns(decisions, DECISION_COLUMNS, case_ids):
            cases_by_id[case_id].add_decision(*decision)
        for case_id, *times in self._load_columns(outcomes, OUTCOME_COLUMNS, case_ids):
            cases_by_id[case_id].add_decided(*times)
        return cases_by_id

    def load_sites(self, case_ids: Collection[int]) -> Mapping[int, set[str]]:
        """Return the sites of each case in all its revisions."""
        sites_by_case: dict[int, set[str]] = defaultdict(set)
        for case_id, site in self._load_columns(cases, SITE_COLUMNS, case_ids):
            sites_by_case[case_id].add(site)
        return sites_by_case

    def load_places(self, case_ids: Collection[int]) -> Mapping[int, list[Place]]:
        """Return by stored case the place of each revision."""
        places: dict[int, list[Place]] = defaultdict(list)
        for case_id, *place in self._load_columns(cases, PLACE_COLUMNS, case_ids):
            places[case_id].append(Place(*place))
        return places

    def load_draws(self, case_ids: Collection[int]) -> Mapping[int, Mapping[str, bool]]:
        """Return the draws of stored cases, empty for those without any."""
        rows = [DrawRow(*row) for row in self._load_columns(cases, DRAW_COLUMNS, case_ids)]
        draws = pick_first_draws(rows)
        return {row.case_id: json.loads(draws.get(row.case_id, "{}")) for row in rows}

    def load_exposures(
        self, case_ids: Collection[int]
    ) -> Mapping[tuple[int, str], set[ExposureEntry]]:
        """Return by case and reviewer, by `fold_name`, what they were shown."""
        entries: dict[tuple[int, str], set[ExposureEntry]] = defaultdict(set)
        for case_id, reviewer, *entry in self._load_columns(exposures, EXPOSURE_COLUMNS, case_ids):
            entries[case_id, fold_name(reviewer)].add(ExposureEntry(*entry))
        return entries

    def queue_entries(
        self, entries: Sequence[tuple[int, int, str]], new_cases: AbstractSet[int] = frozenset()
    ) -> None:
        """Store entries (time, case, track) in the count queue; existing ones stay.

        `new_cases` got their numbers in this transaction: no other has entries of them.
        """
        if not entries:
            return
        number = self._rollout.number
        at, case_ids, tracks = zip(*entries, strict=True)
        columns = {
            "rollout": Repeated.build(number, len(entries)),
            "at": at,
            "case_id": case_ids,
            "track": tracks,
        }
        old_cases = set(case_ids) - new_cases
        if old_cases:
            lockable = [(number, *entry) for entry in entries if entry[1] in old_cases]
            lock_keys(self._transaction, count_queue, lockable)
        is_new = not old_cases and len(set(entries)) == len(entries)
        insert_columns(self._transaction, count_queue, columns, "" if is_new else IGNORE_CONFLICTS)

    def _load_columns(
        self, table: Table, columns: SelectedColumns, case_ids: Collection[int]
    ) -> Iterable[Any]:
        return fetch_case_rows(self._transaction, self._rollout, table, columns, case_ids)


def build_incoming_cases(
    columns: Mapping[RecordSchema, ColumnsByName],
) -> dict[int, IncomingCase]:
    """Return cases from records that were just stored, by number.

    Nothing else may be stored of these cases. They have what each revision of a record says.
    """
    cases_by_id = defaultdict[int, IncomingCase](IncomingCase)
    place_names = ("site", "occurred_at", "received_at")
    for case_id, site, occurred, received in _sort_by_revision(columns, Case, *place_names):
        cases_by_id[case_id].places.add((site, occurred, received))
    for case_id, received in _sort_by_revision(columns, Prediction, "received_at"):
        cases_by_id[case_id].predicted.add(received)
    for case_id, *decision in _sort_by_revision(columns, Decision, *DECISION_FIELDS):
        cases_by_id[case_id].add_decision(*decision)
    for case_id, *times in _sort_by_revision(columns, Outcome, "at", "received_at"):
        cases_by_id[case_id].add_decided(*times)
    return cases_by_id


def _sort_by_revision(
    columns: Mapping[RecordSchema, ColumnsByName], kind: type[Record], *names: str
) -> Iterable[tuple[Any, ...]]:
    """Return case number and values of a kind's records, newest revision last."""
    columns_by_name = columns.get(RECORD_SCHEMAS[kind])
    if columns_by_name is None:
        return ()
    revisions, *value_columns = (columns_by_name[name] for name in ("revision", "case_id", *names))
    rows = zip(*value_columns, strict=True)
    if revisions.count(1) == len(revisions):
        return rows
    return (row for _, row in sorted(zip(revisions, rows, strict=True), key=itemgetter(0)))


DECISION_FIELDS: Final = ("exposure", "submitted_at", "received_at")


class PlantedCases(RolloutRepository):
    """The planted cases of one rollout."""

    def find(self, keys: Collection[str], *, lock: bool = False) -> dict[str, int]:
        """Return the declarations' numbers of keys; none for others, and in most rollouts.

        With `lock` other transactions wait before they receive or declare the case.
        """
        return self._keys.find_hashed(keys, DECLARED, lock=lock)

    def find_times(self, keys: Iterable[str]) -> dict[str, datetime]:
        """Return of the planted ones of many keys when the service received the declaration.

        The keys are read only if the rollout has declarations.
        """
        query = (
            select(external_keys.c.key, planted_cases.c.declared_at)
            .join(planted_cases, external_keys.c.id == planted_cases.c.case_id)
            .where(planted_cases.c.rollout == self._rollout.number, *self._is_declaration)
        )
        times = {row.key: row.declared_at for row in self._transaction.execute(query)}
        hash_key = self._keys.hash_key
        return {key: times[h] for key in keys if (h := hash_key(key)) in times} if times else {}

    def receive(self, key_ids: KeyIds) -> set[int]:
        """Return which cases of a batch are planted.

        Who declared a case that is new knows it from now on by its number.
        """
        numbers = {
            key_ids.by_key[key]: number for key, number in self._keys.find_declared(key_ids).items()
        }
        new = {number: case_id for case_id, number in numbers.items() if case_id in key_ids.new_ids}
        ExposureStore(self._transaction, self._rollout).copy(new)
        return set(numbers)

    def add(self, case_ids: Collection[int], *, at: datetime, revision: int) -> None:
        """Turn keys without records into declarations, under the numbers that they had.

        Their event has this revision and belongs into the transaction.
        """
        self._keys.purge(case_ids, DECLARED)
        common = {"rollout": self._rollout.number, "declared_at": at, "revision": revision}
        rows = [{**common, "case_id": case_id} for case_id in sorted(case_ids)]
        self._transaction.execute(insert(planted_cases), rows)

    def count(self) -> tuple[int, int]:
        """Return how many cases are declared, and of how many the case has come."""
        declared = select(func.count()).select_from(external_keys).where(*self._is_declaration)
        received = select(func.count(cases.c.case_id.distinct())).where(
            cases.c.rollout == self._rollout.number, cases.c.planted.is_(True)
        )
        return (
            self._transaction.execute(declared).scalar_one(),
            self._transaction.execute(received).scalar_one(),
        )

    def load_digests(self) -> dict[int, tuple[int, str, int]]:
        """Return by revision of its event the number of cases declared, their digest, and when.

        When is -1 for cases that don't agree on it.
        """
        query = (
            select(planted_cases.c.revision, planted_cases.c.declared_at, external_keys.c.key)
            .join(planted_cases, external_keys.c.id == planted_cases.c.case_id)
            .where(planted_cases.c.rollout == self._rollout.number, *self._is_declaration)
        )
        hashes: dict[int, list[str]] = {}
        times: dict[int, int] = {}
        for row in self._transaction.execute(query):
            at = to_micros(row.declared_at)
            hashes.setdefault(row.revision, []).append(row.key)
            times[row.revision] = at if times.setdefault(row.revision, at) == at else -1
        return {n: (len(h), join_key_hashes(h), times[n]) for n, h in hashes.items()}

    def compute_digest(self, keys: Collection[str]) -> str:
        """Return the digest of cases' keys, which nobody can guess without the salt."""
        return join_key_hashes(self._keys.hash_key(key) for key in keys)

    @property
    def _keys(self) -> ExternalKeys:
        return ExternalKeys(self._transaction, self._rollout)

    @property
    def _is_declaration(self) -> tuple[ColumnElement[bool], ...]:
        return external_keys.c.rollout == self._rollout.number, external_keys.c.kind == DECLARED


def join_key_hashes(hashes: Iterable[str]) -> str:
    """Return the digest of hashes of keys, in whatever order."""
    return sha256("\n".join(sorted(hashes)).encode()).hexdigest()


class SiteSignStore(RolloutRepository):
    """The cases and heartbeats of one rollout's sites."""

    def find_site_cases(self, site: str, since: datetime) -> set[int]:
        """Return the cases that occurred at a site since a time."""
        query = select(cases.c.case_id).where(
            cases.c.rollout == self._rollout.number,
            cases.c.site == site,
            cases.c.occurred_at >= since,
        )
        return set(self._transaction.execute(query).scalars())

    def load_case_spans(self, sites: Collection[str]) -> dict[str, tuple[datetime, datetime]]:
        """Return by site when its first and last cases occurred, planted ones aside.

        The index gives both ends of each site; a group-by would read all cases.
        """
        listed_sites = select_texts(self._transaction.engine, "sites").subquery("listed_sites")
        own_cases = (
            select(cases.c.occurred_at)
            .where(cases.c.rollout == self._rollout.number, cases.c.planted.is_(None))
            .where(cases.c.site == listed_sites.c.value)
            .limit(literal_column("1"))
        )
        ends = [
            own_cases.order_by(order).correlate(listed_sites).scalar_subquery().label(name)
            for name, order in (
                ("first", cases.c.occurred_at),
                ("last", cases.c.occurred_at.desc()),
            )
        ]
        texts = encode_driver_values(self._transaction.engine, sites)
        rows = self._transaction.execute(select(listed_sites.c.value, *ends), {"sites": texts})
        return {row.value: (row.first, row.last) for row in rows if row.first is not None}

    def load_last_heartbeat(self, site: str) -> int | None:
        """Return the time of a site's last heartbeat in microseconds, or None."""
        query = select(func.max(type_coerce(heartbeats.c.at, BigInteger))).where(
            heartbeats.c.rollout == self._rollout.number, heartbeats.c.site == site
        )
        at: int | None = self._transaction.execute(query).scalar_one()
        return at

    def load_heartbeats(
        self, site: str, *, after: int | None = None, received_since: datetime | None = None
    ) -> Sequence[int]:
        """Return the times of a site's heartbeats in microseconds, ascending.

        Optionally of those after a time, or received since another.
        """
        at = type_coerce(heartbeats.c.at, BigInteger)
        query = select(at).where(
            heartbeats.c.rollout == self._rollout.number,
            heartbeats.c.site == site,
            true() if after is None else at > after,
            true() if received_since is None else heartbeats.c.received_at >= received_since,
        )
        return self._transaction.execute(query.order_by(at)).scalars().all()
