"""Count the units of a history that may be larger than a machine, and replay such counts.

Counts are what every statistic here needs: how many units of a cell, version and slot are of each
class. They are equal to those of a replay of the same records, on every engine
(`rollout.count_units`). A replay of counts says when and where a policy would have widened, without
the records themselves.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NoReturn

import narwhals as nw
import numpy as np
import polars as pl

from rollout.engine.evidence.frames import RecordKind
from rollout.engine.evidence.tallied_units import TalliedUnits, build_units
from rollout.engine.evidence.version_uses import VersionUses
from rollout.engine.files.files import RecordPaths
from rollout.engine.files.questions import EqualSides, OpenQuestionsError, PredictedAfterwards
from rollout.engine.files.side_comparison import MIN_PAIRS
from rollout.engine.slots.engine import (
    Replay,
    ReplayResult,
    find_continued_versions,
    list_first_uses,
    plan_retirements,
)
from rollout.engine.slots.options import ReplayOptions
from rollout.engine.words.formatting import format_percent, format_quantity
from rollout.features.lake.engines import (
    DUCKDB,
    POLARS,
    SPARK,
    LakeError,
    SplitHistory,
    Tables,
    UnitSplit,
    split_on_duckdb,
    split_on_polars,
    split_on_spark,
)
from rollout.features.lake.part_counts import (
    CLASS_COLUMNS,
    COUNT,
    PartCounter,
    PartFacts,
    merge_counts,
    unpack,
)
from rollout.features.replay.requests import (
    ADVICE,
    Progress,
    ReplayRequest,
    build_readings,
    build_request_columns,
)
from rollout.kernel.calendar.instants import to_instant, to_micros
from rollout.kernel.policy.gates import UnplacedDecisions
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import MISSING, SILENT, UNUSABLE

FORM: Final = "rollout counts"
"""Key of a Parquet file's metadata under which a file of counts says what was counted."""
PAIR_COLUMNS: Final = ("version", "lever", "site", "window", "human", "model")
MAX_LISTED_PAIRS: Final = 5
"""Divergences that are listed of a version and lever, the most frequent ones."""


@dataclass(frozen=True, slots=True)
class UnitCounts:
    """Counted units of a history.

    Attributes:
        frame: the columns of `COUNT_SCHEMA` and `n`, in their order.
        facts: what else the records say: versions, first uses, rows read and used.
        policy_hash: of the policy whose units they are.
        salt_hash: SHA-256 of the salts by which buckets and an episode's case were drawn.
    """

    frame: pl.DataFrame
    facts: PartFacts
    policy_hash: str
    salt_hash: str

    @property
    def hash(self) -> str:
        """Return the SHA-256 of the counts as CSV, equal for equal counts."""
        return sha256(self.frame.write_csv().encode()).hexdigest()

    @property
    def unit_count(self) -> int:
        """Return the number of rows of units that are evidence, over tracks, versions, levers."""
        return int(self.frame.filter(pl.col("excluded").is_null())[COUNT].sum())

    def count_pairs(self) -> pl.DataFrame:
        """Return the units that gates count with answers of both sides, most frequent first.

        A row has `PAIR_COLUMNS` and the number of `units`. They agree where `human` and `model` are
        equal; a model without a usable answer has the reason, such as `(failed)`.
        """
        judged = self.frame.filter(
            pl.col("track") == "gate",
            pl.col("excluded").is_null(),
            pl.col("decided") != MISSING,
            ~pl.col("predicted").is_in(sorted(SILENT)),
        ).rename({"decided": "human", "predicted": "model"})
        return _sum_pairs(judged.rename({COUNT: "units"}), PAIR_COLUMNS)

    def write(self, path: str | Path) -> None:
        """Write the counts to a file of Parquet, with what was counted in its metadata."""
        description = {
            "policy_hash": self.policy_hash,
            "salt_hash": self.salt_hash,
            "program": metadata.version("rollout-controller"),
            "hash": self.hash,
            "versions": {
                name: [first.isoformat(), last.isoformat()]
                for name, (first, last) in sorted(self.facts.spans.items())
            },
            "rows": self.facts.rows,
            "used": self.facts.used,
            "rejected": self.facts.rejected,
            "excluded_cases": self.facts.excluded,
            "contents": {name: sorted(texts) for name, texts in self.facts.contents.items()},
            "unplaced": self.facts.unplaced,
        }
        description["seal"] = seal(description)
        self.frame.write_parquet(path, metadata={FORM: json.dumps(description)})


def _sum_pairs(pairs: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    sums = pairs.group_by(columns).agg(pl.col("units").sum())
    return sums.sort("units", *columns, descending=[True, *(False for _ in columns)])


def describe_pairs(pairs: pl.DataFrame) -> Iterator[str]:
    """Yield in how many units each version agrees, and its most frequent divergences."""
    if pairs.is_empty():
        yield "No unit has answers of both sides"
    is_equal = pl.col("human") == pl.col("model")
    for (version, lever), rows in pairs.group_by("version", "lever", maintain_order=True):
        total, agreed = int(rows["units"].sum()), int(rows.filter(is_equal)["units"].sum())
        share = format_percent(agreed / total)
        yield f"{version} · {lever}: {agreed:,} of {format_quantity(total, 'unit')} agree ({share})"
        differing = _sum_pairs(rows.filter(~is_equal), ("human", "model"))
        for human, model, units in differing.head(MAX_LISTED_PAIRS).iter_rows():
            yield f"  human {human}, model {model}: {units:,}"


def seal(description: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a file says of its counts, without the seal itself."""
    rest = {name: value for name, value in description.items() if name != "seal"}
    return sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def count_units(  # noqa: PLR0913 - what decides how records are read and drawn
    cases: Any,
    predictions: Any,
    decisions: Any,
    policy: Policy,
    *,
    salts: tuple[bytes, bytes] = (bytes(32), b""),
    trained_until: Mapping[str, datetime] | None = None,
    outcomes: Any = None,
    columns: Sequence[str] = (),
    parts: int | None = None,
) -> UnitCounts:
    """Count the units of records in data frames of Polars, relations of DuckDB, or Spark's frames.

    Args:
        cases: sites, times and attributes of the cases; None if the others have them.
        predictions: of the model, with the columns of a file.
        decisions: of humans.
        policy: whose units are counted.
        salts: of a rollout and of its service's draws of audits; b"": the same.
        trained_until: end of the training data by version; earlier cases are no evidence.
        outcomes: what became known later; they count as the times of decisions.
        columns: names of columns, such as `predictions.case_key=image`.
        parts: number of parts on DuckDB and Spark; None: as memory asks for.

    Raises:
        LakeError: the frames are of no or of different engines, or can't be read.
        RolloutError: the records can't be used, or can be read in several ways.
    """
    frames = {
        RecordKind.CASES: cases,
        RecordKind.PREDICTIONS: predictions,
        RecordKind.DECISIONS: decisions,
        RecordKind.OUTCOMES: outcomes,
    }
    tables = {kind: frame for kind, frame in frames.items() if frame is not None}
    request = ReplayRequest(
        None,
        RecordPaths(Path("predictions"), Path("decisions")),
        column_mappings=tuple(columns),
        options=ReplayOptions(*salts),
        trained_until=trained_until or {},
    )
    return count_tables(request, policy, tables, parts=parts)


def count_tables(
    request: ReplayRequest,
    policy: Policy,
    tables: Tables,
    *,
    parts: int | None = None,
    progress: Progress = lambda *_: None,
) -> UnitCounts:
    """Count the units of tables of one engine, as `request` says that they are read.

    Raises:
        LakeError: the tables are of no or of different engines, or can't be read.
        RolloutError: the records can't be used, or can be read in several ways.
    """
    engines = {_find_engine(table) for table in tables.values()}
    if len(engines) > 1:
        raise LakeError(f"the frames are of {' and '.join(sorted(engines))}; give those of one")
    split = UnitSplit(
        build_request_columns(request, policy, build_readings(policy)),
        by_episode=policy.evidence.unit == "episode",
        parts=parts,
    )
    if missing := {RecordKind.PREDICTIONS, RecordKind.DECISIONS} - tables.keys():
        raise LakeError(f"no {' and no '.join(sorted(missing))}; give both")
    divide = {POLARS: split_on_polars, DUCKDB: split_on_duckdb, SPARK: split_on_spark}
    with TemporaryDirectory(prefix="rollout-count-") as folder:
        progress("Bringing units together", 0, 1)
        history = divide[engines.pop()](tables, split, Path(folder))
        progress("Bringing units together", 1, 1)
        return count_parts(request, policy, history, progress)


def _find_engine(table: Any) -> str:
    try:
        name = nw.from_native(table).implementation.value
    except TypeError:
        name = type(table).__name__
    engine = {"polars": POLARS, "duckdb": DUCKDB, "pyspark": SPARK, "pyspark[connect]": SPARK}.get(
        name
    )
    if engine is None:
        raise LakeError(f"a table is of {name}; give data frames of Polars, DuckDB or Spark")
    return engine


def count_parts(
    request: ReplayRequest,
    policy: Policy,
    history: SplitHistory,
    progress: Progress = lambda *_: None,
) -> UnitCounts:
    """Count the parts of a history, and once more where some version is silent.

    Raises:
        OpenQuestionsError: both sides agree everywhere, or predictions look like a backtest, and
            nobody said what that means.
        RolloutError: the records can't be used, or can be read in several ways.
    """
    request, counter = replace(request, whole=history.whole), PartCounter(policy)
    merged, facts = _count_once(request, counter, history, progress)
    _check_versions(request, facts)
    _check_backtest(request, facts)
    if request.choices.backtest and not facts.late.is_negligible:
        counter = replace(counter, is_backtest=True)
        merged, facts = _count_once(request, counter, history, progress)
    uses = _build_uses(policy, facts)
    if facts.pairs < facts.cases * len(facts.spans):
        counter = replace(counter, uses=uses)
        merged, facts = _count_once(request, counter, history, progress)
    if not request.choices.equal_sides:
        _check_equal_sides(request, policy, merged)
    return UnitCounts(merged, facts, policy.hash, hash_salts(request.options))


def hash_salts(options: ReplayOptions) -> str:
    """Return the SHA-256 of the salts of a replay: the rollout's and its service's."""
    return sha256(options.salt + (options.audit_salt or options.salt)).hexdigest()


def _count_once(
    request: ReplayRequest, counter: PartCounter, history: SplitHistory, progress: Progress
) -> tuple[pl.DataFrame, PartFacts]:
    # what all parts together look like is asked for them together
    choices = replace(request.choices, equal_sides=True, backtest=False, same_form=False)
    request = replace(request, choices=choices)

    def count_part(sources: RecordPaths) -> bytes:
        return counter.count_packed(replace(request, sources=sources))

    merged, facts = merge_counts([]), PartFacts()
    progress("Counting units", 0, history.parts)
    for done, part in enumerate(unpack(history.count_parts(count_part)), 1):
        merged, facts = merge_counts([merged, part.counts]), facts.merge(part.facts)
        progress("Counting units", done, history.parts)
    return merged, facts


def _build_uses(policy: Policy, facts: PartFacts) -> VersionUses:
    """Return since when, and until when, each version is in use.

    Raises:
        LakeError: versions of two names have one content.
        VersionsAtOnceError: too many versions were in use at once.
    """
    contents = list_contents(facts, policy)
    first_seen = {version: first for version, (first, _) in facts.spans.items()}
    last_seen = {version: last for version, (_, last) in facts.spans.items()}
    retirements = plan_retirements(first_seen, last_seen, contents)
    renamed = find_continued_versions(
        policy, [*list_first_uses(first_seen, contents), *retirements]
    )
    if renamed:
        names = ", ".join(f"{later} is {first}" for later, first in renamed.items())
        raise LakeError(f"by their content, {names}; give each version one name before counting")
    retired = {retirement.version: to_micros(retirement.at) for retirement in retirements}
    return VersionUses(facts.begun, retired)


def list_contents(facts: PartFacts, policy: Policy) -> dict[str, str]:
    """Return the content of each version that declares one.

    Raises:
        LakeError: a version has several.
    """
    declared = {version: {*contents} for version, contents in facts.contents.items()}
    for version, content in policy.contents_by_version.items():
        declared.setdefault(version, set()).add(content)
    several = [version for version, contents in declared.items() if len(contents) > 1]
    if several:
        raise LakeError(f"{', '.join(several)}: several contents; {ADVICE}")
    return {name: min(texts) for name, texts in declared.items()}


def _check_backtest(request: ReplayRequest, facts: PartFacts) -> None:
    """Raise if the predictions look like a backtest, and nobody said whether they count."""
    if request.choices.backtest is None and facts.late.is_backtest:
        file = request.sources.predictions.name
        question = PredictedAfterwards(file=file, decided=facts.late.sent, late=facts.late.late)
        raise OpenQuestionsError([question])


def _check_versions(request: ReplayRequest, facts: PartFacts) -> None:
    if not facts.spans:
        raise LakeError(
            "no prediction is of a case with a time, a site of the policy and a unit; rows used:"
            f" {', '.join(f'{n:,} {kind}' for kind, n in facts.used.items()) or 'none'}"
        )
    for version in request.trained_until:
        if version not in facts.spans:
            raise LakeError(
                f"--trained-until {version}: no prediction is by {version}; there are"
                f" {', '.join(sorted(facts.spans))}"
            )


def _check_equal_sides(request: ReplayRequest, policy: Policy, counts: pl.DataFrame) -> None:
    """Raise if humans and model agree in all of many units: they may be one source."""
    levers = [lever.id for lever in policy.levers if lever.number is None]
    compared = counts.filter(
        pl.col("track") == "guard",
        pl.col("lever").is_in(levers),
        ~pl.col("predicted").is_in([*SILENT, *UNUSABLE]),
        pl.col("decided") != MISSING,
    )
    pairs = int(compared[COUNT].sum())
    if pairs >= MIN_PAIRS and (compared["predicted"] == compared["decided"]).all():
        sources = request.sources
        names = f"{sources.predictions.name} and {sources.decisions.name}"
        raise OpenQuestionsError([EqualSides(file=names, pairs=pairs)])


class RecordlessFeeds:
    """The inputs of guards beside units: counts have none, so that nothing may ask for them."""

    def __init__(self, last_slot: int) -> None:
        self.last_slot = last_slot

    def refuse(self, *_: object) -> NoReturn:
        """Fail: `check_guards` refuses the policies whose guards would ask."""
        raise AssertionError("a guard reads records, which counts lack")

    read_answers = read_votes = read_outcomes = read_signs = refuse


def read_counts(path: str | Path, policy: Policy, options: ReplayOptions) -> UnitCounts:
    """Read a file of counts.

    Raises:
        LakeError: the file holds no counts, or those of another policy or salt.
        OSError: the file is missing.
    """
    name = Path(path).name
    try:
        description = json.loads(pl.read_parquet_metadata(path)[FORM])
        frame = pl.read_parquet(path)
        is_sealed = description["seal"] == seal(description)
        facts = PartFacts(
            spans={
                version: (datetime.fromisoformat(first), datetime.fromisoformat(last))
                for version, (first, last) in description["versions"].items()
            },
            contents={
                version: frozenset(texts) for version, texts in description["contents"].items()
            },
            excluded=description["excluded_cases"],
            rows=description["rows"],
            used=description["used"],
            rejected=description["rejected"],
            unplaced=description["unplaced"],
        )
        counts = UnitCounts(frame, facts, description["policy_hash"], description["salt_hash"])
    except (pl.exceptions.PolarsError, KeyError, TypeError, ValueError) as error:
        raise LakeError(f"{name} holds no counts; make it by `rollout count`") from error
    if tuple(frame.columns) != (*CLASS_COLUMNS, COUNT):
        raise LakeError(f"{name} holds no counts; make it by `rollout count`")
    others = {
        "policy": (counts.policy_hash, policy.hash),
        "salt": (counts.salt_hash, hash_salts(options)),
    }
    for what, (counted, expected) in others.items():
        if counted != expected:
            raise LakeError(
                f"{name} was counted with another {what}; count again, or give that {what}"
            )
    if not is_sealed or counts.hash != description["hash"]:
        raise LakeError(f"{name} was changed after it was counted; count again")
    return counts


def replay_counts(
    counts: UnitCounts, policy: Policy, options: ReplayOptions | None = None
) -> ReplayResult:
    """Return the replay of counted units; its ledger is that of a replay of their records.

    Raises:
        LakeError: a guard of the policy reads what counts lack, or no unit is evidence.
    """
    check_guards(policy)
    units = _build_unit_arrays(counts, policy)
    if not counts.unit_count:
        raise LakeError("nothing to replay: no unit is evidence; its column `excluded` says why")
    spans, contents = counts.facts.spans, list_contents(counts.facts, policy)
    first_seen = {version: first for version, (first, _) in spans.items()}
    last_seen = {version: last for version, (_, last) in spans.items()}
    engine = Replay(
        units,
        policy,
        RecordlessFeeds(units.last_slot),
        first_seen,
        options or ReplayOptions(),
        contents,
        plan_retirements(first_seen, last_seen, contents),
    )
    return engine.run()


def check_guards(policy: Policy) -> None:
    """Check that the policy's guards read units alone: one that sees nothing guards nothing.

    Raises:
        LakeError: the text names who reads more.
    """
    readers = [f"guard {g.id}" for g in policy.guards if g.condition.measure.reads_more]
    readers += [f"outcome {outcome.id}" for outcome in policy.outcomes]
    if readers:
        raise LakeError(
            f"counts hold units alone, and this policy reads more: {', '.join(readers)}; replay"
            " the records"
        )


def _build_unit_arrays(counts: UnitCounts, policy: Policy) -> TalliedUnits:
    """Return a unit for each that was counted; all of a bucket have one key."""
    frame = counts.frame
    rows = np.repeat(np.arange(frame.height), frame[COUNT].to_numpy())
    places = frame["bucket"].to_numpy()
    expanded = frame.select(pl.col(CLASS_COLUMNS).gather(rows)).with_columns(unit=places[rows])
    buckets = np.arange(int(places.max(initial=0)) + 1)
    arrays = build_units(expanded, policy, pl.Series(map(str, buckets), dtype=pl.String))
    unplaced, used = counts.facts.unplaced, counts.facts.used.get(RecordKind.DECISIONS.value, 0)
    return replace(arrays, buckets=buckets, unplaced=UnplacedDecisions(unplaced, used + unplaced))


def list_stages(result: ReplayResult) -> Iterator[tuple[str, str, str]]:
    """Yield each cell with the stages that it had: cell, time and what began then."""
    for cell, history in sorted(result.stage_histories.items()):
        name = f"{cell.site} · {cell.window}"
        if not history.slots:
            yield name, "", "shadow"
        for slot, level, version in zip(
            history.slots, history.stage_levels, history.versions, strict=True
        ):
            at = to_instant(slot, result.policy.tick)
            stage = result.policy.stage_ids[level]
            yield name, f"{at:%Y-%m-%d %H:%M} UTC", f"{stage} {version}".strip()
