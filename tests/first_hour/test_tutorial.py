"""The tutorial is followed as written, in an empty home, by somebody who only copies."""

import json
import re
import shutil
import socket
import stat
import time

import pytest

from tests.docs.pages import text_of
from tests.first_hour.terminals import is_like, normalized, terminals_in
from tests.first_hour.tutorial import PAGE, tutorial_steps, untried_blocks

MINUTES = 5
SECONDS = 30  # in which a service on a busy machine ends its first tick
PORT = "8000"
HASH = re.compile(r"\b[0-9a-f]{64}\b")
OTHER_PROGRAMS = ("node", "curl", "python3")


def free_port(*wanted):
    """Return the first wanted port that is free, or any other one."""
    for port in (*map(int, wanted), 0):
        with socket.socket() as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
            return str(found.getsockname()[1])
    raise AssertionError("no port is free")


class Reader:
    """Does what the page says, step by step."""

    def __init__(self, terminals, port):
        self.terminals, self.port, self.evidence_hash, self.missing = terminals, port, "", set()

    def follow(self, step):
        actions = {"run": self._run, "start": self._start, "prints": self._wait, "save": self._save}
        if step.mode == "Ctrl-C":
            self.terminals.interrupt(step.terminal)
        else:
            actions[step.mode](step)

    def _run(self, step):
        for command, expected in step.commands:
            program = command.split()[0]
            if program in OTHER_PROGRAMS and shutil.which(program) is None:
                self.missing.add(program)
                continue
            lines = self._ask(step.terminal, HASH.sub(self.evidence_hash, command))
            self.evidence_hash = "".join(HASH.findall("\n".join(lines))[:1]) or self.evidence_hash
            assert is_like(lines, expected), "\n".join([command, *lines])

    def _ask(self, terminal, command):
        """Run a command, again while the first tick has raised no proposal."""
        until = time.monotonic() + SECONDS
        while True:
            try:
                return self.terminals.run(terminal, command)
            except AssertionError as error:
                if "there is no proposal" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(1)

    def _start(self, step):
        ((command, expected),) = step.commands
        if self.port != PORT and command.startswith("rollout quickstart"):
            command += f" --port {self.port}"
        self._wait_for(self.terminals.start(step.terminal, command), expected)

    def _wait(self, step):
        self._wait_for(self.terminals.output_of(step.terminal), step.block.splitlines())

    def _wait_for(self, output, expected):
        wanted = {normalized(line) for line in expected} - {"…"}
        output.wait_until(lambda lines: wanted <= set(map(normalized, lines)))

    def _save(self, step):
        (self.terminals.folder / step.terminal).write_text(step.block, "utf-8")


@pytest.mark.enable_socket  # to see whether the page's port is free
def test_the_tutorial_leads_to_a_widening_and_a_narrowing_as_written(tmp_path):
    started = time.monotonic()
    with terminals_in(tmp_path) as terminals:
        reader = Reader(terminals, free_port(PORT))
        for step in tutorial_steps():
            reader.follow(step)
            if "in shadow (before: supervised)" in step.block:
                narrowed_after = time.monotonic() - started
        assert narrowed_after < 60 * MINUTES
        ledger = terminals.run("3", "rollout ledger export parcels")
        rows = [json.loads(line) for line in ledger]
        quiet = {"RecordsCounted", "CalendarDataSet"}  # every 5 seconds; once a minute at most
        kinds = [row["kind"] for row in rows if row["kind"] not in quiet]
        story = ["ProposalRaised", "Approved", "Approved", "Widened", "Narrowed", "IncidentOpened"]
        assert kinds[kinds.index("ProposalRaised") :][: len(story)] == story
        assert len({row["actor"] for row in rows if row["kind"] == "Approved"}) == 2
        keys = terminals.folder / "rollout-quickstart/keys.env"
        assert stat.S_IMODE(keys.stat().st_mode) == 0o600
        refused = terminals.run("4", "rollout simulate || true")
        assert "the case my-case-" in "\n".join(refused)
        assert "which is not simulated" in "\n".join(refused)
    if reader.missing:
        pytest.skip(f"{', '.join(reader.missing)} is missing: its client was not tried")


def test_every_block_of_the_tutorial_is_a_step():
    assert untried_blocks(text_of(PAGE)) == []
    assert untried_blocks("```sh\nrollout demo\n```\n") == ["rollout demo\n"]


@pytest.mark.parametrize(
    ("lines", "expected", "like"),
    [
        (["at 12:01 5 of 7"], ["at 9:30 6 of 9"], True),
        (["shadow"], ["supervised"], False),
        (["a", "b", "c"], ["a", "…"], True),
        (["a", "b", "c"], ["…", "c"], True),
        (["a", "b"], ["a"], False),
        ([], [], True),
    ],
)
def test_output_is_compared_without_what_varies(lines, expected, like):
    assert is_like(lines, expected) is like
