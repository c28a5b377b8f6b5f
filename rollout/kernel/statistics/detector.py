"""Detectors of guards: a measure below its reference, a share above its limit, many streams.

Eight Shiryaev–Roberts sums, one for each size of fall: 2, 4, …, 256 times the odds of an error.
Once in a bucket of m records each sum becomes `R_k ← F_k · (R_k + m)`, where F_k is how much more
likely the bucket is after that fall, and the guard alarms when the mean of the eight reaches
`false_alarm_every`. While nothing has fallen, the mean number of records between alarms is then at
least that, whatever the buckets and however often the guard is read.

The `…_log_factors` functions give ln F for whole histories, `compute_log_path` runs them.

Source: Shin, Ramdas, Rinaldo, "E-detectors" (2023); Shiryaev 1963; Roberts 1966.

A share: the sums of `rollout.kernel.statistics.detector` with the reference 1 − limit raise the
alarm, so one parameter bounds the false alarms however few records there are. After an alarm a
binomial test on the newest records ends the episode: its rate lies halfway between the limit and
the share of bad records that raised the alarm, so that a site in trouble does not flap.

Several streams of units: values of an attribute, or shares of values. Each stream has a detector of
its own. Its sum grows in the mean by at most one for each of the stream's units while the stream is
within its limit. So the sums of all streams together grow by at most `overlap` for each unit, where
every unit is in at most `overlap` streams. An alarm needs one sum of `false_alarm_every * overlap`:
the mean number of units between two false alarms is at least `false_alarm_every`, whatever the
number of streams and however often the guard is read. The stream with the largest sum is named. The
others start anew with it, once it has recovered.

Sources: Shiryaev 1963; Roberts 1966; Shin, Ramdas, Rinaldo, "E-detectors" (2023), for several
streams. The stretch before an alarm is that of a cumulative sum (Page 1954) for four times the
limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from math import inf, log
from typing import TYPE_CHECKING, Final

from rollout.kernel.arrays import Bools, Floats, Ints, np, scipy
from rollout.kernel.statistics.evidence import check_inside_unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike


FALLS = 8
_ROUNDING = 1e-6  # by far more than a logarithm of a mean may be above the largest sum's


@cache
def _get_fall_sizes() -> Floats:
    return np.arange(1.0, FALLS + 1)


def compute_agreement_log_factors(
    agreed: ArrayLike, compared: ArrayLike, *, reference: float
) -> Floats:
    """Return ln F of buckets of agreements and disagreements.

    Args:
        agreed: shape (buckets,), records in agreement.
        compared: shape (buckets,), all records, ≥ agreed.
        reference: lowest acceptable share of agreement, in the open interval (0, 1).

    Returns:
        float64, shape (buckets, 8); zeros for an empty bucket.

    Raises:
        ValueError: the reference lies outside (0, 1).
    """
    check_inside_unit(reference=reference)
    good, bad = _compute_log_ratios(1 - reference)
    s, m = np.asarray(agreed, float), np.asarray(compared, float)
    return np.asarray(s[..., None] * good + (m - s)[..., None] * bad)


def compute_cost_log_factors(
    counts: ArrayLike, *, losses: Sequence[float], reference: float
) -> Floats:
    """Return ln F of buckets of records with a loss each.

    Args:
        counts: shape (buckets, levels), records at each loss.
        losses: distinct losses as shares of the largest possible, in [0, 1].
        reference: highest acceptable mean loss, on the same scale, in (0, 1).

    Returns:
        float64, shape (buckets, 8); zeros for an empty bucket.

    Raises:
        ValueError: the reference or a loss lies outside its range.
    """
    check_inside_unit(reference=reference)
    if not all(0 <= loss <= 1 for loss in losses):
        raise ValueError(f"losses is {list(losses)}; scale them to [0, 1] by the largest possible")
    good, bad = (np.expm1(ratio) for ratio in _compute_log_ratios(reference))
    y = np.asarray(losses, float)[:, None]
    return np.asarray(np.asarray(counts, float) @ np.log1p((1 - y) * good + y * bad))


def compute_action_change_log_factors(
    model_only: ArrayLike, human_only: ArrayLike, compared: ArrayLike, *, at_most: float
) -> Floats:
    """Return ln F of buckets of cases in which model or human acts.

    Args:
        model_only: shape (buckets,), cases in which only the model acts.
        human_only: shape (buckets,), cases in which only the human acts.
        compared: shape (buckets,), all cases.
        at_most: acceptable actions of the model less those of humans, per 100 cases, in the open
            interval (−100, 100).

    Returns:
        float64, shape (buckets, 8); zeros for an empty bucket.

    Raises:
        ValueError: `at_most` lies outside its range.
    """
    if not -100 < at_most < 100:
        raise ValueError(f"at_most is {at_most}; give actions per 100 cases, between −100 and 100")
    model_counts, human_counts, all_counts = (
        np.asarray(x, float) for x in (model_only, human_only, compared)
    )
    margin, stakes = at_most / 100, 0.5 ** _get_fall_sizes()
    same_log = np.log1p(-stakes * margin)
    gain_log = np.log1p(stakes * (1 - margin)) - same_log
    loss_log = np.log1p(-stakes * (1 + margin)) - same_log
    return np.asarray(
        model_counts[..., None] * gain_log
        + human_counts[..., None] * loss_log
        + all_counts[..., None] * same_log
    )


def compute_log_path(log_factors: Floats, compared: Ints) -> Floats:
    """Return the log of the mean sum after each bucket, ignoring alarms.

    Args:
        log_factors: shape (buckets, sums), of one of the functions above or of gains.
        compared: shape (buckets,), records in each bucket, ≥ 0.

    Returns:
        float64, shape (buckets,); −inf up to the first record.
    """
    return _compute_log_mean(_compute_log_sums(log_factors, compared))


def find_alarms(log_factors: Floats, compared: Ints, threshold: float) -> Bools:
    """Return in which buckets `compute_log_path` reaches a threshold.

    The mean of sums that are all smaller isn't computed.
    """
    log_sums = _compute_log_sums(log_factors, compared)
    is_alarm = np.zeros(len(log_sums), dtype=bool)
    if log_sums.max(initial=-inf) < threshold - _ROUNDING:
        return is_alarm
    buckets = np.flatnonzero(log_sums.max(axis=-1) >= threshold - _ROUNDING)
    is_alarm[buckets] = _compute_log_mean(log_sums[buckets]) >= threshold
    return is_alarm


def find_first_alarm(
    log_factors: Floats, compared: Ints, thresholds: Floats, can_alarm: Bools
) -> int | None:
    """Return the first bucket whose `compute_log_path` reaches its threshold, or None.

    The mean of sums that are all smaller isn't computed.

    Args:
        log_factors, compared: of `compute_log_path`.
        thresholds: logarithms, shape (buckets,).
        can_alarm: whether a bucket may be returned, shape (buckets,).
    """
    log_sums = _compute_log_sums(log_factors, compared)
    can_alarm = can_alarm & (log_sums.max(axis=-1) >= thresholds - _ROUNDING)
    buckets = np.flatnonzero(can_alarm)
    alarms = buckets[_compute_log_mean(log_sums[buckets]) >= thresholds[buckets]]
    return int(alarms[0]) if len(alarms) else None


def bound_agreement_path(
    agreed_before: Ints,
    agreed: Ints,
    compared: Ints,
    *,
    reference: float,
) -> float:
    """Return a number that the path of agreements and disagreements nowhere exceeds.

    Agreements make each sum R at most `F·R + F`, one by one, with F < 1. So a run of M of them ends
    at most at `F^M·R + F·(1 − F^M)/(1 − F)` and stays below the larger of R and `F/(1 − F)`. Only
    buckets with a disagreement take a step, and few have one.

    Args:
        agreed_before: agreements since the last of these buckets.
        agreed: agreements in each bucket that has a disagreement.
        compared: all records in it.
        reference: of `compute_agreement_log_factors`.
    """
    good, _ = _compute_log_ratios(1 - reference)
    run_factors = agreed_before[:, None] * good
    most_of_run = 1 / np.expm1(-good)
    additions = most_of_run * -np.expm1(run_factors) + compared[:, None]
    log_factors = compute_agreement_log_factors(agreed, compared, reference=reference) + run_factors
    log_sums = _accumulate(np.log(additions) - run_factors, log_factors)
    highest = np.maximum(log_sums.max(axis=0, initial=-inf), np.log(most_of_run))
    return float(_compute_log_mean(highest)) + _ROUNDING


def _compute_log_sums(log_factors: Floats, compared: Ints) -> Floats:
    return _accumulate(_compute_log(compared)[:, None], log_factors)


def _accumulate(log_additions: Floats, log_factors: Floats) -> Floats:
    """Return ln of the sums after each bucket, in which R becomes F·(R + addition)."""
    cumulative = np.cumsum(log_factors, axis=0)
    sums = np.logaddexp.accumulate(log_additions - (cumulative - log_factors), axis=0)
    return np.asarray(cumulative + sums)


def _compute_log_ratios(error: float) -> tuple[Floats, Floats]:
    """Return ln(p_k/p_ref) and ln((1−p_k)/(1−p_ref)) of the falls.

    `error` is 1 − p_ref.
    """
    fall_sizes = _get_fall_sizes()
    good = -np.log1p(error * (2**fall_sizes - 1))
    return good, good + fall_sizes * log(2)


def _compute_log(records: ArrayLike) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.asarray(records, float)))


def _compute_log_mean(log_sums: Floats) -> Floats:
    return np.asarray(np.logaddexp.reduce(log_sums, axis=-1) - log(log_sums.shape[-1]))


MIN_BAD_RECORDS = 3  # fewer raise no alarm
LOWEST_LIMIT = 0.001  # stands for a limit of 0, which no record could keep
CLEAR_RISK = 0.05  # chance that an episode ends at the rate of its clear test
_MOST_BAD = 100  # bad records of one clear test; more would add next to nothing


@dataclass(frozen=True, slots=True)
class AlarmEpisode:
    """An alarm and its end.

    Attributes:
        alarm_slot: slot whose records raised the alarm.
        clear_slot: slot that ended it, None while it lasts.
        bad, records: the stretch that raised the alarm.
    """

    alarm_slot: int
    clear_slot: int | None
    bad: int
    records: int


@dataclass(frozen=True, slots=True)
class ShareRecords:
    """Records of one guard after the first ones, by slot; a part shares the sums of all.

    Attributes:
        slots: slots with records, ascending.
        ends: number of all records up to the end of each slot.
        total_bad: how many of the first n of all records are outside the limit, by n from 0 on.
        log_intervals: ln of the records between false alarms, in force in each slot.
        first: number of records before these.
    """

    slots: Ints
    ends: Ints
    total_bad: Ints
    log_intervals: Floats
    first: int = 0

    def select(self, *, after: int, until: int | None = None) -> ShareRecords:
        """Return the records of the slots after one, and up to another."""
        start = int(np.searchsorted(self.slots, after, side="right"))
        stop = None if until is None else int(np.searchsorted(self.slots, until, side="right"))
        part = slice(start, stop)
        first = int(self.ends[start - 1]) if start else self.first
        return ShareRecords(
            self.slots[part], self.ends[part], self.total_bad, self.log_intervals[part], first
        )

    @property
    def counts(self) -> Ints:
        """Return the number of records up to the end of each slot."""
        return self.ends - self.first

    @property
    def bad_counts(self) -> Ints:
        """Return the number of bad records up to the end of each slot."""
        bad_counts: Ints = self.total_bad[self.ends] - self.total_bad[self.first]
        return bad_counts


def find_episodes(
    records: ShareRecords, *, limit: float, hold: int, min_records: int = 0
) -> tuple[AlarmEpisode, ...]:
    """Return the episodes of a guard, in order; the last one may last.

    Args:
        records: all records since the detector's start.
        limit: highest share of bad records, in [0, 1).
        hold: slots that an episode lasts at least.
        min_records: fewer records raise no alarm.
    """
    episodes: list[AlarmEpisode] = []
    limit = max(limit, LOWEST_LIMIT)
    while (alarm := _find_alarm(records, limit, min_records)) is not None:
        is_bad = np.diff(records.total_bad[records.first : records.ends[alarm] + 1]) > 0
        bad, count = measure_stretch(is_bad, limit=limit)
        alarm_slot = int(records.slots[alarm])
        rate = compute_clear_rate(limit, bad / count if count else 0.0)
        later = records.select(after=alarm_slot)
        clear_slot = find_clear_slot(later, rate=rate, earliest=alarm_slot + hold)
        episodes.append(AlarmEpisode(alarm_slot, clear_slot, bad, count))
        if clear_slot is None:
            break
        records = records.select(after=clear_slot)
    return tuple(episodes)


def _find_alarm(records: ShareRecords, limit: float, min_records: int) -> int | None:
    """Return the position of the first slot with an alarm, or None."""
    bad_counts = records.bad_counts
    if not len(bad_counts) or bad_counts[-1] < MIN_BAD_RECORDS:
        return None
    if _compute_bound(records, limit) < records.log_intervals.min():
        return None
    can_alarm = (bad_counts >= MIN_BAD_RECORDS) & (records.counts >= min_records)
    factors, counts = _compute_factors(records, limit)
    return find_first_alarm(factors, counts, records.log_intervals, can_alarm)


def _compute_bound(records: ShareRecords, limit: float) -> float:
    """Return what no value of the path exceeds; infinity where that saves nothing."""
    ends, bad_ends = records.counts, records.bad_counts
    slots = np.flatnonzero(np.diff(bad_ends, prepend=0))
    if len(slots) > len(ends) // 4:
        return inf
    counts = np.diff(ends, prepend=0)[slots]
    bad_counts = np.diff(bad_ends[slots], prepend=0)
    agreed_before = ends[slots] - counts - np.concatenate([[0], ends[slots[:-1]]])
    return bound_agreement_path(agreed_before, counts - bad_counts, counts, reference=1 - limit)


def _compute_factors(records: ShareRecords, limit: float) -> tuple[Floats, Ints]:
    counts = np.diff(records.counts, prepend=0)
    good_counts = counts - np.diff(records.bad_counts, prepend=0)
    return compute_agreement_log_factors(good_counts, counts, reference=1 - limit), counts


def measure_stretch(is_bad: Bools, *, limit: float) -> tuple[int, int]:
    """Return bad and all records since the cumulative sum was last 0."""
    steps = np.where(is_bad, log(4), 0.0) - np.log1p(3 * limit)
    path = np.concatenate([[0.0], np.cumsum(steps)])
    start = int(np.flatnonzero(path <= np.minimum.accumulate(path))[-1])
    return int(is_bad[start:].sum()), len(is_bad) - start


def compute_clear_rate(limit: float, stretch_share: float) -> float:
    """Return the rate of bad records that a clear test must exclude."""
    return min(max(2 * limit, stretch_share / 2), 0.95)


def find_clear_slot(records: ShareRecords, *, rate: float, earliest: int) -> int | None:
    """Return the first slot from `earliest` on at which an episode ends, or None.

    Args:
        records: those after the alarm.
        rate: of `compute_clear_rate`.
        earliest: the slot until which the guard's span lasts.
    """
    slots = records.slots
    passed = int(np.searchsorted(slots, earliest, side="right"))
    begun = max(passed - 1, 0)  # the slot in force at the earliest
    total_bad = records.total_bad[records.first :]
    first = find_first_clear(total_bad, records.counts[begun:], rate=rate)
    if first is None:
        return None
    return earliest if passed and first == 0 else int(slots[begun + first])


def find_first_clear(total_bad: Ints, counts: Ints, *, rate: float) -> int | None:
    """Return the place of the first of some counts of records that shows less than `rate`, or None.

    For some m the newest m records hold c bad ones with P(Bin(m, rate) ≤ c) ≤ 5 %.

    Args:
        total_bad: bad ones among the first n records, by n from 0 on; the first value is any.
        counts: of the records, ascending.
        rate: of `compute_clear_rate`.
    """
    first = len(counts)
    for bad, length in enumerate(compute_clear_lengths(rate)):
        start = int(np.searchsorted(counts, length))
        if start >= first:
            break  # more bad ones need more records
        newest = counts[start:first]
        is_clear = total_bad[newest] - total_bad[newest - length] <= bad
        first = start + int(np.argmax(is_clear)) if is_clear.any() else first
    return first if first < len(counts) else None


@lru_cache(maxsize=256)
def compute_clear_lengths(rate: float) -> tuple[int, ...]:
    """Return by number of bad records how many newest records show less than `rate`.

    >>> compute_clear_lengths(0.04)[0], compute_clear_lengths(0.1)[:2]
    (74, (29, 46))
    """
    bad = np.arange(_MOST_BAD + 1)
    low, high = bad, np.ceil(2 * (bad + 4) / rate).astype(np.int64)
    while (high - low > 1).any():
        middle = (low + high) // 2
        is_enough = scipy.special.bdtr(bad, middle, rate) <= CLEAR_RISK
        low, high = np.where(is_enough, low, middle), np.where(is_enough, middle, high)
    return tuple(high.tolist())


def compute_false_alarm_interval(per_day: float, span_days: float) -> float:
    """Return the records between false alarms: those of the span, at least 1,000."""
    return max(1000.0, per_day * span_days)


TRAFFIC_DAYS = 28  # of the usual traffic
SIGNS_MISSED = 3  # intervals between signs of life that may pass without one
MIN_SIGNS = 3  # fewer have no interval
_RECENT_SIGNS = 20
_FEWEST_UNITS = 2.0  # keeps the threshold positive


def compute_silence_threshold(units_per_day: float, span_days: float = 365) -> float:
    """Return the due units H of a silence that happens by chance once in a span.

    >>> round(compute_silence_threshold(60), 6), round(compute_silence_threshold(300), 6)
    (9.994242, 11.60368)
    """
    return log(max(units_per_day * span_days, _FEWEST_UNITS))


QUIET_DAYS: Final = 0.5
"""Share of its usual traffic that a site has on its quiet days, when silence is no alarm."""


def estimate_silent_hours(
    units_per_hour: float, units_per_day: float, quiet_days: float, span_days: float = 365
) -> float:
    """Return the hours of silence until an alarm by traffic alone.

    >>> round(estimate_silent_hours(27.5, 300, 0.5) * 60)
    51
    """
    threshold = compute_silence_threshold(units_per_day, span_days)
    return threshold / (quiet_days * units_per_hour)


def measure_sign_interval(signs: Ints | Sequence[int]) -> int | None:
    """Return the usual interval between the latest signs of life, or None.

    >>> measure_sign_interval([0, 300, 600, 4200, 4500]), measure_sign_interval([0, 300])
    (300, None)
    """
    if len(signs) < MIN_SIGNS:
        return None
    return int(np.median(np.diff(np.asarray(signs)[-_RECENT_SIGNS:])))


FALSE_RECOVERY_EVERY = 1_000.0  # mean units of a stream until a false recovery, at least
BEFORE_ALL_SLOTS = -(2**62)


@dataclass(frozen=True)
class UnitStream:
    """Units of one stream by slot, each slot with at least one.

    Attributes:
        slots: ascending.
        good_counts, bad_counts: units of each slot within and beyond.
        limit: largest acceptable share of bad units, in the open interval (0, 1).
    """

    slots: Ints
    good_counts: Ints
    bad_counts: Ints
    limit: float

    def select_after(self, slot: int) -> UnitStream:
        """Return the units of later slots."""
        start = int(np.searchsorted(self.slots, slot, side="right"))
        return UnitStream(
            self.slots[start:], self.good_counts[start:], self.bad_counts[start:], self.limit
        )

    def compute_log_path(self) -> Floats:
        """Return the log of the detector's sum after each slot."""
        compared = self.good_counts + self.bad_counts
        factors = compute_agreement_log_factors(
            self.good_counts, compared, reference=1 - self.limit
        )
        return compute_log_path(factors, compared)

    def read_log_sum(self, slot: int) -> float:
        """Return the log of the detector's sum at a slot, −∞ before its first unit."""
        position = int(np.searchsorted(self.slots, slot, side="right")) - 1
        return float(self.compute_log_path()[position]) if position >= 0 else -inf

    def find_proof(self) -> Bools:
        """Return after which slots the share of bad units is shown to be within the limit.

        The same detector, turned round: it watches whether the bad units have become fewer.
        """
        compared = self.good_counts + self.bad_counts
        factors = compute_agreement_log_factors(self.bad_counts, compared, reference=self.limit)
        return np.asarray(compute_log_path(factors, compared) >= log(FALSE_RECOVERY_EVERY))


@dataclass(frozen=True, slots=True)
class StreamAlarm:
    """From an alarm to its recovery.

    Attributes:
        slot: of the alarm.
        stream: number of the named stream, the clearest one.
        bad, units: of the named stream, from the detectors' start to the alarm.
        end: slot from which the alarm is over; None while it lasts.
    """

    slot: int
    stream: int
    bad: int
    units: int
    end: int | None


def list_alarm_episodes(
    streams: Sequence[UnitStream], *, false_alarm_every: float, overlap: int = 1
) -> Iterator[StreamAlarm]:
    """Yield the alarms in order; all detectors start anew when one is over.

    An alarm is over when the named stream is shown to be within its limit. While it is beyond, the
    mean number of its units until that happens falsely is at least 1,000.

    Args:
        streams: in any order.
        false_alarm_every: mean number of units between false alarms, at least.
        overlap: in how many streams one unit is at most.
    """
    start = BEFORE_ALL_SLOTS
    while streams:
        later = [stream.select_after(start) for stream in streams]
        slot = _find_alarm_slot(later, log(false_alarm_every * overlap))
        if slot is None:
            return
        log_sums = [stream.read_log_sum(slot) for stream in later]
        clearest = log_sums.index(max(log_sums))
        until = int(np.searchsorted(later[clearest].slots, slot, side="right"))
        bad = int(later[clearest].bad_counts[:until].sum())
        units = bad + int(later[clearest].good_counts[:until].sum())
        end = find_recovery_slot(streams[clearest], after=slot)
        yield StreamAlarm(slot, clearest, bad, units, end)
        if end is None:
            return
        start = end


def _find_alarm_slot(streams: Sequence[UnitStream], needed: float) -> int | None:
    """Return the first slot in which any detector's sum is large enough."""
    alarm_slots = [
        int(stream.slots[reached.argmax()])
        for stream in streams
        if (reached := stream.compute_log_path() >= needed).any()
    ]
    return min(alarm_slots, default=None)


def find_recovery_slot(stream: UnitStream, *, after: int) -> int | None:
    """Return the first later slot at which the stream is shown to be within its limit."""
    later = stream.select_after(after)
    is_proven = later.find_proof()
    return int(later.slots[is_proven.argmax()]) if is_proven.any() else None


def find_first_proof(streams: Sequence[UnitStream]) -> int | None:
    """Return the first slot at which each stream with units by then is within its limit.

    A stream that begins later plays no part: nobody could know of it then.
    """
    begun_streams = [stream for stream in streams if len(stream.slots)]
    if not begun_streams:
        return None
    slots = np.unique(np.concatenate([stream.slots for stream in begun_streams]))
    is_proven = np.ones(len(slots), dtype=bool)
    for stream in begun_streams:
        positions = np.searchsorted(stream.slots, slots, side="right") - 1
        is_proven &= (positions < 0) | stream.find_proof()[np.maximum(positions, 0)]
    return int(slots[is_proven.argmax()]) if is_proven.any() else None
