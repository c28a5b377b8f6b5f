"""A version's confusion as the store counts it: sums kept with the tallies, no record is read."""

from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

import polars as pl

from rollout.core.errors import UnknownVersion
from rollout.core.policy.policy import Policy
from rollout.core.scope.permissions import Act, Caller, require
from rollout.reports.figures.comparison import Comparison, comparisons
from rollout.services.engine.service import Service
from rollout.store.counting.matrices import Matrices

TRACK = "gate"
BASIS = (
    "units that are evidence, each once, when it closed: first blind verdicts in time, beside what "
    "the version said; under every policy so far, each taken as independent"
)


@dataclass(frozen=True, slots=True)
class VersionMatrix:
    """What a version says beside what people say.

    Attributes:
        version: whose answers.
        basis: which units are counted, in words.
        items: a comparison a lever, and one for all of them (`*`) where there are several; empty
            before the first unit closed. Answers to levers with numbers, and to all levers
            together, are told by how many agree: labels, matrix and kappa are left out.
    """

    version: str
    basis: str
    items: tuple[Comparison, ...]


def matrix_of(service: Service, caller: Caller, name: str, version: str) -> VersionMatrix:
    """Return the confusion of a version at the sites that the caller may read.

    It takes as long for ten units as for ten million. Cases that people may still judge are in
    no unit of it: a unit is counted on this track when it closes.

    Raises:
        NotAllowed: the caller may read no site.
        UnknownVersion: it was never seen.
    """
    require(caller, Act.READ, name)
    state = service.watch.confirmed(name).standing
    if version not in state.scope.versions:
        raise UnknownVersion(f"no version {version} was seen in {name}")
    with service.database.reading() as transaction:
        count_frame = Matrices(transaction, state.rollout).frame(track=TRACK, version=version)
    readable_sites = [
        site for site in count_frame["site"].unique() if caller.may(Act.READ, name, site)
    ]
    readable_counts = count_frame.filter(pl.col("site").is_in(readable_sites))
    return VersionMatrix(version, BASIS, tuple(_items(readable_counts, state.policy)))


def _items(found: pl.DataFrame, policy: Policy) -> Iterator[Comparison]:
    """Yield a comparison a lever; a lever that the policy has no more is told by shares alone."""
    label_levers = {lever.id for lever in policy.levers if lever.number is None}
    answered_counts = found.with_columns(human=pl.col("human").replace("", None))
    frames_by_lever = answered_counts.partition_by("lever", as_dict=True)
    for (lever,), lever_frame in sorted(frames_by_lever.items(), key=itemgetter(0)):
        yield from comparisons(lever_frame, labelled=lever in label_levers)
