"""An example's cases with their records, by time, and the pictures that reviewers see of them.

Pictures are `data:` addresses. Those of the mail room's letters are real digits, enlarged so that a
person can read them. They are built from the digit image alone, never from a scan that only some
letters have: a picture that looked different for divergent letters would tell a blind reviewer what
the model said.
"""

import csv
import gzip
import struct
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl

from rollout.engine.evidence.frames import (
    ATTRIBUTE_PREFIX,
    OUTCOME_PREFIX,
    VALUE_PREFIX,
    RecordFrames,
)
from rollout.features.demo.catalog import ExampleSystem, build_replay_request
from rollout.features.demo.simulated_cases import (
    ExampleCase,
    ExampleDecision,
    ExampleOutcome,
    ExamplePrediction,
)
from rollout.features.replay.requests import read_request_records
from rollout.kernel.arrays import Floats
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import load_policy
from rollout.kernel.units import group_pairs

Pixels8 = npt.NDArray[np.uint8]
SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
GREY, TRUE_COLOUR, PALETTE = 0, 2, 3
"""Kinds of colour, by their numbers in the format."""


def encode_colours(pixels: Pixels8) -> bytes:
    """Return a picture of rows of red, green and blue as a PNG in true colour."""
    height, width, _ = pixels.shape
    return build_png(width, height, 8, TRUE_COLOUR, pixels.reshape(height, width * 3))


def encode_palette(pixels: Pixels8) -> bytes:
    """Return the same as a PNG with a palette, for at most 256 colours."""
    height, width, _ = pixels.shape
    colours, indices = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    rows = indices.reshape(height, width).astype(np.uint8)
    return build_png(width, height, 8, PALETTE, rows, palette=colours.tobytes())


def build_png(  # noqa: PLR0913 - the fields of the format
    width: int,
    height: int,
    depth: int,
    kind: int,
    rows: Pixels8,
    *,
    palette: bytes = b"",
    filter_type: int = 0,
    level: int = 9,
) -> bytes:
    """Return a PNG of rows of bytes, to which its filter is applied already."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    content = zlib.compress(np.insert(rows, 0, filter_type, axis=1).tobytes(), level)
    chunks = [(b"IHDR", header), (b"IDAT", content), (b"IEND", b"")]
    if palette:
        chunks.insert(1, (b"PLTE", palette))
    return SIGNATURE + b"".join(_build_chunk(*chunk) for chunk in chunks)


def _build_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


DIGITS_FILE: Final = "digits.csv.gz"
SIDE: Final = 8  # pixels of a digit image
SMOOTH_SIDE: Final = 32  # pixels after interpolation: at 8 x 8 people mistake digits
ENLARGEMENT: Final = 4  # screen pixels for each of these
DARKEST: Final = 15
UP: Final = 2  # PNG's filter: each row as its difference from the one above
DEFAULT_LEVEL: Final = -1
PAPER_MARGIN: Final = 2  # in digit pixels
FRAMED_SIDE: Final = SIDE + 2 * PAPER_MARGIN
WORN_COLUMN: Final = 5
WEAR_BY_NIGHT: Final = (0, 35, 65, 85, 100, 100, 100)
"""Per cent of ink that the worn column loses, by the weekday on which a night began."""
NEW_FORM, WORN_SCANNER = "new", "worn"
Pixels = Floats


@dataclass(slots=True)
class DigitPictures:
    """The pictures of letters, as `data:` addresses; each is drawn once."""

    images: Mapping[str, Pixels] = field(repr=False)
    _drawn: dict[tuple[str, bool, int], str] = field(default_factory=dict, repr=False)

    def find_picture(self, attributes: Mapping[str, str], local_time: datetime) -> str:
        """Return the address of a letter's picture.

        Args:
            attributes: `image`; of letters also `form` and `scanner`.
            local_time: its arrival on the office's clock; a scanner wears night by night.
        """
        wear = 0
        if attributes.get("scanner") == WORN_SCANNER:
            wear = WEAR_BY_NIGHT[(local_time - timedelta(hours=12)).weekday()]
        key = (attributes["image"], attributes.get("form") == NEW_FORM, wear)
        if key not in self._drawn:
            pixels = _print_on_form(self.images[key[0]], is_new_form=key[1], wear=wear)
            self._drawn[key] = _encode_address(_enlarge(pixels))
        return self._drawn[key]


def load_digit_pictures(example: ExampleSystem) -> DigitPictures:
    """Return the pictures of the digit images among an example's records."""
    path = example.records_folder / DIGITS_FILE
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        return DigitPictures(
            {
                row["image"]: np.array(
                    [int(digit, 16) for digit in row["pixels"]], dtype=np.float64
                ).reshape(SIDE, SIDE)
                for row in csv.DictReader(lines)
            }
        )


def _print_on_form(pixels: Pixels, *, is_new_form: bool, wear: int) -> Pixels:
    """Return the digit on its form: shifted on the new one, a column fainter if worn."""
    printed = pixels.copy()
    if is_new_form:
        printed[:, 1:], printed[:, 0] = pixels[:, :-1], 0
    printed[:, WORN_COLUMN] *= (100 - wear) / 100
    return printed


def _enlarge(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Return grey levels, 0 for ink, interpolated between the pixels and with a margin."""
    framed = np.zeros((FRAMED_SIDE, FRAMED_SIDE))
    framed[PAPER_MARGIN:-PAPER_MARGIN, PAPER_MARGIN:-PAPER_MARGIN] = pixels
    weights = _compute_weights()
    levels = (DARKEST - np.clip(np.rint(weights @ framed @ weights.T), 0, DARKEST)).astype(np.uint8)
    return levels.repeat(ENLARGEMENT, axis=0).repeat(ENLARGEMENT, axis=1)


@cache
def _compute_weights() -> Pixels:
    """Return the weight of each framed pixel in each interpolated one, along an axis."""
    positions = np.linspace(0, FRAMED_SIDE - 1, SMOOTH_SIDE * FRAMED_SIDE // SIDE)
    distances = np.abs(positions[:, None] - np.arange(FRAMED_SIDE)[None, :])
    weights: Pixels = np.maximum(0, 1 - distances)
    return weights


def _encode_address(levels: npt.NDArray[np.uint8]) -> str:
    """Return a PNG with 16 grey levels as a `data:` address."""
    height, width = levels.shape
    packed = (levels[:, 0::2] << 4) | levels[:, 1::2]
    changes = np.diff(packed, axis=0, prepend=np.zeros_like(packed[:1]))
    png = build_png(width, height, 4, GREY, changes, filter_type=UP, level=DEFAULT_LEVEL)
    return "data:image/png;base64," + b64encode(png).decode("ascii")


MEDIA: Final = "media"
"""Attribute of a case that names its picture."""


def load_cases(example: ExampleSystem, *, until: datetime | None = None) -> tuple[ExampleCase, ...]:
    """Return an example's cases that have a prediction, planted ones too, by time.

    With `until` only those that occurred by then, and all planted ones.
    """
    policy = load_policy(example.policy_path)
    records = read_request_records(build_replay_request(example), policy)
    natural = records if until is None else select_records_until(records, until)
    cases = list(_list_cases(policy, natural))
    if records.planted is not None:
        cases += _list_cases(policy, records.planted, is_planted=True)
    return tuple(sorted(cases, key=lambda case: (case.at, case.key)))


def _list_cases(
    policy: Policy, records: RecordFrames, *, is_planted: bool = False
) -> Iterator[ExampleCase]:
    """Yield each case with its records, column by column: an example has ten thousands."""
    cases = records.cases.filter(pl.col("occurred_at").is_not_null())
    zones = {site.id: ZoneInfo(site.timezone) for site in policy.sites}
    columns = (cases["case_key"], cases["site"], cases["occurred_at"], cases["episode"])
    rows = list(zip(*columns, strict=True))
    times = {key: at.astimezone(zones[site]) for key, site, at, _ in rows}
    predictions = _group_predictions(policy, records.predictions, times)
    decisions = _group_decisions(policy, records.decisions)
    outcomes = _group_outcomes(policy, records.outcomes)
    for row, attributes in zip(rows, _list_values(cases, ATTRIBUTE_PREFIX), strict=True):
        key, site, _, episode = row
        if key in predictions:
            yield ExampleCase(
                key=key,
                site=site,
                at=times[key],
                episode=episode,
                media=attributes.pop(MEDIA, ""),
                attributes=attributes,
                predictions=tuple(predictions[key]),
                decisions=tuple(sorted(decisions.get(key, ()), key=lambda decision: decision.at)),
                outcomes=tuple(outcomes.get(key, ())),
                is_planted=is_planted,
            )


def _group_predictions(
    policy: Policy, frame: pl.DataFrame, times: Mapping[str, datetime]
) -> Mapping[str, list[ExamplePrediction]]:
    """Return the predictions by case; one without a time of its own has its case's."""
    rows = frame.select("case_key", "version", "confidence", "at").iter_rows()
    return group_pairs(
        (key, ExamplePrediction(version, answers, confidence, at or times[key]))
        for answers, (key, version, confidence, at) in zip(
            _list_answers(policy, frame), rows, strict=True
        )
        if key in times
    )


def _group_decisions(policy: Policy, frame: pl.DataFrame) -> Mapping[str, list[ExampleDecision]]:
    rows = frame.select("case_key", "reviewer", "unsure", "at").iter_rows()
    return group_pairs(
        (key, ExampleDecision(reviewer, answers, unsure, at))
        for answers, (key, reviewer, unsure, at) in zip(
            _list_answers(policy, frame), rows, strict=True
        )
    )


def _group_outcomes(policy: Policy, frame: pl.DataFrame) -> Mapping[str, list[ExampleOutcome]]:
    answers = (
        {lever: text for lever, text in row.items() if text is not None}
        for row in _list_answers(policy, frame)
    )
    rows = frame.select("case_key", "harm", "at").iter_rows()
    return group_pairs(
        (key, ExampleOutcome(known_answers, values, harm, at))
        for known_answers, values, (key, harm, at) in zip(
            answers, _list_values(frame, OUTCOME_PREFIX), rows, strict=True
        )
    )


def _list_answers(policy: Policy, frame: pl.DataFrame) -> Iterator[dict[str, str | None]]:
    """Yield the answer on each lever, row by row."""
    levers = [lever.id for lever in policy.levers]
    for row in frame.select(VALUE_PREFIX + lever for lever in levers).iter_rows():
        yield dict(zip(levers, row, strict=True))


def _list_values(frame: pl.DataFrame, prefix: str) -> Iterator[dict[str, Any]]:
    """Yield the values of columns with a prefix, by the rest of their names; no nulls."""
    columns = [column for column in frame.columns if column.startswith(prefix)]
    names = [column.removeprefix(prefix) for column in columns]
    if not columns:
        yield from ({} for _ in range(frame.height))
    for row in frame.select(columns).iter_rows():
        yield {name: value for name, value in zip(names, row, strict=True) if value is not None}


def select_records_until(records: RecordFrames, until: datetime) -> RecordFrames:
    """Return the records of the cases that occurred by an instant."""
    cases = records.cases.filter(pl.col("occurred_at") <= until)
    keys = cases.select("case_key")
    return replace(
        records,
        cases=cases,
        predictions=records.predictions.join(keys, on="case_key", how="semi"),
        decisions=records.decisions.join(keys, on="case_key", how="semi"),
        outcomes=records.outcomes.join(keys, on="case_key", how="semi"),
        planted=records.planted and select_records_until(records.planted, until),
    )


PICTURE = "picture"


@dataclass
class CasePictures:
    """The pictures of an example's cases: files beside its records, or drawn digits."""

    example: ExampleSystem
    _addresses: dict[Path, str] = field(default_factory=dict, repr=False)

    def find_media(self, case: ExampleCase) -> dict[str, str]:
        """Return the picture of a case by its name; nothing if the example has none."""
        if self._digits is not None:
            return {PICTURE: self._digits.find_picture(case.attributes, case.at)}
        if not case.media:
            return {}
        return {PICTURE: self._read_file(self.example.records_folder / case.media)}

    @cached_property
    def _digits(self) -> DigitPictures | None:
        has_digits = (self.example.records_folder / DIGITS_FILE).is_file()
        return load_digit_pictures(self.example) if has_digits else None

    def _read_file(self, path: Path) -> str:
        if path not in self._addresses:
            content = b64encode(path.read_bytes()).decode("ascii")
            self._addresses[path] = f"data:image/png;base64,{content}"
        return self._addresses[path]
