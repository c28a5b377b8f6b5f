"""Counts of a version's units by human and model answer, as a caller may read them."""

from collections import Counter

import polars as pl

from rollout.core.scope.permissions import Caller, Permission, may_be_asked_blind
from rollout.services.engine.evidence_reader import load_evidence_views
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.store.counting.matrices import GROUP_COLUMNS, Matrices
from rollout.tally.batched_evidence import batch_view

GATE_TRACK = "gate"
FRAME_SCHEMA = {**dict.fromkeys(GROUP_COLUMNS, pl.String()), "n": pl.Int64()}


def load_count_frame(
    service: Service, state: RolloutState, caller: Caller, version: str
) -> pl.DataFrame:
    """Return the counts at the sites that the caller may read.

    Of sites where the caller may be asked for a blind review, they are of whole batches of units
    under the policy in force. Columns: `GROUP_COLUMNS` and n.
    """
    name = state.rollout.name
    with service.database.begin_read() as transaction:
        frame = Matrices(transaction, state.rollout).load_frame(track=GATE_TRACK, version=version)
    readable = [
        s for s in frame["site"].unique() if caller.has_permission(Permission.READ, name, s)
    ]
    blind = {site for site in readable if may_be_asked_blind(caller, name, (site,))}
    plain_frame = frame.filter(pl.col("site").is_in([s for s in readable if s not in blind]))
    if not blind:
        return plain_frame
    batched = _load_batched_frame(service, state, version, blind)
    return pl.concat([plain_frame.select(*FRAME_SCHEMA), batched])


def _load_batched_frame(
    service: Service, state: RolloutState, version: str, sites: set[str]
) -> pl.DataFrame:
    cells = [cell for cell in state.policy.cells if cell.site in sites]
    views = load_evidence_views(service.database, state, cells)
    counts: Counter[tuple[str, ...]] = Counter()
    for (cell, view_version), view in views.items():
        if view_version != version:
            continue
        batched = batch_view(view)
        for number in batched.rows.gate.unit_class.tolist():
            unit_class = view.unit_classes.classes[number]
            labels = (unit_class.decided, unit_class.predicted)
            counts[version, unit_class.lever, cell.site, cell.window, *labels] += 1
    rows = [(*key, n) for key, n in counts.items()]
    return pl.DataFrame(rows, schema=FRAME_SCHEMA, orient="row")
