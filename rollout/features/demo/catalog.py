"""Examples: what each teaches, their list as text and as JSON, and the files of their generators.

A generator writes equal bytes for equal rows.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence  # noqa: TC003 - Pydantic reads the annotations
from datetime import datetime  # noqa: TC003 - as above
from pathlib import Path
from tomllib import loads
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from rollout.engine.words.formatting import wrap_text
from rollout.kernel.atomic_files import find_package_data
from rollout.kernel.calendar.instants import SHADOW
from rollout.kernel.errors import RefusalError

if TYPE_CHECKING:
    from rollout.features.replay.requests import ReplayRequest


DESCRIPTION_FILE: Final = "example.toml"
MAIL_ROOM: Final = "mail-room"
"""The example that is played where none is named."""
Noun = Annotated[tuple[str, str], Field(description="singular and plural")]


class CatalogEntry(BaseModel):
    """Part of an example's description; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HeldCell(CatalogEntry):
    """The cell that must not be widened above a stage, and why."""

    site: str
    window: str
    reason: str
    version: str = ""
    at_most: str = SHADOW


class PlantedCause(CatalogEntry):
    """A change in a cell's records that their generator made; the engine doesn't know it."""

    site: str
    window: str
    text: str


class VersionDescription(CatalogEntry):
    """A version of the example's model."""

    trained_until: datetime


class ExampleSystem(CatalogEntry):
    """An example: a policy, records, and what a reader has to know about them.

    Attributes:
        name, folder: of its files.
        idea: what it teaches, in a sentence.
        story: who decides what, and what a cell is.
        case, people: nouns for a case and for those who decide.
        wrong: what a wrong action did to a case, as "misrouted".
        seed: of the shipped records.
        serve_at: where the live demo begins.
        history_slots: before it, those in which a replay of the records changes something. The live
            demo runs them; finding them anew took a second of each first start.
        turning_slots: those of them after which others may decide, or other units count, than
            before. What happened between two of them is stored and counted at once.
        plain_threshold: agreement that plain rules ask for, where no gate asks for one.
    """

    name: str
    folder: Path
    title: str
    idea: str
    story: str
    real: str
    simulated: str
    case: Noun
    people: Noun
    wrong: str
    seed: int
    serve_at: datetime
    history_slots: tuple[datetime, ...]
    turning_slots: tuple[datetime, ...]
    held: HeldCell
    causes: tuple[PlantedCause, ...] = ()
    versions: Mapping[str, VersionDescription]
    plain_threshold: float = 0.95

    @property
    def policy_path(self) -> Path:
        """File of its policy."""
        return self.folder / "policy.yaml"

    @property
    def records_folder(self) -> Path:
        """Folder of its records."""
        return self.folder / "records"

    @property
    def training_cutoffs(self) -> dict[str, datetime]:
        """End of the training data, by version."""
        return {name: version.trained_until for name, version in self.versions.items()}


def list_examples() -> tuple[ExampleSystem, ...]:
    """Return all examples, the mail room first, the others by name."""
    examples = [_load_example(path) for path in _list_paths().values()]
    return tuple(sorted(examples, key=lambda example: (example.name != MAIL_ROOM, example.name)))


def find_example(name: str) -> ExampleSystem:
    """Return an example by name.

    Raises:
        RefusalError: there is none; the text lists the names.
    """
    path = _list_paths().get(name)  # never a path of the name, which may lead anywhere
    if path is None:
        names = ", ".join(example.name for example in list_examples())
        raise RefusalError(f"there is no example {name!r}; the examples are {names}")
    return _load_example(path)


def _list_paths() -> dict[str, Path]:
    """Return the description of each example by name."""
    paths = find_package_data("examples").glob(f"*/{DESCRIPTION_FILE}")
    return {path.parent.name: path for path in paths}


def _load_example(path: Path) -> ExampleSystem:
    description = loads(path.read_text(encoding="utf-8"))
    return ExampleSystem(name=path.parent.name, folder=path.parent, **description)


def build_replay_request(example: ExampleSystem) -> ReplayRequest:
    """Return the replay of an example's records under its policy."""
    # imported here: whoever lists the examples needs no engine
    from rollout.engine.files.files import RecordPaths
    from rollout.features.replay.requests import ReplayRequest

    records = example.records_folder
    outcomes, planted = (
        path if path.is_file() else None
        for path in (records / "outcomes.csv.gz", records / "planted.csv.gz")
    )
    return ReplayRequest(
        policy=example.policy_path,
        sources=RecordPaths(
            predictions=records / "predictions.csv.gz",
            decisions=records / "decisions.csv.gz",
            cases=records / "cases.csv.gz",
            outcomes=outcomes,
        ),
        trained_until=example.training_cutoffs,
        planted=planted,
    )


INDENT = "    "


def format_catalog() -> str:
    """Return the examples for a terminal."""
    paragraphs = ["\n".join(_describe_example(example)) for example in list_examples()]
    return "\n\n".join([*paragraphs, "Play one: rollout demo NAME"])


def _describe_example(example: ExampleSystem) -> Iterator[str]:
    yield f"{example.name}: {example.title}"
    yield from wrap_text(example.idea, INDENT)
    names = filter(None, (example.held.site, example.held.window, example.held.version))
    yield from wrap_text(f"held: {' '.join(names)}. {example.held.reason}", INDENT)


def render_catalog_json() -> str:
    """Return the examples as a JSON array."""
    return json.dumps([_build_item(example) for example in list_examples()], indent=2)


def _build_item(example: ExampleSystem) -> dict[str, Any]:
    from rollout.kernel.policy_files.reader import load_policy

    policy = load_policy(example.policy_path)
    return {
        "name": example.name,
        "title": example.title,
        "idea": example.idea,
        "sites": [site.id for site in policy.sites],
        "windows": [window.id for window in policy.windows],
        "versions": sorted(example.versions),
        "held": example.held.model_dump(),
        "policy": str(example.policy_path),
        "records": str(example.records_folder),
    }


HISTORY_PREFIX: Final = "live-history-"


def find_history_folders(parent: Path, name: str) -> list[Path]:
    """Return the folders with an example's histories, also outdated ones."""
    return list(parent.glob(f"{HISTORY_PREFIX}{name}-*"))


PICTURES = "pictures"


def write_tables(folder: Path, tables: Mapping[str, Iterable[Sequence[object]]]) -> None:
    """Write each table as NAME.csv.gz into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        (folder / f"{name}.csv.gz").write_bytes(_pack_rows(rows))


def write_pictures(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Write pictures by file name into the folder of pictures beside the tables."""
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    for name, content in pictures.items():
        (folder / PICTURES / name).write_bytes(content)


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a generator's parser, with the folder that every generator needs."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the records")
    return parser


def run_generator(write_records: Callable[[Path, int], None], description: str | None) -> None:
    """Read folder and seed from the command line, and write the records."""
    parser = build_parser(description)
    parser.add_argument("--seed", type=int, required=True, help="whole number from 0 on")
    options = parser.parse_args()
    write_records(options.out, options.seed)


def _pack_rows(rows: Iterable[Sequence[object]]) -> bytes:
    """Return rows as compressed CSV without a time stamp."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return gzip.compress(text.getvalue().encode(), mtime=0)
