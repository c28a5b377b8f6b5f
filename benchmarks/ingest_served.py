"""Ingest as served: uvicorn, two connections, records beside the same work without checks.

A pair is a case, a blind decision and a prediction, as in `ingest.py`. Three sides take the same
bytes, each in a process of its own. The bulk insert is the limit of `ingest.py`: a pydantic body,
one plain insert a table. The same work reads and validates bodies with the service's reader, builds
its columns, hashes, numbers of keys and queue entries, writes the same rows into the same tables in
one durable transaction a request, with the driver alone, and answers each item. It looks nothing up
but the numbers of predicted cases: no duplicates, conflicts, purged or erased keys, pairings,
exposures, sources or review tasks.

CPU is the serving process' and, on PostgreSQL, its server's backends' too. The sides take turns.
"""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # tests import this module by its package
from assignments import Line, build_log_into_nothing, build_post
from ingest import (
    bare,
    bodies,
    find_postgresql,
    find_sender,
    fresh_postgresql,
    into_postgresql,
    into_sqlite,
    ours,
)
from reported_figures import report_figure

TURNS, PAIRS, BATCHES = 5, 6_000, (1_000, 100)
CONNECTIONS = 2
BULK, SAME_WORK, RECORDS = "bulk insert", "same work without checks", "POST records"
PATHS = {BULK: "/records", SAME_WORK: "/records", RECORDS: "/v1/rollouts/bench/records"}
GOALS = {BULK: 2.6, SAME_WORK: 1.5}
"""The most that `POST records` may take of each side's CPU."""
WRITTEN_TABLES = ("external_keys", "cases", "predictions", "decisions", "count_queue")


def build_same_work(url: str, service: Any) -> Any:
    """Return an application that stores what the service stores, and looks nothing up."""
    from fastapi import FastAPI, Request, Response
    from starlette.concurrency import run_in_threadpool

    state = service.state_cache.load_rollout("bench").state
    write = (_SqliteWriter if url.startswith("sqlite") else _PostgresqlWriter)(url).write
    app = FastAPI()

    @app.post("/records", response_model=None)
    async def store_records(request: Request) -> Any:
        body = await request.body()
        return Response(
            await run_in_threadpool(_store_body, state, write, body), media_type="application/json"
        )

    return app


def _store_body(state: Any, write: Any, body: bytes) -> bytes:
    """Read, hash and store the items of a body; return an answer for each."""
    from datetime import UTC, datetime

    import msgspec

    from rollout.data.records.record_rows import RECORD_SCHEMAS
    from rollout.data.tables.record_tables import encode_instant
    from rollout.engine.files.parse import ItemReader
    from rollout.live.evidence.unit_counting import WindowLookup

    at = datetime.now(UTC)
    items = ItemReader(WindowLookup(state.policy).find_window, at).read_body(body)
    groups: dict[Any, list[Any]] = {}
    for item in items:
        groups.setdefault(RECORD_SCHEMAS[type(item)], []).append(item)
    columns_by_schema = {}
    for schema, records in groups.items():
        columns = schema.build_columns(records)
        columns["hash"] = schema.compute_hashes(columns)
        columns["received_at"] = (encode_instant(at),) * len(records)
        columns_by_schema[schema] = columns
    write(state, columns_by_schema)
    answers = [
        {"index": index, "key": item.key, "status": "accepted", "reason": ""}
        for index, item in enumerate(items)
    ]
    return msgspec.json.encode({"items": answers})


def _list_rows(
    state: Any, columns_by_schema: Mapping[Any, dict[str, Any]], ids: Mapping[str, int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each table's rows as columns: the records', then the queue's."""
    from rollout.data.records.incoming_cases import build_incoming_cases
    from rollout.data.records.record_rows import COLUMN_OF, build_hash_columns
    from rollout.live.evidence.unit_counting import _build_entries

    rollout = state.rollout.number
    for schema, columns in columns_by_schema.items():
        columns["case_id"] = [ids[key] for key in columns["key"]]
        count = len(columns["key"])
        stored = {COLUMN_OF.get(name, name): cells for name, cells in columns.items()}
        stored |= {"rollout": (rollout,) * count, "sender": ("bench",) * count}
        stored |= build_hash_columns(schema.name, stored)
        del stored["key"]
        filled = {name: cells for name, cells in stored.items() if cells.count(None) < count}
        yield schema.table.name, filled
    entries = _build_entries(build_incoming_cases(columns_by_schema), state.policy)
    if not entries:
        return
    at, case_ids, tracks = zip(*entries, strict=True)
    queue = {"rollout": (rollout,) * len(entries), "at": at, "case_id": case_ids, "track": tracks}
    yield "count_queue", queue


class _SqliteWriter:
    """One connection to SQLite, which one batch at a time uses."""

    def __init__(self, url: str) -> None:
        import sqlite3

        self._database = sqlite3.connect(
            url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False
        )
        self._database.execute("pragma synchronous=full")
        self._lock = threading.Lock()

    def write(self, state: Any, columns_by_schema: Mapping[Any, dict[str, Any]]) -> None:
        keys = sorted({key for columns in columns_by_schema.values() for key in columns["key"]})
        insert = (
            "insert into external_keys (rollout, kind, key) select ?, 'case', value"
            " from json_each(?) where true returning key, id"
        )
        lookup = (
            "select key, id from external_keys where rollout = ? and kind = 'case'"
            " and key in (select value from json_each(?))"
        )
        with self._lock:
            run = self._database.execute
            run("begin immediate")
            numbered = insert if _has_cases(columns_by_schema) else lookup
            ids = dict(run(numbered, (state.rollout.number, json.dumps(keys))).fetchall())
            for table, columns in _list_rows(state, columns_by_schema, ids):
                marks = ", ".join("?" * len(columns))
                statement = f"insert into {_name_columns(table, columns)} values ({marks})"  # noqa: S608
                self._database.executemany(statement, zip(*columns.values(), strict=True))
            run("commit")


class _PostgresqlWriter:
    """A connection to PostgreSQL for each thread; rows are copied."""

    def __init__(self, url: str) -> None:
        self._url, self._threads = (
            url.replace("postgresql+psycopg", "postgresql"),
            threading.local(),
        )

    def write(self, state: Any, columns_by_schema: Mapping[Any, dict[str, Any]]) -> None:
        import psycopg

        database = getattr(self._threads, "database", None)
        if database is None:
            database = self._threads.database = psycopg.connect(self._url)
        keys = sorted({key for columns in columns_by_schema.values() for key in columns["key"]})
        insert = (
            "insert into external_keys (rollout, kind, key) select %s, 'case', unnest(%s::text[])"
            " returning key, id"
        )
        lookup = (
            "select key, id from external_keys where rollout = %s and kind = 'case'"
            " and key = any(%s::text[])"
        )
        numbered = insert if _has_cases(columns_by_schema) else lookup
        ids = dict(database.execute(numbered, (state.rollout.number, keys)).fetchall())
        for table, columns in _list_rows(state, columns_by_schema, ids):
            statement = f"copy {_name_columns(table, columns)} from stdin"
            with database.cursor() as cursor, cursor.copy(statement) as copy:
                for row in zip(*columns.values(), strict=True):
                    copy.write_row(row)
        database.commit()


def _has_cases(columns_by_schema: Mapping[Any, Any]) -> bool:
    return any(schema.name == "case" for schema in columns_by_schema)


def _name_columns(table: str, columns: Mapping[str, Any]) -> str:
    names = ", ".join(f'"{name}"' for name in columns)
    return f"{table} ({names})"


def build_side(side: str, url: str, service_app: Any) -> Any:
    """Return the application of a side, for an empty database."""
    if side == RECORDS:
        return service_app
    if side == SAME_WORK:
        return build_same_work(url, service_app.state.service)
    if url.startswith("sqlite"):
        return bare(into_sqlite(Path(url.removeprefix("sqlite:///")).parent))
    return bare(into_postgresql(url))


def serve(side: str, url: str) -> None:
    """Serve a side on a free port, which is printed; `/cpu` returns its CPU seconds."""
    import gc

    import uvicorn

    from api.http_protocol import HTTP_PROTOCOL

    with ours(url) as service_app:
        app = build_side(side, url, service_app)

        @app.get("/cpu")
        def read_cpu() -> float:
            return time.process_time()

        listening = socket.socket(proto=socket.IPPROTO_TCP)
        listening.bind(("127.0.0.1", 0))
        print(listening.getsockname()[1], flush=True)
        gc.freeze()  # as `rollout serve` does
        config = uvicorn.Config(
            app,
            http=HTTP_PROTOCOL,
            log_config=build_log_into_nothing() if side == RECORDS else None,
            log_level="warning",
            access_log=False,  # uvicorn's own, which the service never has
            timeout_keep_alive=600,
        )
        uvicorn.Server(config).run(sockets=[listening])


class Side:
    """A side that is served, with its connections and its database's processes."""

    def __init__(self, name: str, url: str, port: int) -> None:
        self.name, self.url = name, url
        self._lines = [Line(port) for _ in range(CONNECTIONS)]
        self._cpu_line = Line(port)

    def measure(self, sent: Sequence[bytes], pairs: int) -> dict[str, float]:
        """Post the bodies over the connections in turns; return microseconds a pair."""
        backends = _list_backends(self.url)
        cpu = self._read_cpu(backends)
        wall = self.post(sent)
        cpu = self._read_cpu(backends) - cpu
        return {"wall": wall / pairs * 1e6, "cpu": cpu / pairs * 1e6}

    def post(self, sent: Sequence[bytes]) -> float:
        """Post the batches over the connections in turns; return the seconds.

        A batch's two requests take the same connection: predictions come after their cases.
        """
        posts = [build_post(PATHS[self.name], body, find_sender(body)) for body in sent]
        batches = list(zip(posts[::2], posts[1::2], strict=True))
        parts = [
            [post for batch in batches[number::CONNECTIONS] for post in batch]
            for number in range(CONNECTIONS)
        ]
        started = time.perf_counter()
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            list(threads.map(_post_all, self._lines, parts))  # raises what a thread raised
        return time.perf_counter() - started

    def _read_cpu(self, backends: Sequence[int]) -> float:
        texts = [Path(f"/proc/{number}/schedstat").read_text() for number in backends]
        return self._cpu_line.cpu() + sum(int(text.split()[0]) for text in texts) / 1e9


def _post_all(line: Line, posts: Sequence[bytes]) -> None:
    for post in posts:
        line.ask(post)


def _list_backends(url: str) -> list[int]:
    """Return the processes that PostgreSQL has for a side; none on SQLite."""
    if url.startswith("sqlite"):
        return []
    query = (
        "select pid from pg_stat_activity where datname = current_database()"
        " and pid <> pg_backend_pid() and backend_type = 'client backend'"
    )
    return [number for (number,) in _query(url, query)]


def _query(url: str, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    if url.startswith("sqlite"):
        import sqlite3

        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
            return database.execute(query).fetchall()
    import psycopg

    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as connection:
        return connection.execute(query.encode()).fetchall()


@contextmanager
def run_side(side: str, url: str) -> Iterator[Side]:
    """Serve a side in another process."""
    command = [sys.executable, __file__, "--serve", side, url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        port = int(process.stdout.readline())
        time.sleep(1)
        yield Side(side, url, port)
    finally:
        process.terminate()
        process.wait()


Turn = dict[str, dict[str, float]]


def measure_sides(urls: Mapping[str, str]) -> dict[int, list[Turn]]:
    """Return what each turn took by side, for each size of a batch."""
    turns: dict[int, list[Turn]] = {batch: [] for batch in BATCHES}
    with ExitStack() as stack:
        sides = [stack.enter_context(run_side(side, url)) for side, url in urls.items()]
        for number in range(TURNS + 1):
            for batch in BATCHES:
                sent = bodies(PAIRS, batch, f"t{number}-{batch}")
                turn = {side.name: side.measure(sent, PAIRS) for side in sides}
                if number:  # the first warms up
                    turns[batch].append(turn)
    check_same_rows(urls)
    return turns


def check_same_rows(urls: Mapping[str, str]) -> None:
    """Raise RuntimeError if the same work wrote other rows than the service."""
    for table in WRITTEN_TABLES:
        query = f"select count(*) from {table}"  # noqa: S608 - constant names
        counts = {side: _query(urls[side], query) for side in (SAME_WORK, RECORDS)}
        if counts[SAME_WORK] != counts[RECORDS] or counts[RECORDS] == [(0,)]:
            raise RuntimeError(f"{table} has other numbers of rows: {counts}")


def format_turns(engine: str, turns: Mapping[int, Sequence[Turn]]) -> Iterator[str]:
    """Report the figures of an engine; yield its lines."""
    for batch, batch_turns in turns.items():
        for side in PATHS:
            values = [turn[side]["cpu"] for turn in batch_turns]
            figure = report_figure(f"{engine}, {batch} a batch, {side}", "µs of CPU", values)
            wall = median(turn[side]["wall"] for turn in batch_turns)
            yield f"{figure} (wall {wall:.0f})"
        for side, goal in GOALS.items():
            ratios = [turn[RECORDS]["cpu"] / turn[side]["cpu"] for turn in batch_turns]
            yield str(report_figure(f"{engine}, {batch} a batch, / {side}", "ratio", ratios, goal))


def compare_sides() -> Iterator[str]:
    """Yield the lines of both engines; each side has a database of its own."""
    folder = Path(tempfile.mkdtemp(prefix="rollout-bench-"))
    try:
        urls = {}
        for number, side in enumerate(PATHS):
            (folder / str(number)).mkdir()
            urls[side] = f"sqlite:///{folder / str(number)}/rollout.db"
        yield from format_turns("SQLite", measure_sides(urls))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    server = find_postgresql()
    if server is None:
        yield "no PostgreSQL"
        return
    with ExitStack() as stack:
        urls = {side: stack.enter_context(fresh_postgresql(server)) for side in PATHS}
        yield from format_turns("PostgreSQL", measure_sides(urls))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        for line in compare_sides():
            print(line, flush=True)
