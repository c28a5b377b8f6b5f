"""Signed heads: a ledger that was rewritten whole has right hashes, and is found all the same."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.data.database.session import Database
from rollout.engine.ledger.ledger import Checkpoint, CheckpointError, parse_checkpoints
from rollout.features.ledger.ledger_reader import (
    SECOND_PLACE_TEXT,
    CheckpointPublisher,
    announce_key,
    append_checkpoints,
    describe_weakness,
    find_rewritten_ledgers,
    list_announced_keys,
    read_checkpoints,
    sign_heads,
)
from rollout.live.checkpoint_keys import (
    NO_CHECKPOINTS,
    CheckpointSigner,
    CheckpointTargets,
    check_signatures,
    create_signing_key,
    open_checkpoint_targets,
)
from rollout.live.service import build_service
from rollout.settings import Settings
from tests.api.bears import founded, widened
from tests.data.databases import fresh
from tests.factories import HOUR, NOON

ROLLOUT = "bears"


@pytest.fixture
def signer(tmp_path):
    create_signing_key(tmp_path / "checkpoint.key")
    return CheckpointSigner(tmp_path / "checkpoint.key")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return a database of bears, named in the environment."""
    folder = tmp_path / "home"
    folder.mkdir()
    with fresh("sqlite", folder) as url:
        database = Database(url)
        founded(database, NOON)
        widened(database, NOON)
        monkeypatch.setenv("ROLLOUT_DATABASE_URL", url)
        run("users", "first-admin", "ana")
        monkeypatch.setenv("ROLLOUT_CHECKPOINT_KEY_FILE", str(tmp_path / "checkpoint.key"))
        yield database
        database.close()


@pytest.fixture
def rewritten(tmp_path):
    """Return a database in which the same rollout has another history; every hash is right."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    with fresh("sqlite", folder) as url:
        database = Database(url)
        founded(database, NOON + HOUR)
        yield SimpleNamespace(database=database, url=url)
        database.close()


def run(*words, code=0):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done


def test_only_its_owner_may_read_the_key_and_no_other_replaces_it(tmp_path):
    path = tmp_path / "checkpoint.key"
    create_signing_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(CheckpointError, match="exists"):
        create_signing_key(path)
    path.chmod(0o644)
    with pytest.raises(CheckpointError, match="chmod 600"):
        CheckpointSigner(path)


@pytest.mark.parametrize(
    ("text", "reason"), [("", "no key"), ("zz", "no key"), ("00" * 31, "no key")]
)
def test_a_file_without_a_key_is_refused(tmp_path, text, reason):
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(CheckpointError, match="no key"):
        CheckpointSigner(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("revision", 3), ("hash", "1" * 64), ("ledger", "other"), ("at", NOON + HOUR)],
)
def test_a_changed_checkpoint_is_refused(signer, field, value):
    checkpoint = signer.sign(Checkpoint(ROLLOUT, 2, "0" * 64, NOON))
    assert list(check_signatures([checkpoint], (signer.public_key,), "x")) == [checkpoint]
    with pytest.raises(CheckpointError, match="its signature is not of this key"):
        list(check_signatures([replace(checkpoint, **{field: value})], (signer.public_key,), "x"))


def test_the_key_in_the_file_itself_proves_nothing(signer, tmp_path):
    """Who rewrites a ledger can sign it too: only the key that was noted elsewhere counts."""
    create_signing_key(tmp_path / "mallory.key")
    mallory = CheckpointSigner(tmp_path / "mallory.key")
    forged = mallory.sign(Checkpoint(ROLLOUT, 2, "0" * 64, NOON))
    with pytest.raises(CheckpointError, match="another key signed it"):
        list(check_signatures([forged], (signer.public_key,), "x"))


@pytest.mark.parametrize("text", ["", "\n", "{}", "[1]", "no", '{"ledger": "bears"}'])
def test_a_file_without_checkpoints_is_refused(text):
    with pytest.raises(CheckpointError, match="checkpoint"):
        list(parse_checkpoints(text, "file"))


def test_only_changed_heads_are_appended(home, signer, tmp_path):
    path = tmp_path / "checkpoints.jsonl"
    assert len(append_checkpoints(path, sign_heads(home, signer, NOON))) == 2
    assert len(append_checkpoints(path, sign_heads(home, signer, NOON + HOUR))) == 0
    assert len(read_checkpoints(path, (signer.public_key,))) == 2


def test_a_ledger_that_was_rewritten_whole_is_found(home, rewritten, signer):
    checkpoints = sign_heads(home, signer, NOON)
    assert list(find_rewritten_ledgers(home, checkpoints)) == []
    faults = list(find_rewritten_ledgers(rewritten.database, checkpoints))
    assert len(faults) == 2
    assert all("The ledger was rewritten or set back" in fault for fault in faults)


def test_commands_find_a_rewritten_ledger_and_accept_the_true_one(
    home, rewritten, signer, tmp_path
):
    signed, ledger = tmp_path / "checkpoints.jsonl", tmp_path / "ledger.jsonl"
    assert "2 checkpoints appended" in run("ledger", "checkpoint", "--out", signed).stdout
    (name,) = {json.loads(line)["ledger"] for line in signed.read_text().splitlines()} - {":access"}
    options = ("--public-key", signer.public_key)
    ledger.write_text(run("ledger", "export", name).stdout)
    said = run("ledger", "verify", ledger, "--checkpoint", signed, *options).stdout
    assert "1 signed head found" in said
    assert "2 signed heads" in run("doctor", "--heads", signed, *options).stdout
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:-1]))
    run("ledger", "verify", ledger)  # a cut end is right in itself
    said = run("ledger", "verify", ledger, "--checkpoint", signed, *options, code=1).stderr
    assert "is missing" in said
    run("ledger", "verify", ledger, "--checkpoint", signed, code=2)


def test_the_doctor_finds_a_rewritten_ledger(home, rewritten, signer, tmp_path, monkeypatch):
    signed = tmp_path / "checkpoints.jsonl"
    append_checkpoints(signed, sign_heads(home, signer, NOON))
    monkeypatch.setenv("ROLLOUT_DATABASE_URL", rewritten.url)
    said = run("doctor", "--heads", signed, "--public-key", signer.public_key, code=1).stdout
    assert "FAIL  the ledgers have the rows of 2 signed heads" in said


def test_a_channel_gets_each_new_head_once_and_again_after_an_error(home, signer, tmp_path):
    sent, answers = [], iter(["no answer", "", ""])

    def send(channel, text):
        sent.append((channel, len(text.splitlines())))
        return next(answers)

    path = tmp_path / "checkpoints.jsonl"
    service = replace(
        build_service(home, None, entropy=bytes), checkpoints=CheckpointTargets(signer, path, "ops")
    )
    publisher = CheckpointPublisher(service, send)
    assert [publisher.publish() for _ in range(3)] == ["no answer", "", ""]
    assert sent == [("ops", 2), ("ops", 2)]
    assert len(read_checkpoints(path, (signer.public_key,))) == 2


def test_a_channel_gets_heads_though_the_file_is_broken(home, signer, tmp_path):
    path, sent = tmp_path / "checkpoints.jsonl", []
    path.write_text('{"ledger":"bears","revi', "utf-8")  # a line that a power cut tore
    targets = CheckpointTargets(signer, path, "ops")
    service = replace(build_service(home, None, entropy=bytes), checkpoints=targets)
    error = CheckpointPublisher(service, lambda *message: sent.append(message) or "").publish()
    assert "line 1: is no checkpoint" in error
    assert len(sent) == 1


def test_a_first_start_makes_one_key_for_all_replicas_beside_the_secret_key(tmp_path):
    settings = Settings(secret_key_file=str(tmp_path / "rollout-secret.key"))
    assert "create-key" in open_checkpoint_targets(settings).fault, "commands make none"
    with ThreadPoolExecutor() as pool:
        started = list(
            pool.map(lambda _: open_checkpoint_targets(settings, creates_key=True), range(8))
        )
    assert len({targets.require_signer().public_key for targets in started}) == 1
    assert started[0].file == tmp_path / "rollout-checkpoints.jsonl"
    (key,) = tmp_path.iterdir()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_key_that_cannot_be_made_is_a_warning_and_one_that_is_named_a_refusal(tmp_path):
    missing = Settings(secret_key_file=str(tmp_path / "none" / "rollout-secret.key"))
    targets = open_checkpoint_targets(missing, creates_key=True)
    assert describe_weakness(targets).startswith("No head of a ledger is signed: ")
    with pytest.raises(CheckpointError, match="can't be written"):
        targets.require_signer()
    with pytest.raises(CheckpointError, match="can't be read"):
        open_checkpoint_targets(Settings(checkpoint_key_file=str(tmp_path / "no")))
    assert not list(tmp_path.iterdir())


def test_a_second_place_ends_the_warning(signer, tmp_path):
    assert describe_weakness(NO_CHECKPOINTS) == ""
    place = Settings(secret_key_file=str(tmp_path / "key"))
    for settings, warning in (
        (place, SECOND_PLACE_TEXT),
        (replace(place, checkpoint_file="/mnt/elsewhere/checkpoints.jsonl"), ""),
        (replace(place, checkpoint_channel="ops"), ""),
    ):
        targets = replace(open_checkpoint_targets(settings), signer=signer, fault="")
        assert describe_weakness(targets) == warning


def test_each_key_stands_in_the_access_ledger_once(home, signer):
    service = replace(
        build_service(home, None, entropy=bytes), checkpoints=CheckpointTargets(signer)
    )
    announce_key(service)
    announce_key(service)
    with home.begin_read() as transaction:
        assert list_announced_keys(transaction) == (signer.public_key,)


@pytest.mark.slow
def test_the_doctor_compares_what_the_service_signed(home, signer, tmp_path, monkeypatch):
    signed = tmp_path / "rollout-checkpoints.jsonl"
    title = "the ledgers have the rows of the signed heads"
    assert "no head is signed yet" in run("doctor").stdout
    append_checkpoints(signed, sign_heads(home, signer, NOON))
    assert f"FAIL  {title}\n      {signed} has signed heads" in run("doctor", code=1).stdout
    service = build_service(home, None, entropy=bytes)
    announce_key(replace(service, checkpoints=CheckpointTargets(signer)))
    said = run("doctor").stdout
    assert f"ok    {title}\n      {SECOND_PLACE_TEXT}" in said
    monkeypatch.setenv("ROLLOUT_CHECKPOINT_FILE", str(signed))
    assert SECOND_PLACE_TEXT not in run("doctor").stdout
    signed.unlink()
    assert "no such file of signed heads here" in run("doctor").stdout
