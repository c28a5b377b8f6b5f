"""What a copy in which decisions have a `device` does with it, as JSON."""

import json
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from sqlalchemy import update

from api.app import create_app
from api.records.case_text import list_further_fields
from rollout.data.counting.purge import open_purge
from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from rollout.data.erasure.user_data import UserData
from rollout.data.records.record_check import find_changed_records
from rollout.data.records.record_rows import RECORD_SCHEMAS
from rollout.data.tables.tables import decisions
from rollout.engine.decide.commands import Actor
from rollout.engine.records.records import Decision
from rollout.features.access import users
from rollout.features.erasure.erasure import erase_name
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.service import build_service
from tests.api.conftest import Asking, Doorkeeper
from tests.data.databases import close_templates, fresh
from tests.factories import NOON
from tests.features.erasure.test_name_erasure import POLICY, REQUEST

RECORDS = "/v1/rollouts/ramps/records"
CASE = {"kind": "case", "key": "c1", "site": "ramp-a", "occurred_at": "2027-05-01T10:00Z"}
DECISION = {"kind": "decision", "key": "c1", "answers": {"parcel": "sound"}}
ANA = DECISION | {"reviewer": "ana", "device": "tablet 7"}
BO = DECISION | {"reviewer": "bo", "device": "Ana's old phone"}


def asking(database):
    """Return a client of the ramps' service on a new database."""
    apply_policy(database, POLICY, Actor("zoe"), NOON)
    users.create_first_admin(database, "ada", at=NOON)
    service = build_service(database, Doorkeeper(), ManualClock(NOON), entropy=bytes)
    return Asking(create_app(service))


def send(client, *items):
    body = client.by("ingest").post(RECORDS, json={"items": items}).json()
    return [(item["status"], item["reason"]) for item in body["items"]]


def read_devices(client):
    case = client.by("viewer").get("/v1/rollouts/ramps/cases/c1").json()
    return {decision["reviewer"]: decision.get("device") for decision in case["decisions"]}


def export_device(database, rollout, name):
    with database.begin_read() as transaction:
        rows = UserData(transaction, name, {name}).iterate_rollout(rollout)
        return [row["device"] for row in rows if row["table"] == "decisions"]


def find_edits(database, rollout):
    """Return the faults after somebody edited the device of each decision; the edit is undone."""
    with database.begin_write() as transaction, transaction.rehearse():
        with open_purge(transaction):  # the tables are append-only
            transaction.execute(update(decisions).values(device="another"))
        return find_changed_records(transaction, rollout, RECORD_SCHEMAS[Decision], [1])[1]


def tell(database):
    with asking(database) as client:
        with database.begin_read() as transaction:
            rollout = Rollouts(transaction).find("ramps")
        story = {
            "sent": send(client, CASE, ANA, BO),
            "again": send(client, ANA, ANA | {"device": "tablet 8"}, ANA | {"device": 7}),
            "shown": read_devices(client),
            "page": list_further_fields(
                Decision(key="c1", reviewer="ana", exposure="blind", device="tablet 7")
            ),
            "exported": export_device(database, rollout, "ana"),
            "edits": find_edits(database, rollout),
            "schema": client.get("/openapi.json").json()["components"]["schemas"]["CaseDecision"],
        }
        erase_name(database, REQUEST, "ana")
        return story | {"erased": sorted(map(str, read_devices(client).values()))}


def print_story(tell_story):
    """Print what a story says of a new database."""
    with (
        tempfile.TemporaryDirectory() as folder,
        fresh("sqlite", Path(folder), reused=False) as url,
        closing(Database(url)) as database,
    ):
        json.dump(tell_story(database), sys.stdout)
    close_templates()


if __name__ == "__main__":
    print_story(tell)
