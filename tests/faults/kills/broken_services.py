"""The service broken on purpose, in a child: each way must be seen by the oracle."""

import asyncio
import json

from sqlalchemy import func, select

from rollout.data.records.records import RecordStore
from rollout.data.tables.tables import cases
from rollout.engine.decide.scope import Scope

EARLY = 0.3
"""Seconds by which the mutant answers before it stores anything."""


class EarlyAnswers:
    """Answer `accepted` for each record, and store them afterwards."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        """Handle a request: records are acknowledged before the commit."""
        if scope["type"] != "http" or not scope["path"].endswith("/records"):
            await self.app(scope, receive, send)
            return
        message = await receive()
        items = json.loads(message["body"])
        body = json.dumps({"items": [{"key": item["key"], "status": "accepted"} for item in items]})
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode()})
        await asyncio.sleep(EARLY)

        async def receive_again():
            return message

        async def drop(_message):
            pass

        await self.app(scope, receive_again, drop)


def answer_before_commit(app):
    """Let the service acknowledge records before it has them."""
    app.add_middleware(EarlyAnswers)


def store_twice(_app):
    """Let the service store a repeated record once more, as another revision."""
    build = RecordStore._build_table_columns

    def build_again(self, schema, columns, *rest):
        table = cases
        if schema.name == "case":
            for place, case_id in enumerate(columns["case_id"]):
                query = select(func.count()).where(table.c.case_id == case_id)
                stored = self._transaction.execute(query).scalar_one()
                columns["revision"] = list(columns["revision"])
                columns["revision"][place] += stored
        return build(self, schema, columns, *rest)

    load = RecordStore._load_hashes

    def load_hashes(self, schema, case_ids):
        return {} if schema.name == "case" else load(self, schema, case_ids)

    RecordStore._build_table_columns, RecordStore._load_hashes = build_again, load_hashes


def ignore_stops(_app):
    """Let the service go on as if nothing was ever stopped."""
    Scope.is_stopped = lambda _self, _cell: False


MUTANTS = {
    "answers before the commit": (answer_before_commit, "lost"),
    "stores a repeated record again": (store_twice, "doubled"),
    "obeys no stop": (ignore_stops, "late_stops"),
}
