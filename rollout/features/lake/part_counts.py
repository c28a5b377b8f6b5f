"""Count the units of one part of a history, which holds all records of its units.

Units are independent of each other but for one thing: whether a version was in use when a case
came, which the first unit that it predicted anywhere decides. So a part is counted twice where
some version lacks a prediction: alone, and with the uses of all parts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from io import BytesIO

import polars as pl
from msgspec.msgpack import decode, encode

from rollout.engine.evidence.case_placement import (
    PlacedHistory,
    find_prediction_spans,
    number_units,
    place_cases,
)
from rollout.engine.evidence.frames import RecordFrames, RecordKind
from rollout.engine.evidence.late_senders import LateCounts, count_late
from rollout.engine.evidence.picks import vouch_for_files
from rollout.engine.evidence.stage_history import build_stage_shares, draw_buckets
from rollout.engine.evidence.tallied_units import fill_attribute_values
from rollout.engine.evidence.version_uses import (
    NO_USES,
    Use,
    UseKey,
    VersionUses,
    drop_undrawn,
    find_uses,
)
from rollout.engine.files.cases import clear_prediction_times
from rollout.engine.records.records import RemarkReason
from rollout.features.replay.requests import (
    ReplayRequest,
    list_file_contents,
    read_request_records,
)
from rollout.kernel.policy.policy import Policy

COUNT_SCHEMA = {
    "track": pl.String(),
    "site": pl.String(),
    "window": pl.String(),
    "version": pl.String(),
    "slot": pl.Int64(),
    "occurred": pl.Int64(),
    "known": pl.Int64(),
    "lever": pl.String(),
    "predicted": pl.String(),
    "decided": pl.String(),
    "second": pl.String(),
    "level": pl.Int64(),
    "band": pl.Int64(),
    "bucket": pl.Int64(),
    "reviewer": pl.String(),
    "day": pl.Int64(),
    "slices": pl.String(),
    "attribute_values": pl.String(),
    "excluded": pl.String(),
}
"""Columns that tell counted classes of units apart; `n` is how many units are of a class."""
CLASS_COLUMNS = tuple(COUNT_SCHEMA)
COUNT = "n"
_NONE: frozenset[str] = frozenset()
DECISIONS = RecordKind.DECISIONS


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What parts of a history say of the whole.

    Attributes:
        spans: by version the times of its first and last prediction.
        begun: the first unit of each version in each cell.
        contents: by version the contents that its predictions declare.
        excluded: cases that can't be evidence, by reason.
        rows, used: rows read, and rows used, by kind of records.
        rejected: rows that can't be used, by kind and reason.
        unplaced: decisions on a case that no file has.
        late: predictions that came after a decision.
        cases, pairs: cases that can be evidence, and predictions of these.
    """

    spans: Mapping[str, tuple[datetime, datetime]] = field(default_factory=dict)
    begun: Mapping[UseKey, Use] = field(default_factory=dict)
    contents: Mapping[str, frozenset[str]] = field(default_factory=dict)
    excluded: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    used: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    unplaced: int = 0
    late: LateCounts = field(default_factory=LateCounts)
    cases: int = 0
    pairs: int = 0

    def merge(self, other: "PartFacts") -> "PartFacts":
        """Return the facts of both parts."""
        spans = dict(self.spans)
        for version, (first, last) in other.spans.items():
            own = spans.get(version, (first, last))
            spans[version] = min(own[0], first), max(own[1], last)
        begun = dict(self.begun)
        for key, use in other.begun.items():
            begun[key] = min(use, begun.get(key, use))
        return PartFacts(
            spans=spans,
            begun=begun,
            contents={
                version: self.contents.get(version, _NONE) | other.contents.get(version, _NONE)
                for version in {**self.contents, **other.contents}
            },
            excluded=_add_counts(self.excluded, other.excluded),
            rows=_add_counts(self.rows, other.rows),
            used=_add_counts(self.used, other.used),
            rejected=_add_counts(self.rejected, other.rejected),
            unplaced=self.unplaced + other.unplaced,
            late=self.late.add(other.late),
            cases=self.cases + other.cases,
            pairs=self.pairs + other.pairs,
        )


@dataclass(frozen=True, slots=True)
class PartCounts:
    """The counted classes of a part in the columns of `COUNT_SCHEMA` with `n`, and its facts."""

    counts: pl.DataFrame
    facts: PartFacts


@dataclass(frozen=True, slots=True)
class PartCounter:
    """Counts a part; one is sent to where the part is.

    Attributes:
        policy: whose units are counted.
        uses: those of the whole history; none at the first count.
        is_backtest: whether predictions count as made when their cases occurred.
    """

    policy: Policy
    uses: VersionUses = NO_USES
    is_backtest: bool = False

    def count(self, request: ReplayRequest) -> PartCounts:
        """Count the part that the request names.

        Raises:
            RolloutError: the files can't be read, or can be read in several ways.
        """
        policy, options = self.policy, request.options
        records = read_request_records(request, policy)
        late = count_late(records)
        if self.is_backtest:
            records = clear_prediction_times(records, late.late)
        records = drop_undrawn(vouch_for_files(records, policy.evidence.sources.vouched))
        history = place_cases(records, policy, options.salt, request.trained_until)
        history = replace(history, uses=self.uses)
        units = number_units(history, policy).list_units()
        facts = replace(_gather_facts(records, history), begun=find_uses(units), late=late)
        return PartCounts(count_classes(units, request, policy), facts)

    def count_packed(self, request: ReplayRequest) -> bytes:
        """Return the counts and facts of a part as bytes, for an engine that carries them."""
        part, content = self.count(request), BytesIO()
        part.counts.write_ipc(content)
        return encode((content.getvalue(), part.facts))


def unpack(packed: Iterable[bytes]) -> Iterable[PartCounts]:
    """Yield the counts of parts, as `PartCounter.count_packed` of this program packed them."""
    for part in packed:
        content, facts = decode(part, type=tuple[bytes, PartFacts])
        yield PartCounts(pl.read_ipc(BytesIO(content)), facts)


def count_classes(units: pl.DataFrame, request: ReplayRequest, policy: Policy) -> pl.DataFrame:
    """Count units by what tells them apart; of their keys the bucket drawn of them is left."""
    keys = units.select(pl.col("unit").unique()).to_series()
    salts = request.options.salt, request.options.audit_salt or request.options.salt
    buckets = draw_buckets(build_stage_shares(policy), *salts, keys.to_list())
    drawn = pl.DataFrame({"unit": keys, "bucket": pl.Series(buckets, dtype=pl.Int64)})
    bucketed = fill_attribute_values(units).join(drawn, on="unit")
    classes = bucketed.select(pl.col(name).cast(dtype) for name, dtype in COUNT_SCHEMA.items())
    return classes.group_by(CLASS_COLUMNS).agg(pl.len().cast(pl.Int64).alias(COUNT))


def merge_counts(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Return the counts of all parts, in the order of their columns."""
    empty = pl.DataFrame(schema={**COUNT_SCHEMA, COUNT: pl.Int64()})
    merged = pl.concat([empty, *parts]).group_by(CLASS_COLUMNS).agg(pl.col(COUNT).sum())
    return merged.sort(CLASS_COLUMNS)


def _gather_facts(records: RecordFrames, history: PlacedHistory) -> PartFacts:
    pairs = records.predictions.join(history.cases, on="case_key", how="semi")
    row_counts = {kind.value: count for kind, count in records.row_counts.items()}
    return PartFacts(
        spans=find_prediction_spans(records, history.cases),
        contents={name: frozenset({text}) for name, text in list_file_contents(records).items()},
        excluded=history.excluded,
        rows={name: count.rows for name, count in row_counts.items()},
        used={name: count.used for name, count in row_counts.items()},
        rejected={
            f"{name}: {reason}": rejected
            for name, count in row_counts.items()
            for reason, rejected in count.rejected.items()
        },
        unplaced=records.row_counts[DECISIONS].rejected.get(RemarkReason.NO_CASE_YET, 0),
        cases=history.cases.height,
        pairs=pairs.height,
    )


def _add_counts(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return {name: first.get(name, 0) + second.get(name, 0) for name in {**first, **second}}
