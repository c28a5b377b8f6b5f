"""Runs over uploaded files: limited, left, cancelled, and their files deleted in every case."""

import subprocess
import sys
import time

import pytest

from rollout.features.uploads import upload_runs
from rollout.features.uploads.upload_runs import (
    BROKEN_TEXT,
    COMMAND,
    COMMANDS_TEXT,
    FILE_NAMES,
    UploadFolder,
    UploadOptions,
    UploadRequest,
    UploadRuns,
    has_files,
)
from rollout.features.uploads.uploaded_files import MEMORY_TEXT, run_uploaded_files
from rollout.kernel.errors import RefusalError
from rollout.live.work.user_runs import LONG_LIFETIME, MEMORY_LIMIT, NICENESS
from tests.factories import DAY, NOON
from tests.recorded import write_records

ENDLESS = (sys.executable, "-c", "import sys; sys.stdin.read()")
BROKEN = (sys.executable, "-c", "")
RAMPS = UploadOptions(rollout="ramps")


@pytest.fixture
def make_runs(tmp_path):
    made = []

    def make(command=ENDLESS, **options):
        made.append(UploadRuns(UploadFolder(tmp_path / "uploads"), command, **options))
        return made[-1]

    yield make
    for runs in made:
        runs.close()


def send(runs, user="ana", *, keeps_files=False, options=RAMPS):
    """Upload two files and start a run."""
    with runs.receive(user) as folder:
        write_records(folder, cases=400)
        return runs.run_files(user, UploadRequest(folder, options, keeps_files), at=NOON)


def wait_until(is_true):
    give_up = time.monotonic() + 120
    while not is_true() and time.monotonic() < give_up:
        time.sleep(0.02)
    assert is_true()


def wait_for(run):
    wait_until(lambda: not run.is_running)
    return run


@pytest.mark.slow
def test_a_run_gives_what_this_process_gives_and_its_files_are_deleted(make_runs, tmp_path):
    run = wait_for(send(make_runs(COMMAND)))
    assert run.error == ""
    write_records(tmp_path, cases=400)
    assert run.result == run_uploaded_files(tmp_path, RAMPS, lambda *_: None)
    assert (run.done, run.total, run.step) == (4, 5, "writing the report")
    assert not run.subject.folder.exists()
    assert not has_files(run)


def test_kept_files_run_again_and_are_deleted_on_request(make_runs):
    runs = make_runs(BROKEN)
    first = wait_for(send(runs, keeps_files=True))
    assert has_files(first)
    mine = UploadOptions(policy_text="rollout: mine")
    second = wait_for(runs.start_again("ana", mine, at=NOON + DAY))
    assert second.subject == UploadRequest(first.subject.folder, mine, keeps_files=True)
    assert has_files(second)
    with pytest.raises(RefusalError, match="deleted; choose them again"):
        runs.start_again("bo", mine, at=NOON)
    runs.cancel("ana")
    assert not first.subject.folder.exists()
    assert runs.find_run("ana", at=NOON) is None


@pytest.mark.slow
def test_kept_files_are_deleted_after_seven_days_whoever_looks(make_runs):
    runs = make_runs(BROKEN, kept_seconds=0.3)
    run = wait_for(send(runs, keeps_files=True))
    assert LONG_LIFETIME == 7 * DAY
    wait_until(lambda: not run.subject.folder.exists())
    forgotten = wait_for(send(make_runs(BROKEN), keeps_files=True))
    assert has_files(forgotten)
    other = make_runs(BROKEN)
    kept = wait_for(send(other, keeps_files=True))
    assert other.find_run("bo", at=NOON + LONG_LIFETIME) is None
    assert not kept.subject.folder.exists()


def test_other_files_of_the_same_user_replace_those_that_were_kept(make_runs):
    runs = make_runs(BROKEN)
    first = wait_for(send(runs, keeps_files=True))
    second = send(runs, keeps_files=True)
    assert not first.subject.folder.exists()
    wait_for(second)
    assert has_files(second)


@pytest.mark.parametrize("keeps_files", [False, True])
def test_a_cancelled_run_ends_and_leaves_no_file(make_runs, keeps_files):
    runs = make_runs()
    run = send(runs, keeps_files=keeps_files)
    wait_until(lambda: run.process)
    process = run.process
    assert has_files(run) is keeps_files
    assert all((run.subject.folder / name).exists() for name in FILE_NAMES)
    runs.cancel("ana")
    assert process.wait(60) != 0
    assert runs.find_run("ana", at=NOON) is None
    wait_until(lambda: not run.subject.folder.exists())


def test_a_run_that_takes_too_long_is_ended_and_says_so(make_runs):
    run = wait_for(send(make_runs(longest_seconds=0.3)))
    assert run.error == BROKEN_TEXT
    assert COMMANDS_TEXT in run.error
    assert not run.subject.folder.exists()


def break_off(runs, folders):
    with runs.receive("ana") as folder:
        (folder / FILE_NAMES[0]).write_text("half")
        folders.append(folder)
        raise ConnectionError


def test_files_that_dont_arrive_whole_are_deleted(make_runs):
    runs, folders = make_runs(), []
    with pytest.raises(ConnectionError):
        break_off(runs, folders)
    assert not folders[0].exists()
    send(runs)


def test_one_run_a_user_and_two_a_replica_from_the_first_byte_on(make_runs):
    """These processes never end, so a start that waited for one would never return."""
    runs = make_runs()
    first = send(runs)
    with (
        pytest.raises(RefusalError, match="a run of yours is not done") as refusal,
        runs.receive("ana"),
    ):
        pass
    assert COMMANDS_TEXT in str(refusal.value)
    with runs.receive("bo"):
        for user in ("bo", "cy"):
            with (
                pytest.raises(RefusalError, match=r"not done|2 users have runs"),
                runs.receive(user),
            ):
                pass
    with runs.receive("cy") as folder:
        second = runs.run_files("cy", UploadRequest(folder, RAMPS), at=NOON)
    with (
        pytest.raises(RefusalError, match=f"2 users have runs now.*{COMMANDS_TEXT[:12]}"),
        runs.receive("bo"),
    ):
        pass
    runs.cancel("ana")
    wait_for(first)
    send(runs, "bo")
    assert second.is_running


def test_a_nearly_full_disk_refuses_files_before_they_come(make_runs, monkeypatch):
    monkeypatch.setattr(upload_runs, "DISK_RESERVE", 2**62)
    runs = make_runs()
    with (
        pytest.raises(RefusalError, match="disk of the service is nearly full"),
        runs.receive("ana"),
    ):
        pass
    monkeypatch.undo()
    send(runs)


def test_only_so_many_users_keep_files_and_so_many_results_are_held(make_runs, monkeypatch):
    monkeypatch.setattr(upload_runs, "MAX_KEPT", 1)
    monkeypatch.setattr(upload_runs, "MAX_HELD", 2)
    runs = make_runs(BROKEN)
    kept = wait_for(send(runs, "ana", keeps_files=True))
    with pytest.raises(RefusalError, match="1 users keep files here"):
        send(runs, "bo", keeps_files=True)
    wait_for(send(runs, "bo"))
    wait_for(send(runs, "cy"))
    assert runs.find_run("bo", at=NOON) is None, "the oldest without files is forgotten"
    assert has_files(kept)
    assert runs.find_run("cy", at=NOON) is not None


@pytest.mark.slow
def test_the_process_ends_with_its_parent():
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.close()  # as if the parent had been killed
        assert process.wait(120) != 0


LIMITED = """
import os, resource
from rollout.live.work.user_runs import limit_process
from rollout.features.uploads import uploaded_files
before = os.nice(0)
limit_process(300)
print(os.nice(0) - before, resource.getrlimit(resource.RLIMIT_DATA)[0])
uploaded_files.run_uploaded_files = lambda *_: bytearray(2 ** 31)
print(uploaded_files.run_requested({"folder": "x", "options": {}})["error"])
"""


@pytest.mark.slow
def test_the_process_has_low_priority_and_at_most_one_gibibyte():
    done = subprocess.run(
        (sys.executable, "-c", LIMITED), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"{NICENESS} {MEMORY_LIMIT}", MEMORY_TEXT]


TOLD = """
import json, os, sys
sys.stdin.readline()
names = sorted(name for name in os.environ if name.startswith("ROLLOUT_"))
print(json.dumps({"error": str(names)}))
"""


def test_the_process_gets_no_setting_of_the_service(make_runs, monkeypatch):
    monkeypatch.setenv("ROLLOUT_DATABASE_URL", "postgresql://secret")
    run = wait_for(send(make_runs((sys.executable, "-c", TOLD))))
    assert run.error == "[]"
