"""Stored records as the frames that counting, replay and reports read.

Of a case and its predictions the revisions are used that `rollout.engine.evidence.picks` picks, of
other records the highest. A record without its case is omitted until the case arrives. A decision
in a review task takes precedence over decisions sent for the same reviewer.

Frames are built column by column, with instants as the numbers that are stored: frames of a
dictionary a row took half of a read, and aware datetimes a hundred times as long as numbers.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from functools import cache, partial
from itertools import chain, groupby
from json import loads
from operator import attrgetter
from typing import Any, Final, NamedTuple

import polars as pl
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    FromClause,
    Row,
    Table,
    Text,
    case,
    select,
    type_coerce,
    union,
)

from rollout.data.database.rollouts import Rollout, RolloutRepository, match_cases
from rollout.data.database.session import Transaction
from rollout.data.records.external_keys import CASE, EPISODE, ExternalKeys
from rollout.data.records.versions import (
    drop_later_corrections,
    find_first_receipts,
    select_first_received,
)
from rollout.data.tables.record_tables import InstantType, JsonType, decode_instant, encode_json
from rollout.data.tables.tables import cases, decisions, outcomes, predictions, reviews
from rollout.data.tables.tables import outcomes as stored_outcomes
from rollout.engine.evidence.case_placement import split_populations
from rollout.engine.evidence.frames import (
    ATTRIBUTE_PREFIX,
    FIRST_DECISION_SCHEMA,
    GOLD_PREFIX,
    INSTANT,
    NAMED_PLACE_SCHEMA,
    OUTCOME_FAULT,
    OUTCOME_PREFIX,
    OUTCOME_SOURCE,
    OUTCOME_SOURCE_SCHEMA,
    OWN_PREDICTION_SCHEMA,
    PROBABILITY_SCHEMA,
    REMARK_SCHEMA,
    UNSOURCED_SCHEMA,
    VALUE_PREFIX,
    RecordFrames,
    build_cases_schema,
    build_decisions_schema,
    build_gold_schema,
    build_outcomes_schema,
    build_predictions_schema,
)
from rollout.engine.evidence.picks import (
    find_case_receipts,
    find_first_decisions,
    find_known_time,
    pick_decisions,
    pick_for_guards,
    pick_replaced_decisions,
    pick_until_decision,
)
from rollout.engine.evidence.version_uses import DRAWS, drop_undrawn
from rollout.engine.records.records import (
    NAMED_BY_DECISION,
    UNTIMED,
    is_registered,
    pick_first_draws,
)
from rollout.engine.records.reviews import SEEDED
from rollout.kernel.calendar.instants import MICROSECOND, SECOND
from rollout.kernel.policy.evidence_sources import (
    ACCOUNT,
    NOT_NAMED,
    OWN_PREDICTION,
    UNNAMED,
    name_sender,
)

STORED_TYPES: Final = ((JsonType, Text), (InstantType, BigInteger))
READ_COLUMNS: Final = {
    cases: (
        "case_id revision site occurred_at received_at episode attributes sender planted vouched"
        " draws"
    ),
    predictions: (
        "case_id version answers confidence latency_ms error at received_at sender vouched"
        " probabilities"
    ),
    decisions: (
        "case_id reviewer answers unsure exposure task_number started_at submitted_at received_at"
        " review source sender"
    ),
    outcomes: "case_id answers harm at received_at sender outcome_values source_kind",
}
"""The columns that histories read: each costs as much as a twentieth of its rows."""
PROBABILITIES: Final = "probabilities"
RECORD_HASH: Final = "record_hash"
UNTIMED_TEXT: Final = encode_json(dict(UNTIMED))


def parse_json(text: str | None) -> Any:
    """Return the value of stored JSON; None for null."""
    return None if text is None else loads(text)


def _select_as_stored(column: Column[Any]) -> ColumnElement[Any]:
    for column_type, stored_type in STORED_TYPES:
        if isinstance(column.type, column_type):
            return type_coerce(column, stored_type).label(column.name)
    return column


HISTORY_COLUMNS: Final = {
    table.name: {name: _select_as_stored(table.c[name]) for name in names.split()}
    | {RECORD_HASH: table.c.record_hash}
    for table, names in READ_COLUMNS.items()
}
"""The columns by table. JSON is text, so that a reader can parse equal texts once; instants are
microseconds since 1970."""


def choose_columns(table: Table, *, with_hashes: bool, with_probabilities: bool) -> tuple[str, ...]:
    """Return the names of the columns to read."""
    unread = {RECORD_HASH: not with_hashes, PROBABILITIES: not with_probabilities}
    return tuple(name for name in HISTORY_COLUMNS[table.name] if not unread.get(name))


@cache
def build_row_class(table_name: str, names: tuple[str, ...]) -> Any:
    """Return a class of rows: SQLAlchemy's take several times as long to look up a name."""
    return NamedTuple(f"{table_name}_row", [(name, Any) for name in names])


JsonParser = Callable[[str | None], Any]
KeysById = Mapping[int, str]


def build_case_frame(
    rows: Iterable[Row[Any]],
    keys: KeysById,
    episodes: KeysById,
    attributes: Sequence[str],
    parse_json: JsonParser,
    draws: Mapping[int, str],
) -> pl.DataFrame:
    """Return cases as a frame; `draws` are those of cases that have any, by number."""
    columns = split_columns(cases, rows, keys)
    occurred_at = pl.Series(columns["occurred_at"], dtype=INSTANT)
    known_at = [
        find_known_time(*times)
        for times in zip(
            columns["received_at"], columns["occurred_at"], columns["vouched"], strict=True
        )
    ]
    values = {
        "case_key": columns["case_key"],
        "site": columns["site"],
        "occurred_at": occurred_at,
        "occurred_text": _format_instants(occurred_at),
        "hour_written": occurred_at.dt.hour(),
        "episode": [episodes.get(episode) for episode in columns["episode"]],
        "received_at": columns["received_at"],
        "known_at": known_at,
        DRAWS: list(map(draws.get, columns["case_id"])),
        **read_values(columns["attributes"], ATTRIBUTE_PREFIX, attributes, parse_json),
    }
    return pl.DataFrame(values, schema=build_cases_schema(attributes))


def build_named_places(
    rows: Iterable[Row[Any]],
    keys: KeysById,
    own_records: Collection[tuple[int, str | None]],
    draws: Mapping[int, str],
) -> pl.DataFrame:
    """Return what decisions say of the places of their cases, as a frame.

    `own_records` are case and sender of the cases and predictions: who sent them moves no case.
    """
    columns = split_columns(cases, rows, keys)
    values: dict[str, Sequence[Any]] = {
        name: columns[name] for name in ("case_key", "site", "occurred_at", "received_at")
    }
    has_time = [attributes != UNTIMED_TEXT for attributes in columns["attributes"]]
    senders = zip(columns["case_id"], columns["sender"], strict=True)
    may_move = [sender not in own_records for sender in senders]
    marks: dict[str, Sequence[Any]] = {"has_time": has_time, "may_move": may_move}
    marks[DRAWS] = list(map(draws.get, columns["case_id"]))
    return pl.DataFrame({**values, **marks}, schema=NAMED_PLACE_SCHEMA)


def build_prediction_frame(
    rows: Iterable[Row[Any]],
    keys: KeysById,
    levers: Sequence[str],
    parse_json: JsonParser,
    occurred_times: Mapping[int, int],
) -> pl.DataFrame:
    """Return predictions as a frame; `occurred_times` are those of their cases, by number."""
    columns = split_columns(predictions, rows, keys)
    known_at = [
        find_known_time(received_at, occurred_times[case_id], vouched)
        for case_id, received_at, vouched in zip(
            columns["case_id"], columns["received_at"], columns["vouched"], strict=True
        )
    ]
    values = {
        "case_key": columns["case_key"],
        "version": columns["version"],
        **read_values(columns["answers"], VALUE_PREFIX, levers, parse_json),
        "confidence": columns["confidence"],
        "at": columns["at"],
        "latency_ms": columns["latency_ms"],
        "error": columns["error"],
        "received_at": columns["received_at"],
        "known_at": known_at,
    }
    return pl.DataFrame(values, schema=build_predictions_schema(levers))


def build_decision_frame(
    rows: Iterable[Row[Any]], keys: KeysById, levers: Sequence[str], parse_json: JsonParser
) -> pl.DataFrame:
    """Return decisions as a frame."""
    columns = split_columns(decisions, rows, keys)
    texts, own_times = columns["answers"], columns["submitted_at"]
    answers = read_values(texts, VALUE_PREFIX, levers, parse_json)
    missing = {
        text
        for lever_answers in answers.values()
        for text, answer in zip(texts, lever_answers, strict=True)
        if answer is None
    }
    values = {
        "case_key": columns["case_key"],
        "reviewer": columns["reviewer"],
        **answers,
        "unsure": [
            unsure or text in missing for unsure, text in zip(columns["unsure"], texts, strict=True)
        ],
        "exposure": columns["exposure"],
        "seat": columns["task_number"],
        "at": [
            received_at if at is None else at
            for at, received_at in zip(own_times, columns["received_at"], strict=True)
        ],
        "started_at": [
            None if at is None else started_at
            for at, started_at in zip(own_times, columns["started_at"], strict=True)
        ],
        "source": [
            sender if source == ACCOUNT else source
            for source, sender in zip(columns["source"], columns["sender"], strict=True)
        ],
        "received_at": columns["received_at"],
    }
    return pl.DataFrame(values, schema=build_decisions_schema(levers))


def split_columns(
    table: Table, rows: Iterable[Row[Any]], keys: KeysById
) -> Mapping[str, Sequence[Any]]:
    """Return the columns of the rows of cases with a key, and `case_key`."""
    known_rows = [row for row in rows if row.case_id in keys]
    columns: dict[str, Sequence[Any]] = dict.fromkeys(HISTORY_COLUMNS[table.name], ())
    if known_rows:
        columns.update(zip(known_rows[0]._fields, zip(*known_rows, strict=True), strict=True))
    return {**columns, "case_key": [keys[case_id] for case_id in columns["case_id"]]}


def read_values(
    texts: Sequence[str | None], prefix: str, names: Sequence[str], parse_json: JsonParser
) -> dict[str, list[Any]]:
    """Return the values of stored JSON by prefixed name; equal texts are parsed once."""
    parsed = {text: parse_json(text) or {} for text in set(texts)}
    return {prefix + name: [parsed[text].get(name) for text in texts] for name in names}


def _format_instants(instants: pl.Series) -> pl.Series:
    """Return instants as `datetime.isoformat` writes them, without a fraction of zero."""
    whole = instants.dt.strftime("%Y-%m-%dT%H:%M:%S+00:00")
    is_whole = instants.to_physical() % SECOND == 0
    return whole.zip_with(is_whole, instants.dt.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00"))


def find_source_fault(row: Row[Any], own_predictions: AbstractSet[tuple[int, str]]) -> str:
    """Return why a decision is from no source of evidence, or ""."""
    if row.source == UNNAMED:
        return NOT_NAMED
    if row.source == ACCOUNT and (row.case_id, row.sender) in own_predictions:
        return OWN_PREDICTION
    return ""


def build_unsourced(keys: Mapping[int, str], rows: Iterable[tuple[Row[Any], str]]) -> pl.DataFrame:
    """Return decisions of no source of evidence as a frame."""
    values = [
        (keys[row.case_id], row.reviewer, row.sender, reason)
        for row, reason in rows
        if row.case_id in keys
    ]
    return pl.DataFrame(values, schema=UNSOURCED_SCHEMA, orient="row")


def build_outcome_frames(
    keys: Mapping[int, str],
    rows: Iterable[Row[Any]],
    *,
    levers: Sequence[str],
    outcomes: Sequence[str],
    parse_json: JsonParser,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return each case's newest revision, then the earlier ones, oldest first.

    Args:
        keys: the cases' keys by number; others are omitted.
        rows: in the order of cases and revisions.
        levers: ids of levers.
        outcomes: ids of outcomes.
        parse_json: reads stored answers and values.
    """
    newest: list[Row[Any]] = []
    earlier: list[Row[Any]] = []
    for _, group in groupby(rows, key=attrgetter("case_id")):
        *before, last = group
        earlier += before
        newest.append(last)

    def build_frame(some_rows: Sequence[Row[Any]]) -> pl.DataFrame:
        columns = split_columns(stored_outcomes, some_rows, keys)
        sources = list(zip(columns["source_kind"], columns["sender"], strict=True))
        values = {
            "case_key": columns["case_key"],
            **read_values(columns["answers"], VALUE_PREFIX, levers, parse_json),
            **read_values(columns["outcome_values"], OUTCOME_PREFIX, outcomes, parse_json),
            "harm": columns["harm"],
            "at": columns["at"],
            OUTCOME_SOURCE: [
                None if kind is None else name_sender(sender, is_review=False)
                for kind, sender in sources
            ],
            OUTCOME_FAULT: [NOT_NAMED if kind == UNNAMED else None for kind, _ in sources],
            "received_at": columns["received_at"],
        }
        return pl.DataFrame(values, schema=schema)

    schema = build_outcomes_schema(levers, outcomes) | OUTCOME_SOURCE_SCHEMA
    return build_frame(newest), build_frame(earlier)


def build_own_predictions(keys: Mapping[int, str], rows: Iterable[Row[Any]]) -> pl.DataFrame:
    """Return the case and sender of predictions as a frame."""
    senders = {(keys[row.case_id], row.sender) for row in rows if row.case_id in keys}
    return pl.DataFrame(sorted(senders), schema=OWN_PREDICTION_SCHEMA, orient="row")


def build_probability_frame(keys: Mapping[int, str], rows: Iterable[Row[Any]]) -> pl.DataFrame:
    """Return what predictions give to each label that they list.

    The rows hold JSON as stored.
    """
    values = [
        (keys[row.case_id], row.version, label, probability)
        for row in rows
        if row.case_id in keys and row.probabilities
        for label, probability in loads(row.probabilities).items()
    ]
    return pl.DataFrame(values, schema=PROBABILITY_SCHEMA, orient="row")


def use_first_names(frame: pl.DataFrame, first_names: Mapping[str, str]) -> pl.DataFrame:
    """Return a frame with a column `version`, with the first name of each version."""
    return frame.with_columns(pl.col("version").replace(dict(first_names)))


CASE_KEY: Final = ("case_id",)
PREDICTION_KEY: Final = ("case_id", "version")
ROWS_AT_ONCE: Final = 5_000  # fetching row by row took a quarter of a read
RowValues = dict[str, Any]
RowFilter = Callable[[Table, Sequence[Row[Any]]], Sequence[Row[Any]]]
"""Returns those of some records' rows of a table that are used."""


class StoredHistory(RolloutRepository):
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
        super().__init__(transaction, rollout)
        self._levers = levers
        self._attributes = attributes
        self._outcomes = outcomes
        self._select_rows = select_rows
        self._first_names = first_names or {}
        self.case_numbers: Mapping[str, int] = {}
        """Of the cases last loaded, by key."""
        self._parse_json = cache(parse_json)  # most answers and attributes are equal texts

    def load_records(
        self, case_ids: Collection[int] | None = None, *, for_report: bool = False
    ) -> RecordFrames:
        """Return the records of some cases, by default of all.

        Probabilities and decisions on gold cases, which nothing counts, are read for reports.
        """
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
            predictions, PREDICTION_KEY, case_ids, with_probabilities=for_report
        )
        own_predictions = {
            (row.case_id, row.sender) for row in stored_predictions if row.sender is not None
        }
        prediction_rows = self._pick_predictions(stored_predictions, first_decisions)
        occurred_times = {row.case_id: row.occurred_at for row in picked_rows}
        sourced_rows, unsourced_rows = _split_decisions(decision_rows, own_predictions)
        sourced_decisions = find_first_decisions(
            sourced_rows,
            (
                row
                for row in outcome_rows
                if row.source_kind != UNNAMED and (row.case_id, row.sender) not in own_predictions
            ),
        )
        levers, parse_json = self._levers, self._parse_json
        build_cases = partial(
            build_case_frame,
            keys=keys,
            episodes=episodes,
            attributes=self._attributes,
            parse_json=parse_json,
            draws=draws,
        )
        build_decisions = partial(
            build_decision_frame, keys=keys, levers=levers, parse_json=parse_json
        )
        picked_decisions = pick_decisions(sourced_rows)
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
            decisions=build_decisions(picked_decisions),
            earlier_decisions=build_decisions(
                pick_replaced_decisions(sourced_rows, picked_decisions)
            ),
            unsourced_decisions=build_unsourced(keys, unsourced_rows),
            outcomes=newest_outcomes,
            earlier_outcomes=earlier_outcomes,
            first_decisions=pl.DataFrame(
                [
                    (keys[n], at, first_receipts[n], sourced_decisions.get(n))
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
                    for row in (self._load_gold_tasks(case_ids) if for_report else ())
                    if row.case_id in keys
                ],
                schema=build_gold_schema(levers),
            ),
            probabilities=use_first_names(
                build_probability_frame(keys, prediction_rows if for_report else ()),
                self._first_names,
            ),
            rejected=pl.DataFrame(schema=REMARK_SCHEMA),
            notes=pl.DataFrame(schema=REMARK_SCHEMA),
            row_counts={},
        )
        if draws:
            records = drop_undrawn(records, self._first_names)
        return split_populations(records, {keys[row.case_id] for row in picked_rows if row.planted})

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
        rows = self._pick_predictions(
            self._load_rows(predictions, PREDICTION_KEY, case_ids),
            self._load_first_decisions(case_ids),
        )
        return {
            (row.case_id, self._first_names.get(row.version, row.version)): row.confidence
            for row in rows
        }

    def find_recent_cases(self, since: datetime) -> set[int]:
        """Return the cases with a record since a time, by its own time; or with a harm received."""
        times_by_table = (
            (cases, cases.c.occurred_at),
            (predictions, predictions.c.at),
            (predictions, predictions.c.received_at),
            (decisions, decisions.c.submitted_at),
            (outcomes, outcomes.c.at),
            (outcomes, case((outcomes.c.harm.is_not(None), outcomes.c.received_at))),
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
        if len(rows) < len(stored_rows):
            rows = pick_until_decision(
                drop_later_corrections(self._transaction, self._rollout, stored_rows),
                PREDICTION_KEY,
                first_decisions,
            )
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
        query = select(*(HISTORY_COLUMNS[table.name][name] for name in names)).where(*conditions)
        query = query.order_by(*(table.c[name] for name in key_columns), table.c.revision)
        result = self._transaction.execute(query)
        # by the class's own methods a row takes three times as long
        build_row = partial(tuple.__new__, build_row_class(table.name, names))
        stored_rows = chain.from_iterable(result.partitions(ROWS_AT_ONCE))
        rows = [*map(build_row, stored_rows)]
        return rows if self._select_rows is None else self._select_rows(table, rows)

    def _load_first_decisions(self, case_ids: Collection[int] | None) -> dict[int, int]:
        """Return by case when it was decided first, in microseconds."""
        return find_first_decisions(
            self._load_rows(decisions, ("case_id", "reviewer"), case_ids),
            self._load_rows(outcomes, CASE_KEY, case_ids),
        )

    def _match_cases(
        self, table: FromClause, case_ids: Collection[int] | None
    ) -> tuple[ColumnElement[bool], ...]:
        return match_cases(self._transaction, self._rollout, table, case_ids)

    def _load_gold_tasks(self, case_ids: Collection[int] | None) -> Iterable[Row[Any]]:
        """Return the decisions on gold cases, in the order of cases."""
        is_decided_gold = (reviews.c.kind == SEEDED, reviews.c.gold_decision.is_not(None))
        query = select(reviews).where(*self._match_cases(reviews, case_ids), *is_decided_gold)
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
