"""The faults that cases make under a running service: disks, locks, servers, networks, clocks."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from tests.faults.live_outage import LiveFault, prepare_field, run_outage
from tests.faults.own_server import OwnServer, own_server
from tests.faults.test_real_disks import mount

FAR, NEAR = "10.99.0.2", "10.99.0.1"


def run_full_disk(folder, *, reserve):
    """Fill a small tmpfs under an SQLite database; needs a mount namespace of its own.

    With a reserve (MiB) humans decide at once. Without one the model goes on while small writes
    succeed, which they do where the WAL has pages left.
    """
    volume = folder / "volume"
    volume.mkdir()
    mount(volume, "-t", "tmpfs", "-o", "size=12m", "tmpfs")
    url, filler = f"sqlite:///{volume / 'rollout.db'}", volume / "filler"
    key = prepare_field(url)

    def prove():
        # SQLite may have freed pages since the fill: fill them too, until there is no more
        with pytest.raises(OSError, match="No space"):
            append_until_full(filler)
        with closing(sqlite3.connect(volume / "rollout.db", timeout=10)) as connection:
            connection.isolation_level = None  # each statement commits
            with pytest.raises(sqlite3.OperationalError, match=r"full|I/O"):
                connection.execute("create table x as select zeroblob(10000000) as y")

    fault = LiveFault(
        lambda: fill_volume(volume, filler),
        prove,
        filler.unlink,
        blocks_writes=bool(reserve),
        has_commands=True,
        environment={"ROLLOUT_DISK_RESERVE": str(reserve)},
    )
    return run_outage(fault, url, key, folder / "service")


def run_locked(folder):
    """Hold SQLite's one lock for writing in another process."""
    url, holders = f"sqlite:///{folder / 'rollout.db'}", []
    key = prepare_field(url)
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30);"
        " c.execute('begin immediate'); print('locked', flush=True); sys.stdin.read()"
    )

    def lock():
        words = [sys.executable, "-c", script, str(folder / "rollout.db")]
        holders.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert holders[0].stdout.readline() == b"locked\n"

    def prove():
        with (
            closing(sqlite3.connect(folder / "rollout.db", timeout=0)) as connection,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            connection.execute("begin immediate")

    def unlock():
        holders[0].communicate()

    environment = {"ROLLOUT_DISK_RESERVE": "0"}
    fault = LiveFault(lock, prove, unlock, has_commands=True, environment=environment)
    return run_outage(fault, url, key, folder / "service")


def check_no_answer(url):
    """Raise unless the server gives no answer within a second."""
    url = url.replace("+psycopg", "")
    script = "import psycopg, sys; print(psycopg.connect(sys.argv[1]).execute('select 1'))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, url], timeout=1, check=False, capture_output=True
        )
    except subprocess.TimeoutExpired:
        return
    assert done.returncode, "the server answers"


def run_frozen(folder):
    """Freeze all processes of PostgreSQL."""
    with own_server() as server:
        key = prepare_field(server.url)
        fault = LiveFault(server.freeze, lambda: check_no_answer(server.url), server.thaw)
        return run_outage(fault, server.url, key, folder)


def run_killed(folder):
    """Kill all processes of PostgreSQL and start it again."""
    with own_server() as server:
        key = prepare_field(server.url)
        fault = LiveFault(server.kill, lambda: check_no_answer(server.url), server.start_again)
        return run_outage(fault, server.url, key, folder)


def run_full_server(folder):
    """Fill the tmpfs of PostgreSQL's data; needs a mount namespace of its own and root."""
    volume = Path(tempfile.mkdtemp(prefix="rollout-full-pg-"))
    mount(volume, "-t", "tmpfs", "-o", "size=160m", "tmpfs")
    volume.chmod(0o755)
    (volume / "data").mkdir()
    server, filler = OwnServer(volume / "data"), volume / "filler"

    def prove():
        with pytest.raises(OSError, match="No space"):
            (volume / "more").write_bytes(b"x" * 8192)
        with suppress(psycopg.OperationalError), psycopg.connect(server.url) as connection:
            with pytest.raises(psycopg.errors.DiskFull):
                connection.execute("create table x as select repeat('x', 900) || n as y"
                                   " from generate_series(1, 60000) n")  # fmt: skip
            connection.rollback()

    def heal():
        filler.unlink()
        with suppress(psycopg.OperationalError), psycopg.connect(server.url):
            return
        server.start_again()

    try:
        key = prepare_field(server.url)
        fault = LiveFault(lambda: fill_volume(volume, filler), prove, heal, blocks_writes=False)
        return run_outage(fault, server.url, key, folder / "service")
    finally:
        server.server.cleanup()


def fill_volume(volume, filler):
    """Fill a volume to its last block."""
    with suppress(OSError):
        append_until_full(filler)
    assert shutil.disk_usage(volume).free < 4096


def append_until_full(filler):
    """Append to a file until its volume refuses."""
    with filler.open("ab", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


FORWARDER = """
import socket, sys, threading
path, port = sys.argv[1], int(sys.argv[2])
def copy(one, other):
    while content := one.recv(65536):
        other.sendall(content)
    other.close()
listener = socket.create_server(("0.0.0.0", port))
print("ready", flush=True)
while True:
    near, _ = listener.accept()
    far = socket.socket(socket.AF_UNIX)
    far.connect(path)
    for pair in ((near, far), (far, near)):
        threading.Thread(target=copy, args=pair, daemon=True).start()
"""


def run_cut(folder, socket_path, key):
    """Take down the far end of the only cable to PostgreSQL; needs a network namespace.

    The server stands behind `socket_path`; a second namespace makes it a machine of its own.
    """
    words = ["unshare", "--net", sys.executable, "-c", FORWARDER, socket_path, "5432"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as forwarder:
        try:
            assert forwarder.stdout.readline() == b"ready\n"
            far = ["nsenter", "--net", f"--target={forwarder.pid}"]
            connect_namespaces(forwarder.pid, far)
            url = f"postgresql+psycopg://postgres@{FAR}:5432/postgres"
            with psycopg.connect(url.replace("+psycopg", "")) as connection:
                assert connection.execute("select 1").fetchone() == (1,)
            fault = LiveFault(
                lambda: run_ip(*far, "ip", "link", "set", "vb", "down"),
                lambda: check_no_answer(url),
                lambda: run_ip(*far, "ip", "link", "set", "vb", "up"),
            )
            return run_outage(fault, url, key, folder)
        finally:
            forwarder.kill()


def connect_namespaces(far_pid, far):
    """Lay a cable from this network namespace to that of a process."""
    run_ip("ip", "link", "set", "lo", "up")
    run_ip("ip", "link", "add", "va", "type", "veth", "peer", "name", "vb")
    run_ip("ip", "link", "set", "vb", "netns", str(far_pid))
    run_ip("ip", "address", "add", f"{NEAR}/24", "dev", "va")
    run_ip(*far, "ip", "address", "add", f"{FAR}/24", "dev", "vb")
    run_ip("ip", "link", "set", "va", "up")
    run_ip(*far, "ip", "link", "set", "vb", "up")


def run_ip(*words):
    subprocess.run(words, check=True)


def find_faketime():
    """Return the library that fakes clocks, or None."""
    places = [Path(part) for part in sys.path if part]
    vendored = "libfaketime/vendor/libfaketime/src/libfaketime.so.1"
    wheels = [place / vendored for place in places if (place / vendored).exists()]
    system = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    return next(iter([*wheels, *system]), None)


@contextmanager
def fake_clock(folder):
    """Give the environment of a clock that `set_offset` moves under a running process."""
    file = folder / "offset"
    file.write_text("+0")
    environment = {
        "LD_PRELOAD": str(find_faketime()),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    yield environment, file.write_text


def run_clock_jump(folder, offset):
    """Move the wall clock of the service alone, by libfaketime."""
    with own_server() as server, fake_clock(folder) as (environment, set_offset):
        key = prepare_field(server.url)

        def prove():
            script = "import time; print(time.time())"
            done = subprocess.run(
                [sys.executable, "-c", script],
                env=os.environ | environment,
                capture_output=True,
                text=True,
                check=True,
            )
            skew = float(done.stdout) - datetime.now(UTC).timestamp()
            assert abs(skew - float(offset)) < 5, skew

        fault = LiveFault(
            lambda: set_offset(offset), prove, lambda: set_offset("+0"), environment=environment
        )
        return run_outage(fault, server.url, key, folder / "service")
