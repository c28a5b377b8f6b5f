"""The files that an example's generator writes: equal rows give equal bytes."""

import argparse
import csv
import gzip
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

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
