"""Stored records as the frames that counting, replay and reports read.

Of a case and its predictions the revisions are used that `rollout.tally.picks` picks, of other
records the highest. A record without its case is omitted until the case arrives. A decision in a
review task takes precedence over decisions sent for the same reviewer.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from functools import cache, partial
from itertools import chain
from typing import Any, Final

import polars as pl
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Row,
    Table,
    func,
    select,
    type_coerce,
    union,
)

from rollout.core.calendar.instants import MICROSECOND
from rollout.core.policy.evidence_sources import ACCOUNT
from rollout.core.records.records import NAMED_BY_DECISION, is_registered, pick_first_draws
from rollout.core.records.reviews import SEEDED
from rollout.store.database.rollouts import Rollout, match_cases
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import CASE, EPISODE, ExternalKeys
from rollout.store.records.history_rows import (
    build_outcome_frames,
    build_own_predictions,
    build_probability_frame,
    build_unsourced,
    find_first_receipts,
    find_source_fault,
    pick_decisions,
    select_first_received,
    use_first_names,
)
from rollout.store.records.record_frames import (
    HISTORY_COLUMNS,
    build_case_frame,
    build_decision_frame,
    build_named_places,
    build_prediction_frame,
    build_row_class,
    choose_columns,
    parse_json,
)
from rollout.store.tables.columns import decode_instant
from rollout.store.tables.tables import cases, decisions, outcomes, predictions, reviews
from rollout.tally.case_draws import drop_undrawn
from rollout.tally.frames import (
    FIRST_DECISION_SCHEMA,
    GOLD_PREFIX,
    REMARK_SCHEMA,
    VALUE_PREFIX,
    RecordFrames,
    build_gold_schema,
)
from rollout.tally.picks import (
    find_case_receipts,
    find_first_decisions,
    pick_for_guards,
    pick_until_decision,
)
from rollout.tally.populations import split_populations

CASE_KEY: Final = ("case_id",)
PREDICTION_KEY: Final = ("case_id", "version")
ROWS_AT_ONCE: Final = 5_000  # fetching row by row took a quarter of a read
RowValues = dict[str, Any]
RowFilter = Callable[[Table, Sequence[Row[Any]]], Sequence[Row[Any]]]
"""Returns those of some records' rows of a table that are used."""


class StoredHistory:
    """The records of one rollout, for its policy's levers and attributes."""

    def __init__(
        self,
        transaction: Transaction,
        rollout: Rollout,
        *,
        levers: Sequence[str],
        attributes: Sequence[str] = (),
        outcomes: Sequence[str] = (),
        select_rows: RowFilter | None = None,
        first_names: Mapping[str, str] | None = None,
    ) -> None:
        """Use only rows that `select_rows` returns; name versions by `first_names`."""
        self._transaction = transaction
        self._rollout = rollout
        self._levers = levers
        self._attributes = attributes
        self._outcomes = outcomes
        self._select_rows = select_rows
        self._first_names = first_names or {}
        self.case_numbers: Mapping[str, int] = {}
        """Of the cases last loaded, by key."""
        self._parse_json = cache(parse_json)  # most answers and attributes are equal texts

    def load_records(
        self, case_ids: Collection[int] | None = None, *, with_probabilities: bool = False
    ) -> RecordFrames:
        """Return the records of some cases, by default of all."""
        decision_rows = self._load_rows(decisions, ("case_id", "reviewer"), case_ids)
        outcome_rows = self._load_rows(outcomes, CASE_KEY, case_ids)
        first_decisions = find_first_decisions(decision_rows, outcome_rows)
        first_receipts = find_case_receipts(decision_rows, outcome_rows)
        stored_cases = self._load_rows(cases, CASE_KEY, case_ids)
        place_rows = [row for row in stored_cases if row.revision == NAMED_BY_DECISION]
        sent_rows = [row for row in stored_cases if row.revision != NAMED_BY_DECISION]
        registered_rows = [row for row in sent_rows if is_registered(row.revision)]
        case_rows = pick_until_decision(registered_rows, CASE_KEY, first_decisions)
        has_others = len(registered_rows) < len(sent_rows)
        guard_rows = pick_for_guards(sent_rows, first_decisions) if has_others else ()
        picked_rows = [*place_rows, *guard_rows, *case_rows]
        keys = self._load_keys(CASE, (row.case_id for row in picked_rows))
        draws = pick_first_draws(stored_cases)
        self.case_numbers = {key: number for number, key in keys.items()}
        episodes = self._load_keys(EPISODE, (row.episode for row in picked_rows if row.episode))
        stored_predictions = self._load_rows(
            predictions, PREDICTION_KEY, case_ids, with_probabilities=with_probabilities
        )
        own_predictions = {
            (row.case_id, row.sender) for row in stored_predictions if row.sender is not None
        }
        prediction_rows = self._pick_predictions(stored_predictions, first_decisions)
        occurred_times = {row.case_id: row.occurred_at for row in picked_rows}
        sourced_rows, unsourced_rows = _split_decisions(decision_rows, own_predictions)
        levers, parse_json = self._levers, self._parse_json
        build_cases = partial(
            build_case_frame,
            keys=keys,
            episodes=episodes,
            attributes=self._attributes,
            parse_json=parse_json,
            draws=draws,
        )
        no_remarks = pl.DataFrame(schema=REMARK_SCHEMA)
        newest_outcomes, earlier_outcomes = build_outcome_frames(
            keys,
            outcome_rows,
            levers=levers,
            outcomes=self._outcomes,
            parse_json=parse_json,
        )
        records = RecordFrames(
            cases=build_cases(case_rows),
            guard_cases=build_cases(guard_rows),
            predictions=use_first_names(
                build_prediction_frame(prediction_rows, keys, levers, parse_json, occurred_times),
                self._first_names,
            ),
            decisions=build_decision_frame(pick_decisions(sourced_rows), keys, levers, parse_json),
            unsourced_decisions=build_unsourced(keys, unsourced_rows),
            outcomes=newest_outcomes,
            earlier_outcomes=earlier_outcomes,
            first_decisions=pl.DataFrame(
                [
                    (keys[n], at, first_receipts[n])
                    for n, at in first_decisions.items()
                    if n in keys
                ],
                schema=FIRST_DECISION_SCHEMA,
                orient="row",
            ),
            named_places=build_named_places(
                place_rows,
                keys,
                own_predictions | {(row.case_id, row.sender) for row in sent_rows if place_rows},
                draws,
            ),
            own_predictions=_select_own_predictions(outcome_rows, stored_predictions, keys),
            gold_decisions=pl.DataFrame(
                [
                    {"case_key": keys[row.case_id], **self._build_gold_decision(row)}
                    for row in self._load_gold_tasks(case_ids)
                    if row.case_id in keys
                ],
                schema=build_gold_schema(levers),
            ),
            probabilities=use_first_names(
                build_probability_frame(keys, prediction_rows if with_probabilities else ()),
                self._first_names,
            ),
            rejected=no_remarks,
            notes=no_remarks,
            row_counts={},
        )
        if draws:
            records = drop_undrawn(records, self._first_names)
        planted_keys = {keys[row.case_id] for row in picked_rows if row.planted}
        return split_populations(records, planted_keys)

    def add_episode_cases(self, case_ids: Collection[int]) -> set[int]:
        """Return the cases together with all others of their episodes."""
        episodes = select(cases.c.episode).where(
            *self._match_cases(cases, case_ids)
        )  # excludes null, which would make SQLite read all cases by another index
        query = select(cases.c.case_id).where(
            cases.c.rollout == self._rollout.number, cases.c.episode.in_(episodes)
        )
        return {*case_ids, *self._transaction.execute(query).scalars()}

    def add_span_cases(self, case_ids: Collection[int], span: timedelta) -> set[int]:
        """Return cases without an episode, of the same sites and clock spans."""
        own_cases, other_cases = cases.alias("own"), cases.alias("other")
        span_micros = span // MICROSECOND
        span_start = (type_coerce(own_cases.c.occurred_at, BigInteger) // span_micros) * span_micros
        occurred_micros = type_coerce(other_cases.c.occurred_at, BigInteger)
        query = select(other_cases.c.case_id).where(
            *self._match_cases(own_cases, case_ids),
            own_cases.c.episode.is_(None),
            other_cases.c.rollout == own_cases.c.rollout,
            other_cases.c.site == own_cases.c.site,
            occurred_micros >= span_start,
            occurred_micros < span_start + span_micros,
            other_cases.c.episode.is_(None),
        )
        return set(self._transaction.execute(query).scalars())

    def load_confidences(self, case_ids: Collection[int]) -> Mapping[tuple[int, str], float | None]:
        """Return the confidence of each prediction, by case and version."""
        stored_rows = self._load_rows(predictions, PREDICTION_KEY, case_ids)
        rows = self._pick_predictions(stored_rows, self._load_first_decisions(case_ids))
        names = self._first_names
        return {(row.case_id, names.get(row.version, row.version)): row.confidence for row in rows}

    def find_recent_cases(self, since: datetime) -> set[int]:
        """Return the cases with a record since a time.

        The record's own time is compared.
        """
        times_by_table = (
            (cases, cases.c.occurred_at),
            (predictions, predictions.c.at),
            (decisions, decisions.c.submitted_at),
            (outcomes, outcomes.c.at),
        )
        queries = (
            select(table.c.case_id).where(table.c.rollout == self._rollout.number, at >= since)
            for table, at in times_by_table
        )
        return set(self._transaction.execute(union(*queries)).scalars())

    def sort_by_site(self, case_ids: Collection[int]) -> Sequence[int]:
        """Return the cases that are stored, those of a site together."""
        query = select(cases.c.site, cases.c.case_id).where(*self._match_cases(cases, case_ids))
        sites = {row.case_id: row.site for row in self._transaction.execute(query)}
        return sorted(sites, key=lambda case_id: (sites[case_id], case_id))

    def _pick_predictions(
        self, stored_rows: Sequence[Row[Any]], first_decisions: Mapping[int, int]
    ) -> Collection[Row[Any]]:
        """Return one prediction a case and version, whatever names the version has."""
        rows = pick_until_decision(stored_rows, PREDICTION_KEY, first_decisions)
        if not self._first_names:
            return rows
        return select_first_received(rows, find_first_receipts(stored_rows), self._first_names)

    def _load_rows(
        self,
        table: Table,
        key_columns: Sequence[str],
        case_ids: Collection[int] | None,
        *conditions: ColumnElement[bool],
        with_probabilities: bool = False,
    ) -> Sequence[Row[Any]]:
        conditions = (*self._match_cases(table, case_ids), *conditions)
        names = choose_columns(
            table,
            with_hashes=self._select_rows is not None,
            with_probabilities=with_probabilities,
        )
        columns = HISTORY_COLUMNS[table.name]
        query = select(*(columns[name] for name in names)).where(*conditions)
        query = query.order_by(*(table.c[name] for name in key_columns), table.c.revision)
        result = self._transaction.execute(query)
        # by the class's own methods a row takes three times as long
        build_row = partial(tuple.__new__, build_row_class(table.name, names))
        stored_rows = chain.from_iterable(result.partitions(ROWS_AT_ONCE))
        rows: Sequence[Any] = list(map(build_row, stored_rows))
        return rows if self._select_rows is None else self._select_rows(table, rows)

    def _load_first_decisions(self, case_ids: Collection[int] | None) -> dict[int, int]:
        """Return by case when it was decided first, in microseconds."""
        decision_rows = self._load_rows(decisions, ("case_id", "reviewer"), case_ids)
        return find_first_decisions(decision_rows, self._load_rows(outcomes, CASE_KEY, case_ids))

    def _match_cases(
        self, table: FromClause, case_ids: Collection[int] | None
    ) -> tuple[ColumnElement[bool], ...]:
        return match_cases(self._transaction, self._rollout, table, case_ids)

    def _build_gold_conditions(
        self, case_ids: Collection[int] | None = None
    ) -> tuple[ColumnElement[bool], ...]:
        is_decided_gold = (reviews.c.kind == SEEDED, reviews.c.gold_decision.is_not(None))
        return (*self._match_cases(reviews, case_ids), *is_decided_gold)

    def _load_gold_tasks(self, case_ids: Collection[int] | None) -> Iterable[Row[Any]]:
        """Return the decisions on gold cases, in the order of cases."""
        query = select(reviews).where(*self._build_gold_conditions(case_ids))
        return self._transaction.execute(query.order_by(reviews.c.case_id, reviews.c.reviewer))

    def _load_keys(self, kind: str, numbers: Iterable[int]) -> Mapping[int, str]:
        return ExternalKeys(self._transaction, self._rollout, kind).find_keys(set(numbers))

    def _build_gold_decision(self, row: Row[Any]) -> RowValues:
        """Return a decision on a gold case with the known answer."""
        started_at = row.gold_decision["started_at"]
        answers = {
            VALUE_PREFIX + lever: row.gold_decision["answers"].get(lever) for lever in self._levers
        }
        return {
            "reviewer": row.reviewer,
            **answers,
            **{GOLD_PREFIX + lever: row.gold_answers.get(lever) for lever in self._levers},
            "unsure": row.gold_decision["unsure"] or None in answers.values(),
            "at": decode_instant(row.gold_decision["submitted_at"]),
            "started_at": None if started_at is None else decode_instant(started_at),
        }


def _split_decisions(
    rows: Iterable[Row[Any]], own_predictions: AbstractSet[tuple[int, str]]
) -> tuple[Sequence[Row[Any]], Sequence[tuple[Row[Any], str]]]:
    """Return decisions of a source of evidence; then the others, which replace none."""
    sourced: list[Row[Any]] = []
    unsourced: list[tuple[Row[Any], str]] = []
    for row in rows:
        if reason := find_source_fault(row, own_predictions):
            unsourced.append((row, reason))
        else:
            sourced.append(row)
    return sourced, unsourced


def _select_own_predictions(
    outcome_rows: Iterable[Row[Any]],
    prediction_rows: Iterable[Row[Any]],
    keys: Mapping[int, str],
) -> pl.DataFrame:
    """Return which cases were predicted by accounts that sent outcomes, also of other cases."""
    senders = {row.sender for row in outcome_rows if row.source_kind == ACCOUNT}
    return build_own_predictions(keys, (row for row in prediction_rows if row.sender in senders))


def count_case_records(
    transaction: Transaction, rollout: Rollout, case_ids: Collection[int]
) -> Counter[int]:
    """Return by case how many records are stored, in all revisions.

    Records are only added, or all deleted with their case: as many as before are the same ones.
    """
    row_counts: Counter[int] = Counter()
    for table in (cases, predictions, decisions, outcomes):
        query = select(table.c.case_id, func.count().label("n")).group_by(table.c.case_id)
        conditions = match_cases(transaction, rollout, table, case_ids)
        for row in transaction.execute(query.where(*conditions)).all():
            row_counts[row.case_id] += row.n
    return row_counts
