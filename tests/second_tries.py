"""Second tries without a question before each test.

`pytest-rerunfailures` counts tries in the process that hands tests out: before each test, a worker
waits for a thread of that process to say that it has not failed before. A worker knows that itself,
except of a test during which a worker died: there the process above alone counts.
"""

import pytest
from pytest_rerunfailures import SocketDB, StatusDB


def count_tries_in_workers(config: pytest.Config) -> None:
    """Let workers ask nobody; the process above them needs to be told nothing."""
    if hasattr(config, "workerinput"):
        if isinstance(config.failures_db, SocketDB):
            config.failures_db.sock.close()  # left open it is a warning in some later test
        config.failures_db = StatusDB()  # keeps and asks nothing
    else:
        config.failures_db.get_test_reruns = lambda _test: config.getoption("reruns") or 0
