"""A year of weekly releases through the replay engine: how many cells they open wrongly.

Each site is a year of its own. Its 52 versions agree with humans exactly as often as the gate's
threshold says. One is retired when the next begins. The gate is looked at after each record.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import polars as pl
import pytest

from rollout.engine.decide.commands import Actor, RetireVersion
from rollout.engine.events import AttemptsBegan, ProposalRaised
from rollout.engine.slots.engine import Replay
from rollout.engine.slots.options import ReplayOptions
from rollout.kernel.calendar.instants import Site
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.gates import compute_yearly_share
from rollout.kernel.policy.policy import EvidenceRules, Minimum
from rollout.kernel.statistics.forecast import forecast_opening
from tests.engine.evidence.histories import a_gate, a_policy, cases, decisions, predictions, records
from tests.engine.slots.stories import prepared

pytestmark = pytest.mark.simulation

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)
TICK, WEEK = timedelta(hours=4), timedelta(weeks=1)
RISK, THRESHOLD = 0.05, 0.7
RELEASES, RECORDS = 52, 30
YEARS, FEW_YEARS = 200, 40
PLAN = ReplayOptions(approval_delay=None)  # what opens is proposed; nobody approves


def build_policy(years):
    """Return a policy with a site a year and a gate on agreement."""
    condition = Condition(MEASURES["agreement"], THRESHOLD)
    minimum = Minimum(units=5, days=1, reviewers=1)
    return a_policy(
        sites=tuple(Site(f"year{number}", "UTC") for number in range(years)),
        gates=(replace(a_gate("supervised"), require=(condition,), risk=RISK, minimum=minimum),),
        evidence=EvidenceRules(grace=TICK / 2, outside="blind"),
        tick=TICK,
    )


def build_history(years, seed):
    """Return a record a tick in the first five days of each week, right as often as `THRESHOLD`."""
    year, release, number = (
        part.ravel() for part in np.indices((years, RELEASES, RECORDS), dtype=np.int64)
    )
    is_right = np.random.default_rng(seed).random(len(year)) < THRESHOLD
    micros = (release * WEEK.total_seconds() + number * TICK.total_seconds() + 60) * 1_000_000
    frame = pl.DataFrame(
        {"year": year, "release": release, "number": number, "is_right": is_right}
    ).with_columns(
        case_key=pl.format("{}-{}-{}", "year", "release", "number"),
        site=pl.format("year{}", "year"),
        version=pl.format("v{}", "release"),
        occurred_at=(pl.lit(NEW_YEAR) + pl.Series(micros.astype(np.int64)).cast(pl.Duration("us"))),
    )
    answer = pl.when("is_right").then(pl.lit("bear")).otherwise(pl.lit("fox"))
    human = {
        "value:alarm": pl.lit("bear"),
        "reviewer": pl.lit("ana"),
        "unsure": pl.lit(value=False),
    }
    return records(
        fill_columns(cases(), frame),
        fill_columns(predictions(), frame.with_columns(answer.alias("value:alarm"))),
        fill_columns(decisions(), frame.with_columns(exposure=pl.lit("blind"), **human)),
    )


def fill_columns(blank, frame):
    """Return rows of `frame` with the columns of `blank`."""
    known = [
        pl.col(name).cast(blank.schema[name]) for name in blank.columns if name in frame.columns
    ]
    return pl.concat([blank, frame.select(known)], how="diagonal")


@cache
def prepare_years(years):
    """Return seeded years, ready to be replayed."""
    return prepared(build_history(years, seed=2027), build_policy(years))


def replay_years(years):
    """Replay the years, retiring each release when the next one begins."""
    ready = prepare_years(years)
    replay = Replay(ready.units, ready.policy, ready.feeds, ready.seen, PLAN)
    for release in range(RELEASES - 1):
        at = NEW_YEAR + (release + 1) * WEEK - TICK
        replay._queue_command(RetireVersion(at=at, by=Actor("bo"), version=f"v{release}"))
    return replay.run()


def list_opened(replayed):
    """Return the cells for which a widening was ever proposed."""
    return {event.cell for event in replayed.events if isinstance(event, ProposalRaised)}


def compute_exact_share(shares):
    """Return the exact chance that a year opens its cell."""
    closed = 1.0
    for share in shares:
        law = forecast_opening(THRESHOLD, at_least=THRESHOLD, alpha=RISK * share, horizon=RECORDS)
        closed *= 1 - law.chance
    return 1 - closed


def margin(share, runs):
    """Return three standard deviations of a simulated share."""
    return 3 * (share * (1 - share) / runs) ** 0.5


def test_52_releases_at_the_threshold_open_at_most_5_percent_of_cells_in_a_year():
    replayed = replay_years(YEARS)
    began = [event for event in replayed.events if isinstance(event, AttemptsBegan)]
    assert sum(len(event.cells) for event in began) == YEARS * RELEASES
    assert {event.numbers for event in began} == {(n,) * YEARS for n in range(1, RELEASES + 1)}
    opened = len(list_opened(replayed)) / YEARS
    exact = compute_exact_share(compute_yearly_share(n) for n in range(1, RELEASES + 1))
    assert 0 < opened <= RISK
    assert opened == pytest.approx(exact, abs=margin(exact, YEARS))
