"""The cause of an incident: since when a version differs more, and in which cases.

One population for all figures: decisions given without seeing the answer, one per unit. The values
of its cases are compared within the time since the change, so a change that hits all alike names
no value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from rollout.kernel.statistics.intervals import Share, compute_share
from rollout.kernel.statistics.value_search import (
    ANSWER,
    ATTRIBUTE,
    MIN_CASES,
    Codes,
    ComparedValue,
    Flags,
    KindKey,
    ValueKey,
    ValueKind,
    ValueSearch,
    find_visible_difference,
    search_values,
)

MIN_LOG_RATIO: Final = 4.0
"""How much likelier a change must make the answers, as a logarithm, to be named."""
MAX_NEW_VALUES: Final = 5
Verdict = Literal["stands-out", "follows", "new", "chance"]
"""What a comparison says of a value: it can be the cause, it stands out as a consequence of the
cause, it is new and can't be told yet, or its difference could be chance."""
BATCH_SIZE: Final = 20
"""Judged units by which the figures of a reader who may review move at once."""


@dataclass(frozen=True, slots=True)
class JudgedUnits:
    """Units with a blind decision, in the order in which their cases occurred.

    Attributes:
        occurred: microseconds since 1970, UTC, shape (units,); units of a batch have one time.
        days: local day numbers, shape (units,).
        differs: where the version's answer is not the human's, shape (units,).
        kinds: properties of their cases.
    """

    occurred: Codes
    days: Codes
    differs: Flags
    kinds: tuple[ValueKind, ...]

    def select(self, mask: Flags) -> "JudgedUnits":
        """Return the units at which `mask` is true."""
        return JudgedUnits(
            self.occurred[mask],
            self.days[mask],
            self.differs[mask],
            tuple(replace(kind, codes=kind.codes[mask]) for kind in self.kinds),
        )

    def find_with(self, key: KindKey, value: str) -> Flags:
        """Return which units have a value."""
        values = next(kind for kind in self.kinds if kind.key == key)
        has_value: Flags = values.codes == values.values.index(value)
        return has_value


@dataclass(frozen=True, slots=True)
class ValueFinding:
    """A compared value, and its cases and all others in the times around the incident.

    `visible_difference` would stand out 8 times in 10; None if none would.
    """

    compared: ComparedValue
    verdict: Verdict
    before: Share
    during: Share
    after: Share
    others_before: Share
    visible_difference: float | None


@dataclass(frozen=True, slots=True)
class NewCaseValue:
    """An attribute value that no judged unit had before the day of the change."""

    kind: str
    value: str
    since: Share
    others: Share


@dataclass(frozen=True, slots=True)
class IncidentCause:
    """Where a version differs around an incident.

    Attributes:
        started: microseconds of the first unit after the likeliest rise of the share of differing
            units; None if no rise is likely, and then all units are compared.
        before, during, after: the units until then, until the incident opened, and later.
        search: all compared values; those that stand out first.
        findings: the first values of the search.
        new_values: most frequent first. A new value that (nearly) all cases have can't be compared.
        standout: the value to name as the cause; None if none stands out, or none beyond answers
            and what can't be told from a new value.
    """

    started: int | None
    before: Share
    during: Share
    after: Share
    since: Share
    search: ValueSearch
    findings: tuple[ValueFinding, ...]
    new_values: tuple[NewCaseValue, ...]
    standout: ValueFinding | None


def find_incident_cause(units: JudgedUnits, opened: int, *, limit: int = 50) -> IncidentCause:
    """Return since when and in which cases a version differs more than elsewhere.

    Args:
        units: from some time before the incident until some time after it.
        opened: microseconds of the incident.
        limit: number of findings, besides those that stand out.

    A value that is new on the day of the change puts the start back to its first unit.
    """
    index = np.arange(len(units.differs))
    is_before = units.occurred < opened
    change = find_rise(units.differs[is_before], units.occurred[is_before])
    new_values = [] if change is None else _list_new_values(units, change)
    start = 0 if change is None else change
    if new_values:
        start = min(start, int(np.argmax(units.find_with(*new_values[0]))))
    is_since, is_after = index >= start, units.occurred >= opened
    since = units.select(is_since)
    search = search_values(since.differs, since.kinds)
    verdicts = _judge_values(since, search, new_values)
    search = _rank_causes(search, verdicts, new_values)
    periods = (~is_since, is_since & ~is_after, is_after)
    findings = tuple(
        _build_finding(units, value, verdicts[value.key], periods, len(search.values))
        for value in search.values[: max(limit, len(search.standouts))]
    )
    before, during, after = (_count_differing(units, period) for period in periods)
    standout = findings[0] if findings and findings[0].verdict == "stands-out" else None
    return IncidentCause(
        None if change is None else int(units.occurred[start]),
        *(before, during, after, _count_differing(units, is_since)),
        search,
        findings,
        tuple(_build_new_value(since, *new_value) for new_value in new_values),
        standout,
    )


def _judge_values(
    since: JudgedUnits, search: ValueSearch, new_values: Sequence[ValueKey]
) -> dict[ValueKey, Verdict]:
    """Return the verdict on each compared value.

    An answer follows from its case, so it is a consequence. Where a value is new, others are
    consequences of it too unless they stand out among the cases without it: else nothing tells
    them from symptoms of that. The test and its error rate are the same.
    """
    independent = search.standouts
    if new_values and independent:
        others = since.select(~since.find_with(*new_values[0]))
        independent = search_values(others.differs, others.kinds).standouts
    causes = {*new_values, *(value.key for value in independent if value.source != ANSWER)}
    verdicts: dict[ValueKey, Verdict] = {
        value.key: "new" if value.key in new_values else "chance" for value in search.values
    }
    for value in search.standouts:
        verdicts[value.key] = "stands-out" if value.key in causes else "follows"
    return verdicts


def _rank_causes(
    search: ValueSearch, verdicts: Mapping[ValueKey, Verdict], new_values: Sequence[ValueKey]
) -> ValueSearch:
    """Return the search with new values first among those that stand out, and answers last.

    All of them passed the same test: the order only chooses which to name first. What nobody had
    met before a change can have caused it. What cases had before without differing goes along with
    the cause at most.
    """
    standouts = sorted(
        search.standouts,
        key=lambda value: (
            verdicts[value.key] == "follows",
            value.source == ANSWER,
            value.key not in new_values,
        ),
    )
    return replace(search, values=(*standouts, *search.values[len(standouts) :]))


def _list_new_values(units: JudgedUnits, change: int) -> list[ValueKey]:
    """Return attribute values first met on the day of the change, most frequent first.

    Which value is new, and how frequent, depends on no answer.
    """
    first_of_day = int(np.searchsorted(units.days, units.days[change]))
    is_that_day = units.days == units.days[change]
    candidates: list[tuple[int, KindKey, str]] = []
    for kind in units.kinds:
        if kind.source != ATTRIBUTE or not len(kind.values):
            continue
        is_set = kind.codes >= 0
        size = len(kind.values)
        earlier = np.bincount(kind.codes[:first_of_day][is_set[:first_of_day]], minlength=size)
        later = np.bincount(kind.codes[first_of_day:][is_set[first_of_day:]], minlength=size)
        that_day = np.bincount(kind.codes[is_that_day & is_set], minlength=size)
        is_new = (earlier == 0) & (that_day > 0) & (later >= MIN_CASES)
        candidates += [
            (int(later[code]), kind.key, kind.values[code]) for code in np.flatnonzero(is_new)
        ]
    candidates.sort(key=lambda item: (-item[0], item[1:]))
    return [(key, value) for _, key, value in candidates[:MAX_NEW_VALUES]]


def _build_new_value(since: JudgedUnits, key: KindKey, value: str) -> NewCaseValue:
    has_value = since.find_with(key, value)
    return NewCaseValue(
        key[1], value, _count_differing(since, has_value), _count_differing(since, ~has_value)
    )


def _build_finding(
    units: JudgedUnits,
    value: ComparedValue,
    verdict: Verdict,
    periods: Sequence[Flags],
    number: int,
) -> ValueFinding:
    has_value = units.find_with(*value.key)
    before, during, after = (_count_differing(units, has_value & period) for period in periods)
    return ValueFinding(
        *(value, verdict, before, during, after),
        _count_differing(units, ~has_value & periods[0]),
        find_visible_difference(value, number),
    )


def _count_differing(units: JudgedUnits, mask: Flags) -> Share:
    return compute_share(int(units.differs[mask].sum()), int(mask.sum()))


def find_rise(differs: Flags, times: Codes) -> int | None:
    """Return the first unit after the likeliest rise of a share, None if no rise is likely.

    Units of one time are never parted.

    >>> find_rise(np.repeat([False, True], [30, 10]), np.arange(40))
    30
    >>> find_rise(np.repeat([False, True], [30, 10]), np.arange(40) // 20)
    20
    >>> find_rise(np.repeat(True, 10), np.arange(10)) is None
    True

    Source: Hinkley and Hinkley, Biometrika 57 (1970) 477.
    """
    n = len(differs)
    if n < 2:
        return None
    sizes = np.arange(1, n, dtype=np.float64)
    counts = np.cumsum(differs)[:-1].astype(np.float64)
    total = float(differs.sum())
    split = _compute_log_likelihood(counts, sizes)
    split += _compute_log_likelihood(total - counts, n - sizes)
    whole = _compute_log_likelihood(np.array([total]), np.array([float(n)]))[0]
    is_rise = (total - counts) / (n - sizes) > counts / sizes
    gains = np.where(is_rise & (times[1:] > times[:-1]), split - whole, 0.0)
    best = int(np.argmax(gains))
    return best + 1 if gains[best] >= MIN_LOG_RATIO else None


def _compute_log_likelihood(
    counts: NDArray[np.float64], sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the logarithms of the likelihoods of shares at their best."""
    shares = counts / sizes
    misses = scipy.special.xlogy(sizes - counts, 1 - shares)
    return np.asarray(scipy.special.xlogy(counts, shares) + misses, dtype=np.float64)


def list_batch_ends(slots: Codes) -> list[int]:
    """Return the last slot of each whole batch of judged units, in order.

    Batches run from the first unit on and split no slot, so two looks differ by whole batches.

    >>> list_batch_ends(np.repeat([3, 4, 7, 9], [12, 12, 15, 4])), list_batch_ends(np.arange(2))
    ([4], [])
    """
    ends, pending = [], 0
    for slot, size in zip(*np.unique(slots, return_counts=True), strict=True):
        pending += int(size)
        if pending >= BATCH_SIZE:
            ends.append(int(slot))
            pending = 0
    return ends
