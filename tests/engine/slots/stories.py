"""Random histories and policies in which much happens: gates open early, grants end soon.

All spans are in ticks, so that a day's tick and a quarter of an hour's tell the same stories.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random

import numpy as np
import polars as pl
from hypothesis import strategies as st

from rollout.engine.evidence.case_placement import (
    PlacedHistory,
    find_first_predictions,
    place_cases,
    resolve_natural_units,
)
from rollout.engine.evidence.frames import (
    RecordFrames,
    build_cases_schema,
    build_decisions_schema,
    build_outcomes_schema,
    build_predictions_schema,
)
from rollout.engine.evidence.tallied_units import TalliedUnits, build_units
from rollout.engine.slots.engine import Replay
from rollout.engine.slots.options import ReplayOptions
from rollout.engine.slots.record_feed import HistoryFeeds
from rollout.kernel.calendar.instants import Site, Window
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.policy import (
    EvidenceRules,
    Freeze,
    Gate,
    Guard,
    Limit,
    Minimum,
    Policy,
    Stage,
    Waves,
    Where,
)
from rollout.kernel.units import CostRule, Lever
from tests.engine.evidence.histories import START, records

LABELS = ("bear", "fox", "none")
LEVER = Lever(
    id="alarm",
    labels=LABELS,
    actions=("ring", "wait", "wait"),
    costs=(CostRule(5, did="wait", right="ring"), CostRule(1)),
)
SECOND = Lever(id="gate", labels=LABELS, actions=LABELS, costs=(CostRule(2),))


# Policies. `pick` chooses one of its arguments: a seeded generator's, or Hypothesis'.


@dataclass(frozen=True)
class StoryPolicy(Policy):
    """A policy whose proposals expire within a story."""

    open_for: timedelta = Policy.open_for


def a_policy(pick):
    """Return a policy of few cells with any of everything."""
    tick = pick(timedelta(minutes=15), timedelta(hours=1), timedelta(days=1))
    policy = StoryPolicy(
        rollout="story",
        timezone="UTC",
        levers=pick((LEVER,), (LEVER,), (LEVER, SECOND)),
        sites=_sites(pick),
        windows=pick(DAY_AND_NIGHT, (Window("always"),)),
        stages=_stages(pick, tick),
        evidence=_evidence(pick, tick),
        gates=(),
        open_for=pick(3, 7.5, 40) * tick,
        takeover=pick("same-stage", "same-stage", "supervised", "shadow"),
        tick=tick,
        observe=pick(*[False] * 19, True),
    )
    return replace(
        policy,
        gates=tuple(_gate(pick, policy, stage.id) for stage in policy.stages),
        guards=_guards(pick, policy),
        limits=_limits(pick, policy),
        waves=pick(None, _waves(pick, policy)),
        freezes=pick((), (), (), (Freeze("10:00-14:00", "closed"),), (Freeze("Tu-We", "closed"),)),
    )


DAY_AND_NIGHT = (Window("day", "06:00-18:00"), Window("night"))


def _sites(pick):
    waves = pick((1,), (1, 2), (1, 1, 2), (1, 2, 3), (3, 1, 2))
    zones = "UTC", "America/Denver", "Asia/Tokyo"
    return tuple(Site(f"s{i}", pick(*zones), wave=wave) for i, wave in enumerate(waves))


def _stages(pick, tick):
    def lasts():
        return pick(7, 15, 20.5, 40, 90) * tick

    stages = (
        Stage("supervised", blind=pick(*SHARES), lasts=lasts()),
        Stage("autonomous", pick(0.0, 0.3), pick(*SHARES), lasts()),
        Stage("alone", 0.0, pick(*SHARES), lasts()),
    )
    return stages[: pick(1, 2, 2, 3)]


SHARES = (0.1, 0.3, 0.5, 0.8, 1.0)


def _evidence(pick, tick):
    unit = pick("case", "case", "episode")
    return EvidenceRules(
        unit=unit,
        episode_span=pick(0.5, 2) * tick if unit == "episode" else None,
        grace=pick(0.5, 0.5, 1, 1, 3, 0) * tick,
        missing_at_most=pick(0.2, 0.5, 1.0, 1.0),
        second_verdict=0.3,
        outside="blind",
    )


def _condition(measure, line, *, label=None, action=None, lever=None):
    return Condition(MEASURES[measure], line, label=label, action=action, lever=lever)


def _gate(pick, policy, stage):
    lever = None if len(policy.levers) == 1 else "alarm"
    line = pick(0.5, 0.6, 0.7)
    agreement = _condition("agreement", line)
    require = pick(
        *[agreement] * 4,
        _condition("agreement", line, lever=lever),
        _condition("recall", line, label="bear", lever=lever),
        _condition("precision", line, label="none", lever=lever),
        _condition("cost", (1 - line) * policy.largest_cost),
        agreement,
    )
    return Gate(
        to=stage,
        require=tuple(dict.fromkeys((require, agreement))),
        risk=pick(0.05, 0.2, 0.2),
        minimum=Minimum(*pick((0, 0, 0), (3, 1, 1), (8, 1, 2))),
        approvals=pick(("operator",), ("operator", "safety")),
        where=pick(*[Where()] * 9, Where(windows=(policy.windows[0].id,))),
    )


def _guards(pick, policy):
    guards = [_guard(pick, policy) for _ in range(pick(0, 1, 2, 3, 5))]
    return tuple({guard.id: guard for guard in guards}.values())


def _guard(pick, policy):
    watched, over = _watched(pick, policy)
    then = ("one-stage", "shadow", "report")
    if watched.measure.is_operational:
        then += ("suspend", "suspend", "suspend")
    return Guard(
        watched,
        pick(*then),
        over=over,
        reach=pick("cell", "cell", "site", "rollout"),
        where=pick(*[Where()] * 4, Where(sites=("s0",))),
        false_alarm_every=pick(2, 10, 60),
    )


def _watched(pick, policy):
    """Return a guard's condition and its span, if it has one."""
    lever = None if len(policy.levers) == 1 else "alarm"
    line, low = pick(0.5, 0.7, 0.9), pick(0.0, 0.1, 0.4)
    over = pick(1, 4, 12.5) * policy.tick
    silent = (pick(1, 3, 6.5) * policy.tick).total_seconds()
    ring = _condition("action_change", pick(-5, 2), action="ring")
    return pick(
        (_condition("agreement", line), None),
        (_condition("agreement", line, lever=lever), None),
        (_condition("recall", line, label="bear", lever=lever), None),
        (_condition("precision", line, label="fox", lever=lever), None),
        (_condition("cost", low + 0.1), None),
        (_condition("override", low + 0.1), None),
        (ring, None),
        (_condition("missing", low), over),
        (_condition("unaudited", low), over * 5),
        (_condition("latency_p95", 1), over),
        (_condition("failures", low), over),
        (_condition("heartbeat", silent), None),
        (_condition("harm", pick(0, 2)), over),
    )


def _limits(pick, policy):
    where = pick(Where(), Where(sites=("s0",)), Where(windows=("day",)))
    end = (START + pick(20, 50, 90) * policy.tick).date()
    cap = Limit(never_above=pick(*policy.stage_ids), where=Where(sites=("s0",)))
    return pick((), (), (), (), (cap,), (Limit(ends=end, where=where),))


def _waves(pick, policy):
    return Waves(
        stage=pick(*policy.stage_ids[1:]),
        hold=pick(0, 0, 3, 10.5) * policy.tick,
        share=pick(0.4, 1.0),
        at_once=pick(None, 1, 2),
        settle=pick(0, 4, 10.5) * policy.tick,
    )


# Histories


@dataclass(frozen=True)
class Story:
    """What a history is like: its length in slots, cases a slot, shares late and missing."""

    seed: int
    slots: int
    busy: float
    late: float
    missing: float
    quiet: bool
    versions: int
    on_grid: bool


def a_story(pick, seed):
    """Return a story; its details follow from the seed."""
    return Story(
        seed=seed,
        slots=pick(40, 100, 160),
        busy=pick(0.5, 1.0, 2.5),
        late=pick(0.0, 0.0, 0.15),
        missing=pick(0.0, 0.0, 0.03, 0.15),
        quiet=pick(False, True),
        versions=pick(1, 2, 3),
        on_grid=pick(False, False, True),
    )


def seeded(seed):
    """Return a `pick` that a seed decides."""
    rng = Random(seed)  # noqa: S311 - stories, no secrets
    return lambda *options: rng.choice(options)


def drawn(draw):
    """Return a `pick` that Hypothesis decides."""
    return lambda *options: draw(st.sampled_from(options))


def a_course(pick, policy, *, skip=True):
    """Return a course whose approvals take some ticks, or never come."""
    delay = pick(None, 0, 0, 0.3, 1, 1, 4.7)
    after = None if delay is None else delay * policy.tick
    return ReplayOptions(
        salt=bytes([pick(0, 1, 2)]) * 32, approval_delay=after, skip_idle_slots=skip
    )


def a_history(story, policy):
    """Return records under a story: phases of good and bad answers, delays, gaps and silence."""
    rng = np.random.default_rng(story.seed)
    n = int(story.slots * story.busy * len(policy.sites))
    at = np.sort(rng.uniform(0, story.slots, n))
    if story.quiet:
        gap = rng.uniform(0, story.slots)
        at = at[(at < gap) | (at > gap + 15)]
    if story.on_grid:
        at = np.floor(at)
    site = rng.choice([s.id for s in policy.sites], len(at))
    n = len(at)
    truth = rng.choice(LABELS, (n, 2), p=[0.3, 0.2, 0.5])
    keys = np.array([f"c{i}" for i in range(n)])
    when = [START + float(a) * policy.tick for a in at]
    names = [lever.id for lever in policy.levers]
    return records(
        pl.DataFrame(
            {"case_key": keys, "site": site, "occurred_at": when},
            schema_overrides={"occurred_at": pl.Datetime("us", "UTC")},
        )
        .with_columns(
            occurred_text=pl.lit(""),
            hour_written=pl.lit(None),
            episode=pl.lit(None),
            received_at=pl.lit(None),
            known_at=pl.lit(None),
            draws=pl.lit(None),
        )
        .cast(build_cases_schema()),
        pl.concat(
            [
                _draw_answers(rng, story, policy, keys, at, truth, number)
                for number in range(1, story.versions + 1)
            ]
        ),
        _draw_decisions(rng, story, policy, keys, at, truth),
        _harmed(rng, policy, keys, at, names),
    )


def _instants(at, policy):
    return pl.Series([START + float(a) * policy.tick for a in at], dtype=pl.Datetime("us", "UTC"))


def _draw_answers(rng, story, policy, keys, at, truth, number):
    """Answers of one version: from its start on, good and bad by phases and sites."""
    begins = 0 if number == 1 else rng.uniform(0, story.slots * 0.6)
    mine = at >= begins
    keys, at, truth = keys[mine], at[mine], truth[mine]
    phase = (at // rng.integers(15, 60)).astype(int)
    rates = rng.choice([0.1, 0.5, 0.97, 1.0, 1.0], int(phase.max(initial=0)) + 1)
    rates[: int(phase.min(initial=0)) + 1] = 1.0
    right = rng.random(truth.shape) < rates[phase][:, None]
    labels = np.where(right, truth, rng.choice((*LABELS, "wolf"), truth.shape)).astype(object)
    labels[rng.random(len(at)) < 0.02] = None
    slow = np.where(rng.random(len(at)) < np.where(phase % 3 == 1, 0.3, 0.01), 5000.0, 100.0)
    names = [lever.id for lever in policy.levers]
    return pl.DataFrame(
        {
            "case_key": keys,
            "version": [f"v{number}"] * len(at),
            **{f"value:{name}": list(labels[:, i]) for i, name in enumerate(names)},
            "confidence": rng.random(len(at)),
            "at": _instants(at + _draw_delays(rng, len(at)), policy),
            "latency_ms": slow,
            "error": [None] * len(at),
            "received_at": [None] * len(at),
            "known_at": [None] * len(at),
        },
        schema=build_predictions_schema(names),
    )


def _draw_delays(rng, n):
    """Most answers are there before any decision: others are missing, whatever they say."""
    delays = rng.choice([0, 0, 0, 0.3], n)
    return np.where(np.arange(n) % 40 == 0, delays, 0)


def _draw_decisions(rng, story, policy, keys, at, truth):
    """Decisions, blind and assisted, some late, some never; a second one now and then."""
    parts = []
    for seat, drawn, exposure in ((1, 1.0, "blind"), (2, 0.3, "blind"), (None, 0.7, "assisted")):
        mine = (rng.random(len(at)) < drawn) & (rng.random(len(at)) >= story.missing)
        label = np.where(rng.random(truth.shape) < 0.97, truth, rng.choice(LABELS, truth.shape))
        label = label[mine].astype(object)
        late = np.where(rng.random(len(at)) < story.late, rng.exponential(6, len(at)), 0)
        submitted_at = at + rng.choice([0, 0.3, 0.45], len(at)) + late
        unsure = rng.random(mine.sum()) < story.missing / 2
        label[unsure] = None
        names = [lever.id for lever in policy.levers]
        parts.append(
            pl.DataFrame(
                {
                    "case_key": keys[mine],
                    "reviewer": [f"{exposure}-{seat}-{i % 3}" for i in np.flatnonzero(mine)],
                    **{f"value:{name}": list(label[:, i]) for i, name in enumerate(names)},
                    "unsure": unsure,
                    "exposure": [exposure] * int(mine.sum()),
                    "seat": [seat] * int(mine.sum()),
                    "at": _instants(submitted_at[mine], policy),
                    "started_at": [None] * int(mine.sum()),
                    "source": [None] * int(mine.sum()),
                    "received_at": [None] * int(mine.sum()),
                },
                schema=build_decisions_schema(names),
            )
        )
    return pl.concat(parts)


def _harmed(rng, policy, keys, at, names):
    mine = rng.random(len(at)) < 0.02
    return pl.DataFrame(
        {
            "case_key": keys[mine],
            **{f"value:{name}": [None] * int(mine.sum()) for name in names},
            "harm": ["bite"] * int(mine.sum()),
            "at": _instants(at[mine] + rng.exponential(5, int(mine.sum())), policy),
        },
        schema=build_outcomes_schema(names),
    )


# Runs


@dataclass(frozen=True)
class Prepared:
    """Everything that a replay is made of."""

    policy: Policy
    history: RecordFrames
    placed: PlacedHistory
    units: TalliedUnits
    feeds: HistoryFeeds
    seen: dict

    def run(self, course):
        """Replay it."""
        return Replay(self.units, self.policy, self.feeds, self.seen, course).run()


def prepared(history, policy, salt=bytes(32), trained_until=None):
    """Place, resolve and gather a history once, for any number of runs."""
    placed = place_cases(history, policy, salt, trained_until)
    units = build_units(resolve_natural_units(placed, policy), policy)
    feeds = HistoryFeeds(history, placed, policy)
    return Prepared(
        policy, history, placed, units, feeds, find_first_predictions(history, placed.cases)
    )


def build_changed_story(seed, change):
    """Return a seeded story under a changed policy, and its course."""
    pick = seeded(seed)
    policy = a_policy(pick)
    story, course = a_story(pick, seed), a_course(pick, policy)
    policy = change(policy)
    return prepared(a_history(story, policy), policy, course.salt), course


def replay_changed_story(seed, change, *, skip=True):
    """Replay a seeded story under a changed policy, or decide its idle slots too."""
    ready, course = build_changed_story(seed, change)
    return ready.run(replace(course, skip_idle_slots=skip))


def replay_with_and_without_skips(replay, seeds):
    """Return the events of seeded stories, which are the same if idle slots are decided too."""
    events = []
    for seed in seeds:
        quick, whole = (replay(seed, skip=skip) for skip in (True, False))
        assert quick.events == whole.events
        events += quick.events
    return events
