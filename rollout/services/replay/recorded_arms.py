"""Whether a replay samples the arms that a recorded experiment had.

An outcome belongs to the arm that acted when it was recorded. With another salt, or other shares, a
replay would compare arms that never were.
"""

import numpy as np
import polars as pl

from rollout.core.calendar.instants import count_micros
from rollout.core.calendar.sites import Cell
from rollout.core.statistics.sampling import compute_sampling_values
from rollout.replay.engine import ReplayResult
from rollout.tally.case_placement import PlacedHistory
from rollout.tally.frames import SAMPLED_ARM, RecordFrames
from rollout.tally.stage_history import build_stage_shares, find_buckets

MAX_OTHER_UNITS, MAX_OTHER_SHARE = 5, 0.01
"""Units of another arm that are tolerated, such as some that a stop sent to humans."""


class RecordedArmsError(ValueError):
    """The arms of a replay are not those of its records."""


def check_recorded_arms(
    records: RecordFrames, history: PlacedHistory, result: ReplayResult
) -> None:
    """Compare the arms of a replay with those in its records, where these have them.

    Raises:
        RecordedArmsError: more than a handful of units were in the other arm.
    """
    if not result.policy.outcomes or SAMPLED_ARM not in records.predictions.columns:
        return
    units = _list_sampled_units(records, history, result)
    other_units = units.filter(pl.col(SAMPLED_ARM) != pl.col("replayed_arm"))
    if other_units.height <= max(MAX_OTHER_UNITS, MAX_OTHER_SHARE * units.height):
        return
    example = other_units.row(0, named=True)
    raise RecordedArmsError(
        f"{other_units.height:,} of {units.height:,} units were in another arm when they were"
        f" recorded, such as {example['case_key']}: {example[SAMPLED_ARM]}, replayed as"
        f" {example['replayed_arm']}. Pass the --salt of the recorded rollout, and a policy with"
        " its stages and shares. The arms of another system's experiment can't be replayed"
    )


def _list_sampled_units(
    records: RecordFrames, history: PlacedHistory, result: ReplayResult
) -> pl.DataFrame:
    """Return the first case, recorded and replayed arm of each unit that has both."""
    shares = build_stage_shares(result.policy)
    cases = history.cases.select("case_key", "site", "window", "unit", "occurred_us")
    arms = records.predictions.select("case_key", "version", SAMPLED_ARM).drop_nulls(SAMPLED_ARM)
    firsts = arms.join(cases, on="case_key").sort("occurred_us", "case_key")
    firsts = firsts.unique(["unit", "version"], keep="first", maintain_order=True)
    parts = []
    for (site, window, version), part in firsts.partition_by(
        "site", "window", "version", as_dict=True
    ).items():
        occurred = part["occurred_us"].to_numpy() // count_micros(result.policy.tick)
        stages = result.stage_histories.get(Cell(str(site), str(window)))
        if stages is None:
            continue  # an unknown site, or a time outside all windows: no version acts there
        levels = stages.find_own_levels(str(version), occurred)
        values = compute_sampling_values(history.salt, "stage", part["unit"])
        is_model = find_buckets(shares, values) >= shares.blind_buckets[levels]
        replayed = part.with_columns(
            replayed_arm=pl.Series(np.where(is_model, "model", "human"), dtype=pl.String)
        )
        parts.append(replayed.filter(~np.isnan(shares.model_shares[levels])))
    return pl.concat(parts) if parts else firsts.with_columns(replayed_arm=pl.lit(""))
