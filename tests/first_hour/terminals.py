"""Terminals in an empty home: what a new user types, and what they see."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

from tests.docs.pages import ROOT

END = "end-of-command"
PATIENCE = 90  # seconds for one command or line on a busy machine
SHIM = """\
#!/bin/sh
PYTHONPATH={root} exec {python} -c 'from rollout.cli.main import app; app(prog_name="rollout")' "$@"
"""


class Output:
    """The lines of a process, read as they come."""

    def __init__(self, process):
        self.process, self.lines, self._has_ended = process, [], False
        self._new = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._new:
                self.lines.append(line.rstrip("\n"))
                self._new.notify_all()
        with self._new:
            self._has_ended = True
            self._new.notify_all()

    def close(self):
        """Wait for the last line, and close the pipes."""
        self._reader.join(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def wait_until(self, is_enough, patience=PATIENCE):
        """Wait until the lines are enough; fail with all of them."""
        deadline = time.monotonic() + patience
        with self._new:
            while not is_enough(self.lines):
                left = deadline - time.monotonic()
                text = "\n".join(self.lines)
                assert not self._has_ended, f"it ended before:\n{text}"
                assert left > 0, f"not there in time:\n{text}"
                self._new.wait(left)
            return list(self.lines)


class Terminals:
    """Shells of one user in one folder, by name."""

    def __init__(self, home):
        self.folder, self._shells, self._running = home / "work", {}, {}
        self.folder.mkdir()
        shim = home / "bin" / "rollout"
        shim.parent.mkdir()
        shim.write_text(SHIM.format(root=ROOT, python=sys.executable), "utf-8")
        shim.chmod(0o755)
        inherited = {
            name: os.environ[name] for name in ("LANG", "TMPDIR", "TZ") if name in os.environ
        }
        path = f"{shim.parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**inherited, "HOME": str(home), "PATH": path, "COLUMNS": "200"}

    def run(self, name, command):
        """Return the lines that a command prints in a terminal that keeps its variables."""
        if name not in self._shells:
            self._shells[name] = Output(self._open(["bash"], subprocess.PIPE))
        shell = self._shells[name]
        start = len(shell.lines)
        shell.process.stdin.write(f"{command}\nprintf '\\n{END} %s\\n' $?\n")
        shell.process.stdin.flush()
        lines = shell.wait_until(lambda lines: lines[start:] and END in lines[-1])[start:]
        code = lines.pop().removeprefix(END).strip()
        lines = lines if lines[-1] else lines[:-1]  # else the command's last line had no end
        assert code == "0", f"{command} ended with {code}:\n" + "\n".join(lines)
        return lines

    def start(self, name, command):
        """Start a command that runs on; return its output."""
        output = Output(self._open(["bash", "-c", f"exec {command}"], subprocess.DEVNULL))
        self._running[name] = output
        return output

    def output_of(self, name):
        """Return the output of the command that runs in a terminal."""
        return self._running[name]

    def interrupt(self, name):
        """Press Ctrl-C in a terminal, and return all that its command printed."""
        output = self._running.pop(name)
        os.killpg(output.process.pid, signal.SIGINT)
        output.process.wait(PATIENCE)
        output.close()
        return output.lines

    def close(self):
        """End whatever still runs."""
        for output in (*self._running.values(), *self._shells.values()):
            if output.process.poll() is None:
                os.killpg(output.process.pid, signal.SIGKILL)
                output.process.wait(PATIENCE)
            output.close()

    def _open(self, words, stdin):
        return subprocess.Popen(
            words, cwd=self.folder, env=self._environment, stdin=stdin, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


@contextmanager
def terminals_in(home):
    """Yield the terminals of a user whose home was empty."""
    terminals = Terminals(home)
    try:
        yield terminals
    finally:
        terminals.close()


VARYING = (
    (re.compile(r"\b[0-9a-f]{12,}\b"), "HASH"),
    (re.compile(r"\d{4}-\d\d-\d\d(T[\d:.]+Z)?"), "TIME"),
    (re.compile(r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) \d+ [A-Z][a-z]+( \d{4})?( \d\d:\d\d)?"), "TIME"),
    (re.compile(r"\d[\d,.]*\b"), "#"),
)


def normalized(line):
    """Return a line without what differs from run to run: times, hashes, counts."""
    for pattern, name in VARYING:
        line = pattern.sub(name, line)
    return line.rstrip()


def is_like(lines, expected):
    """Return whether lines are as a page has them; its line `…` stands for any lines."""
    text = "\n".join(map(normalized, lines))
    parts = (re.escape(normalized(line)) for line in expected)
    pattern = "\n".join(parts).replace(re.escape("…") + "\n", "(?:.*\n)*?").replace("…", "(?s:.*)")
    return re.fullmatch(pattern, text) is not None
