"""The ledger over HTTP: row by row as it is stored, whole or named where it breaks."""

import json
from dataclasses import replace

import pytest
from sqlalchemy import text

from api.app import create_app
from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.ledger.ledger import BrokenLedgerError, parse_checkpoints, verify_lines
from rollout.features.ledger import ledger_reader
from rollout.live.checkpoint_keys import (
    CheckpointSigner,
    CheckpointTargets,
    check_signatures,
    create_signing_key,
)
from tests.api.bears import V1, founded, widened
from tests.api.conftest import Asking
from tests.api.test_shell import problem_of
from tests.factories import NOON

JSON = {"Accept": "application/json"}


@pytest.fixture
def bears(database):
    founded(database, NOON)
    widened(database, NOON)


def lines_of(client, **params):
    answer = client.get(f"{V1}/ledger", params=params)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return answer.text.splitlines()


def test_the_chain_comes_line_by_line_as_it_is_verified(client, monkeypatch, bears):
    monkeypatch.setattr(ledger_reader, "ROWS_PER_TRANSACTION", 2)
    rows = list(verify_lines(lines_of(client)))
    head = client.get(V1).json()
    assert (rows[-1].revision, rows[-1].hash) == (head["revision"], head["hash"])
    assert lines_of(client, after=head["revision"]) == []
    later = [json.loads(line)["revision"] for line in lines_of(client, after=3)]
    assert later == list(range(4, head["revision"] + 1))


def test_pages_of_rows_for_who_asks_for_json(client, bears):
    first = client.get(f"{V1}/ledger", params={"limit": 2}, headers=JSON).json()
    assert ([row["revision"] for row in first["items"]], first["next"]) == ([1, 2], 2)
    rest = client.get(f"{V1}/ledger", params={"after": first["next"]}, headers=JSON).json()
    assert rest["items"][0]["previous"] == first["items"][-1]["hash"]
    lines = [json.loads(line) for line in lines_of(client)]
    assert [*first["items"], *rest["items"]] == lines
    assert rest["next"] is None


@pytest.mark.parametrize("after", ["-1", "x", str(2**31)])
def test_a_place_that_can_not_be_is_refused(client, bears, after):
    answer = client.get(f"{V1}/ledger", params={"after": after})
    assert problem_of(answer) == (422, "malformed")


def test_a_whole_chain_is_said_to_be_and_holds_what_was_seen(client, bears):
    path, head = f"{V1}/ledger/verification", client.get(V1).json()
    found = client.get(path).json()
    assert (found["intact"], found["head"], found["head_matches"]) == (True, head["hash"], None)
    seen = {"revision": head["revision"], "hash": head["hash"]}
    assert client.get(path, params=seen).json()["head_matches"]
    assert not client.get(path, params={**seen, "revision": 2}).json()["head_matches"]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_chain_that_was_touched_is_named_where_it_breaks(client, database, bears):
    with database.engine.begin() as connection:
        for name in connection.execute(
            text("select name from sqlite_master where type = 'trigger' and tbl_name = 'ledger'")
        ).scalars():
            connection.execute(text(f'drop trigger "{name}"'))
        connection.execute(text("update ledger set actor = 'mallory' where revision = 2"))
    found = client.get(f"{V1}/ledger/verification").json()
    assert (found["intact"], found["rows"]) == (False, 1)
    assert "line 2" in found["fault"]
    with pytest.raises(BrokenLedgerError, match="line 2"):
        list(verify_lines(lines_of(client)))


def test_a_chain_is_not_read_in_part(client, door, bears):
    door.let_in("eve", AssignedRole("viewer", "bears", "creek"))
    for path in ("ledger", "ledger/verification"):
        assert problem_of(client.by("eve").get(f"{V1}/{path}")) == (403, "not-allowed")
    door.let_in(
        "eve", AssignedRole("viewer", "bears", "creek"), AssignedRole("viewer", "bears", "lake")
    )
    assert client.by("eve").get(f"{V1}/ledger").status_code == 200


def test_a_client_gets_a_signed_head(bears, service, tmp_path):
    create_signing_key(tmp_path / "key")
    signer = CheckpointSigner(tmp_path / "key")
    signing = replace(service, checkpoints=CheckpointTargets(signer))
    with Asking(create_app(signing), raise_server_exceptions=False) as asking:
        answer = asking.by("ana").get(f"{V1}/ledger/checkpoint").text
    checkpoints = parse_checkpoints(answer, "the answer")
    (checkpoint,) = check_signatures(checkpoints, (signer.public_key,), "the answer")
    with service.database.begin_read() as transaction:
        assert Ledger(transaction, Rollouts(transaction).list_all()[0]).load_head().hash == (
            checkpoint.hash
        )


def test_without_a_key_no_head_is_signed(client, bears):
    answer = client.get(f"{V1}/ledger/checkpoint")
    assert problem_of(answer) == (409, "checkpoint")
    assert "ROLLOUT_CHECKPOINT_KEY_FILE" in answer.json()["detail"]
