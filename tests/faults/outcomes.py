"""Measured outcomes of faults in docs/reliability.toml, from which its page is made.

`python -m tests.faults.outcomes` fails if outcomes are older than the code they cover (`make lint`
runs it); with "why they are not run again" it marks them. A new outcome ends the mark of the one
that it replaces.
"""

import json
import subprocess
import sys
import tomllib
from argparse import ArgumentParser
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime

from tests.docs.code_age import is_history_whole, is_in_history, list_changed_files
from tests.docs.pages import ROOT

OUTCOMES = ROOT / "docs/reliability.toml"


@dataclass(frozen=True)
class FaultOutcome:
    """What a fault did to the service; a figure that was not measured is None.

    Attributes:
        fault, engine: together they name the outcome.
        tried: how often the fault was made, or how many tests make it (see `tried_unit`); 0 with a
            note "not run: reason".
        lost, doubled: acknowledged records or events that were missing or there twice.
        wider: answers that gave the model more than the ledger, stops included.
        late_stops: stops that held later than promised.
        recovery_seconds: the longest time from the fault's end to the first full answer.
        command, date, commit: how, when and on which program it was measured.
        note: what else a reader needs.
        stale: why an outcome older than the code stands here.
    """

    fault: str
    engine: str
    tried: int
    command: str
    date: date
    commit: str
    lost: int | None = None
    doubled: int | None = None
    wider: int | None = None
    late_stops: int | None = None
    recovery_seconds: float | None = None
    note: str = ""
    stale: str = ""

    @property
    def tried_unit(self):
        """Return what `tried` counts: `kill`, `run` under traffic, or `test`."""
        if self.command.startswith("python -m tests.faults.kills"):
            return "kill"
        return "test" if self.recovery_seconds is None else "run"  # tests time no recovery


def load_covers(path=OUTCOMES):
    """Return the folders whose changes make outcomes old."""
    return _load_document(path)["covers"]


def load_outcomes(path=OUTCOMES):
    """Return the outcomes of a file, in its order."""
    return [FaultOutcome(**row) for row in _load_document(path).get("outcome", [])]


def record_outcome(path, outcome):
    """Write an outcome in the place of the one with its fault and engine, or as the last."""
    rows = load_outcomes(path)
    places = [(row.fault, row.engine) for row in rows]
    name = (outcome.fault, outcome.engine)
    if name in places:
        rows[places.index(name)] = outcome
    else:
        rows.append(outcome)
    write_outcomes(path, rows)


def write_outcomes(path, rows):
    """Replace the outcomes of a file; what stands before the first one is kept."""
    head, _, _ = path.read_text(encoding="utf-8").partition("[[outcome]]")
    path.write_text(
        "\n".join([head.rstrip() + "\n", *map(_format_outcome, rows)]), encoding="utf-8"
    )


def today():
    """Return the date of an outcome measured now."""
    return datetime.now(UTC).date()


def current_commit():
    """Return the commit that is checked out, shortened."""
    words = ["git", "rev-parse", "--short=10", "HEAD"]
    return subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout[:-1]


def _load_document(path):
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _format_outcome(outcome):
    values = {name: value for name, value in asdict(outcome).items() if value not in (None, "")}
    lines = (f"{name} = {_format_value(value)}\n" for name, value in values.items())
    return "[[outcome]]\n" + "".join(lines)


def _format_value(value):
    if isinstance(value, date):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False)  # JSON's strings and numbers are also TOML's


def main(arguments):
    """Mark outcomes as older than the code, or print those that are and return 1."""
    parser = ArgumentParser(description="Mark the outcomes that are older than the code.")
    parser.add_argument("reason", nargs="?", help="why the run has to wait; without it only check")
    reason = parser.parse_args(arguments).reason
    texts = list_old_outcomes() if reason is None else []
    for text in texts:
        print(text)  # noqa: T201 - the answer
    if reason is not None:
        mark_old_outcomes(reason)
    return 1 if texts else 0


def list_old_outcomes():
    """Return a sentence for each commit whose outcomes are older than the code and not marked."""
    covers = load_covers()
    commits = sorted({row.commit for row in load_outcomes() if not row.stale})
    changes = {
        commit: list_changed_files(commit, covers) for commit in commits if is_in_history(commit)
    }
    unknown = [commit for commit in commits if commit not in changes and is_history_whole()]
    remedy = 'Run their command, or `python -m tests.faults.outcomes "reason"`.'
    return [
        *(f"outcomes are of {commit}, which is no commit. {remedy}" for commit in unknown),
        *(
            f"outcomes of {commit} are older than {len(files)} files: {', '.join(files[:5])}. "
            + remedy
            for commit, files in changes.items()
            if files
        ),
    ]


def mark_old_outcomes(reason):
    """Write why outcomes that are older than the code stand there."""
    covers = load_covers()
    rows = [
        replace(row, stale=reason)
        if not is_in_history(row.commit) or list_changed_files(row.commit, covers)
        else row
        for row in load_outcomes()
    ]
    write_outcomes(OUTCOMES, rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
