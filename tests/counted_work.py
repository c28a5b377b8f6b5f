"""Work counted in statements and calls, which no other load on the machine changes."""

import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import event

import rollout

PRODUCT = Path(rollout.__file__).parent


@contextmanager
def noting_statements(database, note):
    """Call `note` as SQLAlchemy does before each statement that the block sends."""
    for engine in database.engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        for engine in database.engines:
            event.remove(engine, "before_cursor_execute", note)


@contextmanager
def counting_work(database, *names):
    """Count this thread's statements, and calls that some modules of the product make."""
    places = [PRODUCT / name for name in names]
    assert all(place.exists() for place in places), "calls of a place that is gone are none"
    work, paths = Counter(), tuple(map(str, places))

    def count_statement(*_):
        work["statements"] += 1

    def count_call(frame, kind, _):
        work["calls"] += kind in {"call", "c_call"} and frame.f_code.co_filename.startswith(paths)

    with noting_statements(database, count_statement):
        sys.setprofile(count_call)
        try:
            yield work
        finally:
            sys.setprofile(None)
