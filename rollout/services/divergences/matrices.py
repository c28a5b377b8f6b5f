"""Confusion matrices of a version, from the counted sums."""

from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

import polars as pl

from rollout.core.errors import UnknownVersionError
from rollout.core.policy.policy import Policy
from rollout.core.scope.permissions import (
    Caller,
    Permission,
    may_be_asked_blind,
    require_permission,
)
from rollout.reports.figures.comparison import Comparison, compute_comparisons
from rollout.services.divergences.count_frames import load_count_frame
from rollout.services.engine.service import Service
from rollout.tally.batched_evidence import BATCH_SIZE

BASIS_TEXT = (
    "units that are evidence, each counted once, when it closed: the first timely blind decision "
    "against the version's answer; under all policies so far, units taken as independent"
)


@dataclass(frozen=True, slots=True)
class VersionMatrix:
    """Comparisons of a version's answers with human decisions.

    Attributes:
        basis: description of the counted units.
        items: one comparison per lever, and one for all (`*`) if there are several; empty before
            the first unit closes. Levers with numbers or sets, and `*`, have no labels, matrix or
            kappa.
    """

    version: str
    basis: str
    items: tuple[Comparison, ...]


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
    require_permission(caller, Permission.READ, rollout_name)
    state = service.state_cache.reload_rollout(rollout_name).state
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
