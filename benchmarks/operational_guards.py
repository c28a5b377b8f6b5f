"""How often operational guards are wrong, and how soon they are right, by seeded simulation.

    python -m benchmarks.operational_guards

Two kinds of places, as in `config/policies`: bears (2 sites, 60 cases a day, few at night) and a
door (3 sites, 300 cases a day, closed from 20:00 to 8:00). A stream runs for 120 days; the traffic
of a day is Poisson with a gamma factor. Alarms are read from the engine's own series: latency and
failures of each site, missing decisions, overdue audits and silence of each cell.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rollout.engine.evidence.guard_series import GuardSeries
from rollout.engine.evidence.site_series import (
    AnswerRecords,
    SiteSigns,
    build_case_signs,
    compute_cell_silences,
    compute_episode_series,
)
from rollout.kernel.calendar.instants import MINUTE, Site, Window
from rollout.kernel.calendar.windows import CellClock, build_cell_clock
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.policy import Guard, Policy
from rollout.kernel.policy_files.reader import parse_policy

DAYS, FIRST_DAY = 120, 20_000
SEEDS = tuple(range(1, 21))  # fixed before the first run
DELAY_RUNS = 100
FAULT_DAY = 60
TICK = timedelta(minutes=15)
TICK_MINUTES = 15
DAY_MINUTES = 1440
SITE = Site("site", "UTC")


@dataclass(frozen=True)
class SitePlan:
    """Traffic of one kind of place: sites, cases a day, and open minutes of the day."""

    name: str
    sites: int
    cases_per_day: int
    open_minutes: tuple[int, int]
    night_cases: int
    over: timedelta
    windows: tuple[Window, ...]
    audit: float
    silence: timedelta


@dataclass(frozen=True)
class Trouble:
    """A fault: share of bad answers by measure."""

    name: str
    measure: str
    share: float


BEARS = SitePlan(
    "bears",
    2,
    60,
    (360, 1200),
    8,
    timedelta(hours=1),
    (Window("day", "06:00-20:00"), Window("dusk", "20:00-21:00"), Window("night")),
    0.5,
    timedelta(hours=2),
)
DOOR = SitePlan(
    "door",
    3,
    300,
    (480, 1200),
    0,
    timedelta(minutes=15),
    (Window("by-day", "08:00-16:00"), Window("evening", "16:00-20:00")),
    0.1,
    timedelta(minutes=30),
)
SHARES = {  # slow, failed; without a decision, overdue
    "healthy": (0.01, 0.002, 0.005, 0.01),
    "half the line": (0.025, 0.01, 0.025, 0.05),
    "at the line": (0.05, 0.02, 0.05, 0.1),
    "two blips a day": (0.01, 0.002, 0.005, 0.01),
}
LINES = {"latency_p95": 20.0, "failures": 0.02, "missing": 0.05, "unaudited": 0.1}
PING_MINUTES = 5
SILENT_MINUTES = 120
TROUBLES = (
    Trouble("p95 doubled, 17 % slow", "latency_p95", 0.17),
    Trouble("p95 doubled, 40 % slow", "latency_p95", 0.4),
    Trouble("failures 6 %", "failures", 0.06),
    Trouble("failures 20 %", "failures", 0.2),
    Trouble("every answer fails", "failures", 1.0),
)
PUBLISHED = {  # 90 % of the delays, in records
    ("bears", "p95 doubled, 17 % slow"): 146,
    ("bears", "p95 doubled, 40 % slow"): 27,
    ("bears", "failures 6 %"): 456,
    ("bears", "failures 20 %"): 56,
    ("bears", "every answer fails"): 4,
    ("door", "p95 doubled, 17 % slow"): 170,
    ("door", "p95 doubled, 40 % slow"): 36,
    ("door", "failures 6 %"): 551,
    ("door", "failures 20 %"): 71,
    ("door", "every answer fails"): 9,
}


def build_guard(plan: SitePlan, measure: str) -> Guard:
    """Return the guard of a measure as the policies write it."""
    line = LINES.get(measure, plan.silence.total_seconds())
    condition = Condition(MEASURES[measure], line)
    over = plan.over if MEASURES[measure].is_of_site else timedelta(days=7)
    return Guard(condition, "suspend", over=over, false_alarm_span=timedelta(days=365))


def draw_minutes(plan: SitePlan, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return the minutes of one site's cases, ascending."""
    opens, closes = plan.open_minutes
    days = []
    for day in range(DAYS):
        factor = generator.gamma(6, 1 / 6)
        by_day = generator.poisson(factor * (plan.cases_per_day - plan.night_cases))
        by_night = generator.poisson(factor * plan.night_cases)
        night = generator.uniform(closes, DAY_MINUTES + opens, by_night) % DAY_MINUTES
        minutes = np.concatenate([generator.uniform(opens, closes, by_day), night])
        days.append((FIRST_DAY + day) * DAY_MINUTES + minutes)
    return np.sort(np.concatenate(days))


def draw_blips(minutes: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.bool_]:
    """Return which cases lie in one of two blips a day, of 1 to 3 minutes each."""
    starts = np.repeat((FIRST_DAY + np.arange(DAYS)) * DAY_MINUTES, 2)
    starts = np.sort(starts + generator.uniform(480, 1200, len(starts)))
    lengths = generator.uniform(1, 3, len(starts))
    position = np.searchsorted(starts, minutes, side="right") - 1
    since = minutes - starts[np.maximum(position, 0)]
    return np.asarray((position >= 0) & (since < lengths[np.maximum(position, 0)]))


def select_votes(
    minutes: NDArray[np.float64], is_bad: NDArray[np.bool_], generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return slot and badness of the answers that count."""
    whole_minutes = minutes.astype(np.int64)
    return AnswerRecords(
        slots=whole_minutes // TICK_MINUTES + 1,
        minutes=whole_minutes,
        units=np.arange(len(minutes), dtype=np.uint64),
        draws=generator.random(len(minutes)),
        is_bad=is_bad,
    ).select_votes()


def count_suspensions(plan: SitePlan, kind: str, seed: int, policy: Policy) -> Counter[str]:
    """Return the suspensions of all sites of a stream without a fault, by measure."""
    generator, silence_generator = np.random.default_rng(seed), np.random.default_rng([seed, 2])
    suspensions: Counter[str] = Counter()
    for _ in range(plan.sites):
        minutes = draw_minutes(plan, generator)
        blips = draw_blips(minutes, generator) if kind == "two blips a day" else False
        for measure, share in zip(("latency_p95", "failures"), SHARES[kind], strict=False):
            is_bad = (generator.random(len(minutes)) < share) | blips
            slots, is_bad_vote = select_votes(minutes, is_bad, generator)
            series = compute_episode_series(build_guard(plan, measure), slots, is_bad_vote, policy)
            suspensions[measure] += count_alarms(series)
        for window in plan.windows:
            silences = compute_silences(plan, window, build_signs(minutes), policy)
            suspensions["heartbeat"] += count_alarms(silences)
            for measure, share in zip(("missing", "unaudited"), SHARES[kind][2:], strict=True):
                series = draw_closed_units(
                    plan, window, measure, share, minutes, policy, silence_generator
                )
                suspensions[measure] += count_alarms(series)
    return suspensions


def draw_closed_units(
    plan: SitePlan,
    window: Window,
    measure: str,
    share: float,
    minutes: NDArray[np.float64],
    policy: Policy,
    generator: np.random.Generator,
) -> GuardSeries:
    """Return the readings of a cell's guard on missing decisions or overdue audits."""
    closed = minutes[build_clock(plan, window).are_running(to_instants(minutes))]
    if measure == "unaudited":
        closed = closed[generator.random(len(closed)) < plan.audit]
    slots = (closed + DAY_MINUTES).astype(np.int64) // TICK_MINUTES + 1
    is_bad = generator.random(len(slots)) < share
    return compute_episode_series(build_guard(plan, measure), slots, is_bad, policy)


def to_instants(minutes: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return minutes since 1970 as microseconds."""
    return (minutes * MINUTE).astype(np.int64)


def build_signs(minutes: NDArray[np.float64]) -> SiteSigns:
    """Return the signs of a site that sends cases, each a unit."""
    return build_case_signs(to_instants(minutes), np.arange(len(minutes), dtype=np.uint64))


def build_clock(plan: SitePlan, window: Window) -> CellClock:
    """Return the clock of a window of the plan."""
    start, end = FIRST_DAY * DAY_MINUTES * MINUTE, (FIRST_DAY + DAYS) * DAY_MINUTES * MINUTE
    return build_cell_clock(SITE, plan.windows, window.id, start, end)


def compute_silences(
    plan: SitePlan, window: Window, signs: SiteSigns, policy: Policy
) -> GuardSeries:
    """Return the readings of a cell's heartbeat guard."""
    cell_policy = replace(policy, windows=plan.windows, tick=TICK)
    last_slot = (FIRST_DAY + DAYS) * DAY_MINUTES // TICK_MINUTES
    guard = build_guard(plan, "heartbeat")
    return compute_cell_silences(guard, signs, SITE, cell_policy, window.id, last_slot)


def measure_silence(plan: SitePlan, seed: int, policy: Policy, *, has_pings: bool) -> float:
    """Return the minutes until silence is noticed in a cell; infinite if it ends before.

    It lasts two hours; with signs of life two ticks more, as a limit of two hours is noticed then.
    """
    generator = np.random.default_rng([seed, 3])
    minutes = draw_minutes(plan, generator)
    opens, closes = plan.open_minutes
    length = SILENT_MINUTES + (2 * TICK_MINUTES if has_pings else 0)
    start = (FIRST_DAY + FAULT_DAY) * DAY_MINUTES + int(generator.uniform(opens, closes - length))
    end, last_day = start + length, FIRST_DAY + DAYS
    pings = np.arange(FIRST_DAY * DAY_MINUTES, last_day * DAY_MINUTES, PING_MINUTES, dtype=float)
    signs = build_signs(minutes[(minutes < start) | (minutes >= end)])
    if has_pings:
        signs = replace(signs, pings=to_instants(pings[(pings < start) | (pings >= end)]))
    series = [compute_silences(plan, window, signs, policy) for window in plan.windows]
    first = start // TICK_MINUTES + 1
    alarms = [alarm for cell in series if (alarm := cell.find_next_alarm(first)) is not None]
    delay = min(alarms, default=2**40) * TICK_MINUTES - start
    return delay if delay <= length else np.inf


def count_alarms(series: GuardSeries) -> int:
    """Return the number of episodes."""
    return int((np.diff(series.is_alarm.astype(int), prepend=0) == 1).sum())


def measure_delay(
    plan: SitePlan, trouble: Trouble, seed: int, policy: Policy
) -> tuple[float, float]:
    """Return the records from a fault to its alarm, and from its end to the clearing."""
    generator = np.random.default_rng([seed, 1])
    minutes = draw_minutes(plan, generator)
    started = (FIRST_DAY + FAULT_DAY) * DAY_MINUTES + generator.uniform(480, 1200)
    chances = generator.random(len(minutes))
    healthy = 0.01 if trouble.measure == "latency_p95" else 0.002
    guard = build_guard(plan, trouble.measure)

    def read(ends: float) -> tuple[NDArray[np.int64], GuardSeries]:
        is_in_fault = (minutes >= started) & (minutes < ends)
        is_bad = chances < np.where(is_in_fault, trouble.share, healthy)
        slots, is_bad_vote = select_votes(minutes, is_bad, np.random.default_rng(seed))
        return slots, compute_episode_series(guard, slots, is_bad_vote, policy)

    start_slot = int(started) // TICK_MINUTES + 1
    slots, series = read(np.inf)
    alarm = series.find_next_alarm(start_slot)
    if alarm is None:
        return np.inf, np.inf
    slots, series = read(alarm * TICK_MINUTES)
    cleared = series.slots[(series.slots > alarm) & ~series.is_alarm]
    whole_minutes = minutes.astype(np.int64)  # a minute has one vote; none before the fault counts
    is_waiting = (whole_minutes >= int(started)) & (whole_minutes < alarm * TICK_MINUTES)
    delay = len(np.unique(whole_minutes[is_waiting]))
    return delay, int(((slots > alarm) & (slots <= cleared[0])).sum()) if len(cleared) else np.inf


def list_false_suspensions(policy: Policy) -> Iterator[str]:
    """Yield a row for each kind of place and stream."""
    for plan in (BEARS, DOOR):
        for kind in SHARES:
            counts = [count_suspensions(plan, kind, seed, policy) for seed in SEEDS]
            totals = [count.total() for count in counts]
            means = ", ".join(
                f"{measure} {sum(count[measure] for count in counts) / len(SEEDS):.2f}"
                for measure in (*LINES, "heartbeat")
            )
            yield (
                f"{plan.name:6} {kind:16} mean {np.mean(totals):.2f}, most {max(totals)} ({means})"
            )


def list_delays(policy: Policy) -> Iterator[str]:
    """Yield a row for each kind of place and fault."""
    for plan in (BEARS, DOOR):
        for trouble in TROUBLES:
            delays = [measure_delay(plan, trouble, seed, policy) for seed in range(DELAY_RUNS)]
            alarm_counts, clear_counts = np.array(delays).T
            yield (
                f"{plan.name:6} {trouble.name:24} found after {np.median(alarm_counts):.0f}"
                f" ({np.quantile(alarm_counts, 0.9):.0f}; published"
                f" {PUBLISHED[plan.name, trouble.name]}) records, cleared after"
                f" {np.median(clear_counts):.0f}"
            )


def list_silences(policy: Policy) -> Iterator[str]:
    """Yield a row for each kind of place, without and with signs of life."""
    for plan in (BEARS, DOOR):
        for has_pings in (False, True):
            delays = np.array(
                [
                    measure_silence(plan, seed, policy, has_pings=has_pings)
                    for seed in range(DELAY_RUNS)
                ]
            )
            is_noticed = np.isfinite(delays)
            times = delays[is_noticed] if is_noticed.any() else np.zeros(1)
            by = f"a ping every {PING_MINUTES} min" if has_pings else "traffic alone"
            yield (
                f"{plan.name:6} two hours of silence, by {by}: noticed in"
                f" {is_noticed.mean() * 100:.0f} %, after {np.median(times):.0f}"
                f" ({np.quantile(times, 0.9):.0f}) minutes"
            )


def main() -> None:
    """Print the tables."""
    policy = parse_policy(Path("examples/bears/policy.yaml").read_text(encoding="utf-8"))
    print(
        f"false suspensions by all operational guards, all sites, {DAYS} days, {len(SEEDS)} seeds"
    )
    for row in list_false_suspensions(policy):
        print(row)
    print(f"records to the alarm: median (90 %), {DELAY_RUNS} runs")
    for row in list_delays(policy):
        print(row)
    print(f"two hours of silence: median (90 %), {DELAY_RUNS} runs")
    for row in list_silences(policy):
        print(row)


if __name__ == "__main__":
    main()
