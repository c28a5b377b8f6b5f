"""What a version's figures cost in a store, by the sums and losses that counting keeps.

A part of `figures.py`: pairs of its file are kept as counting would, and read as the service does.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

READS = 9  # of which the mean is taken
AT = datetime(2026, 11, 2, tzinfo=UTC)  # when the pairs of a store were
POLICY = f"""
rollout: bench
timezone: UTC
levers: [{{id: label, labels: [{", ".join(f"label-{n}" for n in range(10))}]}}]
sites: [{", ".join(f"site-{n:02}" for n in range(50))}]
evidence: {{unit: case}}
gates: [{{to: supervised, require: [{{measure: agreement, at_least: 95%}}]}}]
"""
Figures = dict[str, Any]


def by_store(file: Path, pairs: int) -> Callable[[], Figures]:
    """Keep the sums and losses of a file's pairs as counting would, and read them as served."""
    from rollout.data.counting.counter import Matrices
    from rollout.data.database.migrations import upgrade
    from rollout.data.database.session import Database
    from rollout.engine.decide.permissions import AssignedRole, Caller
    from rollout.features.divergences.case_explanation import load_costliest_counted_pairs
    from rollout.features.replay.compare import compare
    from rollout.features.reports.figures.comparison import compute_comparisons

    url = f"sqlite:///{file}.db"
    upgrade(url)
    database = Database(url)
    rollout = store_pairs(database, file)
    right = [loss.case_key for loss in compare(file).top_losses]
    viewer = Caller("viewer", role_assignments=(AssignedRole("viewer"),))

    def read_sums() -> str:
        with database.begin_read() as transaction:
            frame = Matrices(transaction, rollout).load_frame(track="gate", version="v1")
        (comparison,) = compute_comparisons(frame)
        assert comparison.agreement.n == pairs  # noqa: S101 - it is what we measure
        return f"{frame.height:,}"

    def read_losses() -> None:
        losses_page = load_costliest_counted_pairs(
            database, viewer, "bench", AT + timedelta(days=9)
        )
        assert [pair.loss.case_key for pair in losses_page] == right  # noqa: S101 - it is what we measure

    def work() -> Figures:
        start = time.process_time()
        notes = {read_sums() for _ in range(READS)}
        between = time.process_time()
        for _ in range(READS):
            read_losses()
        return {
            "note": notes.pop(),
            "parts": [(between - start) / READS, (time.process_time() - between) / READS],
        }

    read_sums()  # a service has read before: statements are made, SciPy is warm
    read_losses()
    return work


def store_pairs(database: Any, file: Path) -> Any:
    """Write a file's pairs into a store's sums and losses, and return the rollout."""
    from rollout.data.counting.counter import Matrices
    from rollout.data.counting.counts import CountKey, ValueIds
    from rollout.data.records.versions import VersionInfo, VersionStore
    from rollout.data.tables.tables import count_classes, count_series
    from rollout.engine.decide.commands import Actor
    from rollout.engine.files.pair_files import scan_pairs
    from rollout.features.reports.inputs.pairs import count_pairs
    from rollout.live.policy_application import apply_policy
    from rollout.live.rollout_state import load_rollout_state
    from rollout.live.tick_passes import Ticker

    apply_policy(database, POLICY, Actor("ana"), AT - timedelta(days=2))
    with database.begin_write() as transaction:
        rollout_state = load_rollout_state(transaction, "bench")
        VersionStore(transaction, rollout_state.rollout).record_info(
            VersionInfo("v1", "bench"), at=AT
        )
    Ticker(database, "bench", "one").tick(AT)
    with database.begin_write() as transaction:
        rollout = load_rollout_state(transaction, "bench").rollout
        rows = list(count_pairs(scan_pairs(file)).table.iter_rows(named=True))
        whose = [("gate", "v1", r["site"], r["window"], "d", 1) for r in rows]
        kinds = [("label", r["model"], r["human"], "", 0) for r in rows]
        series = ValueIds(transaction, rollout, count_series).assign_ids(whose)
        classes = ValueIds(transaction, rollout, count_classes).assign_ids(kinds)
        keys = [CountKey(1, 0, series[w], classes[k], 0) for w, k in zip(whose, kinds, strict=True)]
        read_sums = dict(zip(keys, (r["n"] for r in rows), strict=True))
        Matrices(transaction, rollout).add(read_sums)
        store_losses(transaction, rollout, scan_pairs(file), classes)
    return rollout


def store_losses(transaction: Any, rollout: Any, pairs: Any, classes: Any) -> None:
    """Write every pair that differs; of the surest hundred there are records, too."""
    import polars as pl

    from rollout.data.database.bulk import insert_ignoring_conflicts
    from rollout.data.records.records import RecordStore
    from rollout.data.tables.tables import top_losses

    differ = pairs.filter(pl.col("human") != pl.col("model")).collect()
    differ = differ.sort("confidence", "case_key", descending=[True, False])
    for row in differ.head(100).iter_rows(named=True):
        RecordStore(transaction, rollout).store(build_records(row), received_at=AT)
    columns = differ.select("model", "human", "confidence").iter_rows()
    rows = [
        (rollout.number, number, "v1", classes["label", model, human, "", 0], sure, 1)
        for number, (model, human, sure) in enumerate(columns, start=1)
    ]
    insert_ignoring_conflicts(transaction, top_losses, rows)


def build_records(row: Figures) -> list[Any]:
    """Return a pair as the records that it came from."""
    from rollout.engine.records.records import Case, Decision, Prediction

    key, answers = row["case_key"], {"label": row["human"]}
    return [
        Case(key=key, site=row["site"], occurred_at=AT, window=row["window"]),
        Prediction(
            key=key, version="v1", answers={"label": row["model"]}, confidence=row["confidence"]
        ),
        Decision(key=key, reviewer="ana", answers=answers, exposure="blind", submitted_at=AT),
    ]
