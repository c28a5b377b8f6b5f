"""When a user hears of an incident: the first at a site at once, those after it together."""

import pytest

from rollout.engine.decide.scope import Incident
from rollout.features.notifications.kinds import find_incident_time, sort_incidents
from rollout.kernel.calendar.instants import Cell
from tests.factories import MINUTE, NOON

DAY, NIGHT, LAKE = Cell("creek", "day"), Cell("creek", "night"), Cell("lake", "day")


def build_incidents(*opened):
    return {
        f"I-{n}": Incident(f"I-{n}", "alarm", "r", NOON + minutes * MINUTE, cell)
        for n, (minutes, cell) in enumerate(opened)
    }


@pytest.mark.parametrize(
    ("opened", "expected"),
    [
        ([(0, DAY)], 0),
        ([(0, DAY), (0, NIGHT)], 0),
        ([(0, DAY), (1, NIGHT)], 5),
        ([(0, DAY), (5, NIGHT)], 5),
        ([(0, DAY), (6, NIGHT)], 6),
        ([(0, DAY), (3, NIGHT), (6, DAY), (8, DAY)], 11),
        ([(0, DAY), (1, LAKE)], 1),
        ([(0, DAY), (1, None)], 1),
        ([(0, None), (1, None)], 5),
        ([(2, LAKE), (1, DAY), (4, NIGHT)], 6),
    ],
)
def test_minute_of_the_last_incidents_message(opened, expected):
    incidents = build_incidents(*opened)
    at = NOON + opened[-1][0] * MINUTE
    send_at = find_incident_time(f"I-{len(opened) - 1}", incidents, at)
    assert send_at == NOON + expected * MINUTE


def test_an_incident_that_is_queued_late_is_not_delayed():
    incidents = build_incidents((0, DAY), (1, DAY))
    assert find_incident_time("I-1", incidents, NOON + 9 * MINUTE) == NOON + 9 * MINUTE


def test_incidents_are_in_the_order_of_their_numbers():
    incidents = [Incident(f"I-{n}", "alarm", "r", NOON) for n in (10, 9)]
    assert [incident.id for incident in sort_incidents(incidents)] == ["I-9", "I-10"]
