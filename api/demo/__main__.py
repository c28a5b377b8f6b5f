"""`python -m api.demo FOLDER`: prepare the mail room's live demo beforehand."""

import shlex
import shutil
import sys
from pathlib import Path

import typer

from api.demo.start import PREPARING
from rollout.features.demo.catalog import MAIL_ROOM, find_example
from rollout.features.demo.recorded_cases import load_cases
from rollout.features.demo.stage import build_case_records, prepare_history

COMMAND = "rollout"


def main(folder: str) -> None:
    """Prepare the history in a folder, if it isn't there yet."""
    example = find_example(MAIL_ROOM)
    records, cases = build_case_records(example), load_cases(example)
    prepare_history(Path(folder), example, records, cases, lambda: typer.echo(PREPARING))
    command = find_command(Path(sys.executable).parent, Path.cwd())
    typer.echo(f"Live: {shlex.join([*command, 'demo', '--serve', '--out', folder])}")


def find_command(programs: Path, here: Path) -> tuple[str, ...]:
    """Return how the command of this environment is called from a folder.

    Without an activated environment its programs aren't on the path.
    """
    program = programs / COMMAND
    program_on_path = shutil.which(COMMAND)
    if program_on_path is not None and Path(program_on_path) == program:
        return (COMMAND,)
    if not program.is_file():
        return (sys.executable, "-m", COMMAND)
    return (str(program.relative_to(here) if program.is_relative_to(here) else program),)


if __name__ == "__main__":
    main(sys.argv[1])
