"""What tests of reviewing ask of a room: what is stored, what waits, and whose draw is low."""

import pytest
from sqlalchemy import select

from rollout.data.database.session import Database
from rollout.data.tables.tables import decisions
from rollout.kernel.statistics.sampling import compute_sampling_value
from tests.data.databases import fresh
from tests.features.review_room import ANA

SHADOW, SUPERVISED, AUTONOMOUS = 0, 1, 2
KEYS = tuple(f"k{number}" for number in range(40))
DRAWN = {key: compute_sampling_value(bytes(32), "stage", key) for key in KEYS}
AUDITED = {key: compute_sampling_value(bytes(32), "audit", key) < 0.5 for key in KEYS}
LOW = next(key for key in KEYS if DRAWN[key] < 0.5 and AUDITED[key])  # blind when supervised
HIGH = next(key for key in KEYS if DRAWN[key] >= 0.5 and not AUDITED[key])


@pytest.fixture
def lite(tmp_path):
    """Return a database where the engine makes no difference to what is tested."""
    with fresh("sqlite", tmp_path) as url:
        made = Database(url)
        yield made
        made.close()


def stored(room, table=decisions):
    with room.database.begin_read() as transaction:
        return list(transaction.execute(select(table)))


def only(rows):
    (row,) = rows
    return row


def waiting(room, who=ANA):
    return {kind: n for kind, n in room.mine(who).waiting.items() if n}
