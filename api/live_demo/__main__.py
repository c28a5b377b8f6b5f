"""`python -m api.live_demo FOLDER`: prepare the mail room's live demo beforehand."""

import sys
from pathlib import Path

import typer

from api.live_demo.history_cache import prepare_history
from api.live_demo.live import PREPARING
from api.live_demo.stage import build_case_records
from rollout.services.examples.catalog import MAIL_ROOM, find_example
from rollout.services.examples.recorded_cases import load_cases


def main(folder: str) -> None:
    """Prepare the history in a folder, if it isn't there yet."""
    example = find_example(MAIL_ROOM)
    records, cases = build_case_records(example), load_cases(example)
    prepare_history(Path(folder), example, records, cases, lambda: typer.echo(PREPARING))
    typer.echo(f"Live: rollout demo --serve --out {folder}")


if __name__ == "__main__":
    main(sys.argv[1])
