"""Signed heads: a ledger that was rewritten whole has right hashes, and is found all the same."""

import json
import stat
from dataclasses import replace
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.core.ledger.checkpoints import Checkpoint, CheckpointError, parse_checkpoints
from rollout.services.engine.service import build_service
from rollout.services.ledger.checkpoints import (
    CheckpointPublisher,
    append_checkpoints,
    find_rewritten_ledgers,
    read_checkpoints,
    sign_heads,
)
from rollout.services.support.checkpoint_keys import (
    CheckpointSigner,
    CheckpointTargets,
    check_signatures,
    create_signing_key,
    open_checkpoint_targets,
)
from rollout.store.database.session import Database
from tests.api.bears import founded, widened
from tests.factories import HOUR, NOON
from tests.store.databases import fresh

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
    assert list(check_signatures([checkpoint], signer.public_key, "x")) == [checkpoint]
    with pytest.raises(CheckpointError, match="its signature is not of this key"):
        list(check_signatures([replace(checkpoint, **{field: value})], signer.public_key, "x"))


def test_the_key_in_the_file_itself_proves_nothing(signer, tmp_path):
    """Who rewrites a ledger can sign it too: only the key that was noted elsewhere counts."""
    create_signing_key(tmp_path / "mallory.key")
    mallory = CheckpointSigner(tmp_path / "mallory.key")
    forged = mallory.sign(Checkpoint(ROLLOUT, 2, "0" * 64, NOON))
    with pytest.raises(CheckpointError, match="another key signed it"):
        list(check_signatures([forged], signer.public_key, "x"))


@pytest.mark.parametrize("text", ["", "\n", "{}", "[1]", "no", '{"ledger": "bears"}'])
def test_a_file_without_checkpoints_is_refused(text):
    with pytest.raises(CheckpointError, match="checkpoint"):
        list(parse_checkpoints(text, "file"))


def test_only_changed_heads_are_appended(home, signer, tmp_path):
    path = tmp_path / "checkpoints.jsonl"
    assert len(append_checkpoints(path, sign_heads(home, signer, NOON))) == 2
    assert len(append_checkpoints(path, sign_heads(home, signer, NOON + HOUR))) == 0
    assert len(read_checkpoints(path, signer.public_key)) == 2


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
    assert len(read_checkpoints(path, signer.public_key)) == 2


def test_a_channel_gets_heads_though_the_file_is_broken(home, signer, tmp_path):
    path, sent = tmp_path / "checkpoints.jsonl", []
    path.write_text('{"ledger":"bears","revi', "utf-8")  # a line that a power cut tore
    targets = CheckpointTargets(signer, path, "ops")
    service = replace(build_service(home, None, entropy=bytes), checkpoints=targets)
    error = CheckpointPublisher(service, lambda *message: sent.append(message) or "").publish()
    assert "line 1: is no checkpoint" in error
    assert len(sent) == 1


def test_a_target_without_a_key_is_refused():
    with pytest.raises(CheckpointError, match="ROLLOUT_CHECKPOINT_KEY_FILE"):
        open_checkpoint_targets("", "file", "")
    with pytest.raises(CheckpointError, match="ROLLOUT_CHECKPOINT_KEY_FILE"):
        open_checkpoint_targets("", "", "").require_signer()
