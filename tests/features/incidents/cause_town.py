"""A creek whose cameras change: from one case on most have a new lens, which v1 misreads."""

from datetime import timedelta

from rollout.engine.decide.commands import OpenIncident
from rollout.engine.records.records import Prediction
from rollout.live.rollout_state import execute_command
from tests.api.bears import CREEK, founded, widened
from tests.console.divergences.divergence_rows import count
from tests.console.told_cases import case, tell, verdict
from tests.data.snapshots import filled_once
from tests.factories import NOON

MORNING, GAP, PER_DAY = timedelta(hours=18), timedelta(minutes=20), 40
CASES, CHANGE, INCIDENT = 240, 160, 185
"""Cases in all, the first with a new lens, and how many occurred before the incident."""


def find_time(n):
    """Return when a case occurs, by day: the first days have 40 cases each."""
    return NOON + MORNING + timedelta(days=n // PER_DAY) + n % PER_DAY * GAP


OPENED, END = find_time(INCIDENT), find_time(CASES + 3 * PER_DAY)


def has_new_lens(n):
    return n >= CHANGE and n % 5 != 4


def is_wrong(n):
    return n % 53 == 7 if n < CHANGE else has_new_lens(n) and n % 2 == 0


def build_records(n):
    """Return a case, v1's answer and a blind decision on it."""
    key, at = f"c{n:04}", find_time(n)
    right = "bear" if n % 3 else "none"
    wrong = "none" if n % 3 else "bear"
    answers = {"alarm": wrong if is_wrong(n) else right}
    lens = "new" if has_new_lens(n) else "old"
    attributes = {"lens": lens, "camera": f"cam-{n // 2 % 2}"}
    yield case(key, at=at, attributes=attributes)
    yield Prediction(key=key, version="v1", answers=answers, at=at, confidence=0.9)
    yield verdict(key, right, by=("rita", "sam")[n // 4 % 2], at=at)


@filled_once
def open_town(database):
    """Found the rollout and store its cases; nothing is counted yet."""
    founded(database, NOON)
    tell_cases(database)


@filled_once
def tell_cases(database):
    """Store the cases as they occur."""
    for n in range(CASES):
        tell(database, *build_records(n), at=find_time(n))


@filled_once
def open_incident(database):
    incident = OpenIncident(
        at=OPENED, kind="unauthorized", reason="lens", cell=CREEK, version="v1", about="c0170"
    )
    execute_command(database, "bears", lambda _: incident)


@filled_once
def alarm_town(database):
    """Found the town with creek widened; count until its own guard narrows it, and long after."""
    founded(database, NOON)
    widened(database, NOON, CREEK)
    tell_cases(database)
    for n in (*range(0, CHANGE, 40), *range(CHANGE + 4, CHANGE + 40, 2)):
        count(database, at=find_time(n))
    count(database, at=END)


@filled_once
def build_town(database):
    """Return the town with everything counted long after the incident."""
    open_town(database)
    open_incident(database)
    count(database, at=END)
