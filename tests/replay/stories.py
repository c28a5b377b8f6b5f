"""Random histories and policies in which much happens: gates open early, grants end soon.

All spans are in ticks, so that a day's tick and a quarter of an hour's tell the same stories.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import polars as pl
from hypothesis import strategies as st

from rollout.core.measures import Condition
from rollout.core.places import Site, Window
from rollout.core.policy import (
    Cost,
    EvidenceRules,
    Freeze,
    Gate,
    Guard,
    Lever,
    Limit,
    Minimum,
    Policy,
    Stage,
    Waves,
    Where,
)
from rollout.replay.engine import Course, Replay
from rollout.replay.feeds import HistoryFeeds
from rollout.services.replaying import first_seen
from rollout.tally.placing import place
from rollout.tally.rows import gather
from rollout.tally.units import resolve
from tests.tally.histories import START, records
from rollout.tally.frames import (
    cases_schema,
    decisions_schema,
    outcomes_schema,
    predictions_schema,
)

LABELS = ("bear", "fox", "none")
LEVER = Lever(
    id="alarm",
    labels=LABELS,
    actions=("ring", "wait", "wait"),
    costs=(Cost(5, did="wait", right="ring"), Cost(1)),
)
SECOND = Lever(id="gate", labels=LABELS, actions=LABELS, costs=(Cost(2),))
STAGES = ("supervised", "autonomous", "alone")
share = st.sampled_from([0.1, 0.3, 0.5, 0.8, 1.0])


# Policies


def ticks(draw, tick, *counts):
    """Draw a span in ticks; odd ones end between two slots."""
    return draw(st.sampled_from(counts)) * tick


@st.composite
def policies(draw):
    """Return a policy of few cells with any of everything."""
    tick = draw(st.sampled_from([timedelta(minutes=15), timedelta(hours=1), timedelta(days=1)]))
    sites = draw(sites_of())
    windows = draw(st.sampled_from([DAY_AND_NIGHT, (Window("always"),)]))
    policy = Policy(
        rollout="story",
        timezone="UTC",
        levers=draw(st.sampled_from([(LEVER,), (LEVER,), (LEVER, SECOND)])),
        sites=sites,
        windows=windows,
        stages=draw(stages_of(tick)),
        evidence=draw(evidence_of(tick)),
        gates=(),
        open_for=ticks(draw, tick, 2, 7.5, 40),
        takeover=draw(st.sampled_from(["same-stage", "same-stage", "supervised", "shadow"])),
        tick=tick,
        observe=draw(st.sampled_from([False] * 9 + [True])),
    )
    return replace(
        policy,
        gates=draw(gates_of(policy)),
        guards=draw(guards_of(policy)),
        limits=draw(limits_of(policy)),
        waves=draw(st.none() | waves_of(policy)),
        freezes=draw(freezes_of()),
    )


DAY_AND_NIGHT = (Window("day", "06:00-18:00"), Window("night"))


@st.composite
def sites_of(draw):
    zones = ("UTC", "America/Denver", "Asia/Tokyo")
    waves = draw(st.sampled_from([(1,), (1, 2), (1, 1, 2), (1, 2, 3), (3, 1, 2)]))
    return tuple(
        Site(f"s{i}", draw(st.sampled_from(zones)), wave=wave) for i, wave in enumerate(waves)
    )


@st.composite
def stages_of(draw, tick):
    lasts = [ticks(draw, tick, 7, 15, 20.5, 40, 90) for _ in range(3)]
    stages = (
        Stage("supervised", blind=draw(share), lasts=lasts[0]),
        Stage("autonomous", draw(st.sampled_from([0, 0.3])), draw(share), lasts[1]),
        Stage("alone", 0.0, draw(share), lasts[2]),
    )
    return stages[: draw(st.integers(1, 3))]


@st.composite
def evidence_of(draw, tick):
    unit = draw(st.sampled_from(["case", "case", "episode"]))
    return EvidenceRules(
        unit=unit,
        episode_span=ticks(draw, tick, 0.5, 2) if unit == "episode" else None,
        grace=ticks(draw, tick, 0, 0.5, 1, 3),
        missing_at_most=draw(st.sampled_from([0.1, 0.4, 1.0, 1.0])),
        second_verdict=0.3,
        outside_blind=True,
    )


def a_condition(measure, line, *, at_least=True, label=None, action=None, lever=None):
    return Condition(measure, line, at_least=at_least, label=label, action=action, lever=lever)


@st.composite
def conditions(draw, policy):
    lever = None if len(policy.levers) == 1 else "alarm"
    line = draw(st.sampled_from([0.5, 0.6, 0.7]))
    return draw(
        st.sampled_from(
            [
                a_condition("agreement", line),
                a_condition("agreement", line, lever=lever),
                a_condition("recall", line, label="bear", lever=lever),
                a_condition("precision", line, label="none", lever=lever),
                a_condition("cost", (1 - line) * policy.largest_cost, at_least=False),
                a_condition("parity", -(1 - line), at_least=True),
            ]
        )
    )


@st.composite
def gates_of(draw, policy):
    gates = []
    for stage in policy.stages:
        require = (a_condition("agreement", draw(st.sampled_from([0.5, 0.7]))),)
        if draw(st.booleans()):
            require = (draw(conditions(policy)),)
        gate = Gate(
            to=stage.id,
            require=require,
            risk=draw(st.sampled_from([0.05, 0.2])),
            minimum=Minimum(*draw(st.sampled_from([(0, 0, 0), (3, 1, 1), (8, 1, 2)]))),
            approvals=draw(st.sampled_from([("operator",), ("operator", "safety")])),
            where=draw(st.sampled_from([Where()] * 9 + [Where(windows=(policy.windows[0].id,))])),
        )
        gates.append(gate)
    return tuple(gates)


@st.composite
def guards_of(draw, policy):
    return tuple(draw(st.lists(guards(policy), max_size=4, unique_by=lambda guard: guard.id)))


@st.composite
def guards(draw, policy):
    tick = policy.tick
    lever = None if len(policy.levers) == 1 else "alarm"
    quality = ("one-stage", "shadow", "report")
    every = draw(st.sampled_from([2, 10, 60]))
    line = draw(st.sampled_from([0.5, 0.7, 0.9]))
    more = {
        "reach": draw(st.sampled_from(["cell", "cell", "site", "rollout"])),
        "where": draw(st.sampled_from([Where()] * 4 + [Where(sites=("s0",))])),
        "false_alarm_every": every,
    }
    over = ticks(draw, tick, 1, 4, 12.5)
    low = draw(st.sampled_from([0.0, 0.1, 0.4]))
    seconds = ticks(draw, tick, 1, 3, 6.5).total_seconds()
    watched, spanned = draw(
        st.sampled_from(
            [
                (a_condition("agreement", line), False),
                (a_condition("recall", line, label="bear", lever=lever), False),
                (a_condition("precision", line, label="fox", lever=lever), False),
                (a_condition("cost", low + 0.1, at_least=False), False),
                (a_condition("override", low + 0.1, at_least=False), False),
                (a_condition("action_change", 2, at_least=False, action="ring"), False),
                (a_condition("missing", low, at_least=False), True),
                (a_condition("unaudited", low, at_least=False), True),
                (a_condition("latency_p95", 1, at_least=False), True),
                (a_condition("failures", low, at_least=False), True),
                (a_condition("heartbeat", seconds, at_least=False), None),
                (a_condition("harm", draw(st.sampled_from([0, 2])), at_least=False), True),
            ]
        )
    )
    operational = watched.measure in {"latency_p95", "failures", "heartbeat", "missing"}
    then = draw(st.sampled_from((*quality, "suspend", "suspend") if operational else quality))
    return Guard(watched, then, over=over if spanned else None, **more)


@st.composite
def limits_of(draw, policy):
    where = draw(st.sampled_from([Where(), Where(sites=("s0",)), Where(windows=("day",))]))
    end = (START + ticks(draw, policy.tick, 20, 50, 90)).date()
    never = draw(st.sampled_from(policy.rungs))
    cap = Limit(never_above=never, where=Where(sites=("s0",)))
    kinds = [(), (), (), (cap,), (Limit(ends=end, where=where),)]
    return draw(st.sampled_from(kinds))


@st.composite
def waves_of(draw, policy):
    return Waves(
        stage=draw(st.sampled_from(policy.rungs[1:])),
        hold=ticks(draw, policy.tick, 0, 0, 3, 10.5),
        share=draw(st.sampled_from([0.4, 1.0])),
        at_once=draw(st.sampled_from([None, 1, 2])),
        settle=ticks(draw, policy.tick, 0, 4, 10.5),
    )


@st.composite
def freezes_of(draw):
    hours = draw(st.sampled_from([None, None, None, "10:00-14:00", "Tu-We"]))
    return () if hours is None else (Freeze(hours, "closed"),)


# Histories


@dataclass(frozen=True)
class Course_:
    """What a history is like."""

    seed: int
    slots: int
    busy: float
    late: float
    missing: float
    quiet: bool
    versions: int
    on_grid: bool


stories = st.builds(
    Course_,
    seed=st.integers(0, 2**20),
    slots=st.sampled_from([40, 100, 160]),
    busy=st.sampled_from([0.5, 1.0, 2.5]),
    late=st.sampled_from([0.0, 0.3]),
    missing=st.sampled_from([0.0, 0.0, 0.05, 0.3]),
    quiet=st.booleans(),
    versions=st.sampled_from([1, 2, 2, 3]),
    on_grid=st.booleans(),
)

courses = st.builds(
    lambda delay, salt: (delay, bytes([salt]) * 32),
    st.sampled_from([0, 0, 0.3, 1, 4.7, 1, 0, None]),
    st.integers(0, 3),
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
        )
        .cast(cases_schema()),
        pl.concat(
            [
                _said(rng, story, policy, keys, at, truth, number)
                for number in range(1, story.versions + 1)
            ]
        ),
        _given(rng, story, policy, keys, at, truth),
        _harmed(rng, policy, keys, at, names),
    )


def _instants(at, policy):
    return pl.Series([START + float(a) * policy.tick for a in at], dtype=pl.Datetime("us", "UTC"))


def _said(rng, story, policy, keys, at, truth, number):
    """Answers of one version: from its start on, good and bad by phases and sites."""
    begins = 0 if number == 1 else rng.uniform(0, story.slots * 0.6)
    mine = at >= begins
    keys, at, truth = keys[mine], at[mine], truth[mine]
    phase = (at // rng.integers(15, 60)).astype(int)
    rates = rng.choice([0.2, 0.75, 0.97, 1.0], int(phase.max(initial=0)) + 1, p=[0.15, 0.2, 0.3, 0.35])
    rates[0] = 1.0
    right = rng.random(truth.shape) < rates[phase][:, None]
    said = np.where(right, truth, rng.choice((*LABELS, "wolf"), truth.shape)).astype(object)
    said[rng.random(len(at)) < 0.02] = None
    slow = np.where(rng.random(len(at)) < np.where(phase % 3 == 1, 0.3, 0.01), 5000.0, 100.0)
    names = [lever.id for lever in policy.levers]
    return pl.DataFrame(
        {
            "case_key": keys,
            "version": [f"v{number}"] * len(at),
            **{f"value:{name}": list(said[:, i]) for i, name in enumerate(names)},
            "confidence": rng.random(len(at)),
            "at": _instants(at + rng.choice([0, 0, 0.4], len(at)), policy),
            "latency_ms": slow,
            "error": [None] * len(at),
        },
        schema=predictions_schema(names),
    )


def _given(rng, story, policy, keys, at, truth):
    """Verdicts, blind and assisted, some late, some never; a second one now and then."""
    parts = []
    for seat, drawn, exposure in ((1, 1.0, "blind"), (2, 0.3, "blind"), (None, 0.7, "assisted")):
        mine = (rng.random(len(at)) < drawn) & (rng.random(len(at)) >= story.missing)
        label = np.where(rng.random(truth.shape) < 0.97, truth, rng.choice(LABELS, truth.shape))
        label = label[mine].astype(object)
        late = np.where(rng.random(len(at)) < story.late, rng.exponential(6, len(at)), 0)
        given = at + rng.choice([0, 0.45], len(at)) + late
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
                    "at": _instants(given[mine], policy),
                },
                schema=decisions_schema(names),
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
        schema=outcomes_schema(names),
    )


# Runs


@dataclass(frozen=True)
class Prepared:
    """Everything that a replay is made of."""

    policy: Policy
    history: object
    units: object
    feeds: HistoryFeeds
    seen: dict

    def run(self, course):
        """Replay it."""
        return Replay(self.units, self.policy, self.feeds, self.seen, course).run()


def prepared(history, policy, salt=bytes(32), trained_until=None):
    """Place, resolve and gather a history once, for any number of runs."""
    placed = place(history, policy, salt, trained_until)
    units = gather(resolve(placed.placed, policy).collect("polars").to_native(), policy)
    feeds = HistoryFeeds(history, placed, policy)
    return Prepared(policy, history, units, feeds, first_seen(history, placed))


def a_course(policy, delay, salt, *, skip=True):
    """Return a course whose approvals take `delay` ticks."""
    after = None if delay is None else delay * policy.tick
    return Course(salt=salt, approve_after=after, skip=skip)
