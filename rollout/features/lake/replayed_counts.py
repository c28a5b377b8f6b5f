"""Replay counts: when and where a policy would have widened, without the records themselves."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import numpy as np
import polars as pl

from rollout.engine.evidence.frames import RecordKind
from rollout.engine.evidence.slots import to_instant
from rollout.engine.evidence.tallied_units import TalliedUnits, build_units
from rollout.engine.slots.engine import (
    Replay,
    ReplayResult,
    plan_retirements,
)
from rollout.engine.slots.options import ReplayOptions
from rollout.features.lake.counting import FORM, UnitCounts, hash_salts, list_contents, seal
from rollout.features.lake.engines import LakeError
from rollout.features.lake.part_counts import CLASS_COLUMNS, COUNT, PartFacts
from rollout.kernel.policy.gates import UnplacedDecisions
from rollout.kernel.policy.policy import Policy


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
    keys = pl.Series(map(str, buckets), dtype=pl.String)
    arrays = build_units(expanded, policy, keys)
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
