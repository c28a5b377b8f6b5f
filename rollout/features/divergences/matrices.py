"""Confusion matrices of a version, from the counted sums."""

from collections import Counter
from collections.abc import Iterator
from operator import itemgetter

import polars as pl

from rollout.data.counting.counter import GROUP_COLUMNS, Matrices
from rollout.engine.decide.permissions import Caller, Permission, may_be_asked_blind
from rollout.engine.evidence.evidence_view import BATCH_SIZE, batch_view
from rollout.features.reports.figures.comparison import (
    Comparison,
    VersionMatrix,
    compute_comparisons,
)
from rollout.features.reports.inputs.inputs import CountedActionChange
from rollout.features.reports.inputs.pairs import OTHER_ACTION
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.errors import UnknownVersionError
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.intervals import compute_paired_change
from rollout.kernel.units import Lever
from rollout.live.evidence.evidence_reader import load_evidence_views
from rollout.live.rollout_state import RolloutState
from rollout.live.service import Service

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
    counts: Counter[tuple[str, ...]] = Counter()
    for (cell, view_version), view in load_evidence_views(service.database, state, cells).items():
        if view_version != version:
            continue
        for number in batch_view(view).rows.gate.unit_class.tolist():
            unit_class = view.unit_classes.classes[number]
            labels = (unit_class.decided, unit_class.predicted)
            counts[version, unit_class.lever, cell.site, cell.window, *labels] += 1
    rows = [(*key, n) for key, n in counts.items()]
    return pl.DataFrame(rows, schema=FRAME_SCHEMA, orient="row")


def load_action_changes(
    service: Service,
    caller: Caller,
    rollout_name: str,
    versions: tuple[str, ...],
    cell: Cell | None = None,
) -> tuple[CountedActionChange, ...]:
    """Return the change of every action at the sites the caller may read.

    Levers with numbers are excluded: they have no list of actions.

    Args:
        cell: restricts the counts to one cell.

    Raises:
        NotAllowedError: the caller may not read any site.
    """
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    frames = {version: load_count_frame(service, state, caller, version) for version in versions}
    return tuple(
        change
        for version, frame in frames.items()
        for lever in state.policy.levers
        if lever.has_single_labels
        for change in _compute_lever_changes(
            frame.filter(_build_cell_filter([*state.policy.sites_by_id], cell)), version, lever
        )
    )


def _build_cell_filter(sites: list[str], cell: Cell | None) -> pl.Expr:
    """Build the row filter for sites and, optionally, one cell."""
    site_filter = pl.col("site").is_in(sites)
    if cell is None:
        return site_filter
    return site_filter & (pl.col("site") == cell.site) & (pl.col("window") == cell.window)


def _compute_lever_changes(
    frame: pl.DataFrame, version: str, lever: Lever
) -> Iterator[CountedActionChange]:

    rows = frame.filter((pl.col("lever") == lever.id) & (pl.col("human") != ""))
    pairs: dict[tuple[str, str], int] = {}
    for human, model_action, count in rows.select("human", "model", "n").iter_rows():
        key = (
            lever.find_action(human) or OTHER_ACTION,
            lever.find_action(model_action) or OTHER_ACTION,
        )
        pairs[key] = pairs.get(key, 0) + count
    total = sum(pairs.values())
    for action in dict.fromkeys(lever.actions):
        human_count = sum(count for (human, _), count in pairs.items() if human == action)
        model_action = sum(
            count for (_, model_answer), count in pairs.items() if model_answer == action
        )
        agreed_count = pairs.get((action, action), 0)
        if human_count or model_action:
            change = compute_paired_change(
                model_action - agreed_count, human_count - agreed_count, total
            )
            yield CountedActionChange(version, lever.id, action, human_count, model_action, change)


BASIS_TEXT = (
    "units that are evidence, each counted once, when it closed: the first timely blind decision "
    "against the version's answer; under all policies so far, units taken as independent"
)


def load_version_confusion(
    service: Service, caller: Caller, rollout_name: str, version: str
) -> VersionMatrix:
    """Return the confusion of a version at the sites the caller may read.

    Takes constant time in the number of units, but for readers who may be asked for blind reviews:
    their counts move in whole batches. Units are counted when they close, so cases that may
    still be decided are not included.

    Raises:
        NotAllowedError: the caller may not read any site.
        UnknownVersionError: the rollout has no such version.
    """
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    version = state.scope.get_first_name(version)
    if version not in state.scope.versions:
        raise UnknownVersionError(f"no version {version} was seen in {rollout_name}")
    count_frame = load_count_frame(service, state, caller, version)
    basis = BASIS_TEXT
    if may_be_asked_blind(caller, rollout_name, ()):
        basis += f"; in batches of {BATCH_SIZE} where you may be asked for blind reviews"
    return VersionMatrix(version, basis, tuple(_build_comparisons(count_frame, state.policy)))


def _build_comparisons(count_frame: pl.DataFrame, policy: Policy) -> Iterator[Comparison]:
    """Yield a comparison per lever; levers no longer in the policy have only shares."""
    label_levers = {lever.id for lever in policy.levers if lever.has_single_labels}
    number_levers = {lever.id for lever in policy.levers if lever.number is not None}
    answered_counts = count_frame.with_columns(human=pl.col("human").replace("", None))
    frames_by_lever = answered_counts.partition_by("lever", as_dict=True)
    for (lever,), lever_frame in sorted(frames_by_lever.items(), key=itemgetter(0)):
        yield from compute_comparisons(
            lever_frame, has_labels=lever in label_levers, has_numbers=lever in number_levers
        )
