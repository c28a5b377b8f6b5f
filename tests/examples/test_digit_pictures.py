"""Pictures of letters: real digits, large enough, and the same whatever the model said."""

import csv
import gzip
import struct
import zlib
from base64 import b64decode
from datetime import UTC, datetime

import numpy as np
import pytest

from rollout.features.demo.catalog import MAIL_ROOM, find_example
from rollout.features.demo.recorded_cases import load_digit_pictures

NOON = datetime(2025, 10, 4, 12, tzinfo=UTC)
SATURDAY_NIGHT = datetime(2025, 10, 5, 3, tzinfo=UTC)
MONDAY_NIGHT = datetime(2025, 10, 6, 19, tzinfo=UTC)


@pytest.fixture(scope="module")
def pictures():
    return load_digit_pictures(find_example(MAIL_ROOM))


def attributes(image, form="old", scanner="clean"):
    return {"image": image, "form": form, "scanner": scanner}


def grey_levels(address):
    """Decode a PNG by its specification; return its grey levels, 0 for black."""
    png = b64decode(address.removeprefix("data:image/png;base64,"))
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(png):
        (size,), kind = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        content = png[at + 8 : at + 8 + size]
        (checksum,) = struct.unpack(">I", png[at + 8 + size : at + 12 + size])
        assert checksum == zlib.crc32(kind + content)
        chunks[kind], at = content, at + 12 + size
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, colour) == (4, 0)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), dtype=np.uint8)
    rows = rows.reshape(height, 1 + width // 2)
    assert set(rows[:, 0]) == {2}  # each row differs from the one above by what it holds
    packed = np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8)
    return np.stack([packed >> 4, packed & 15], axis=2).reshape(height, width)


def test_a_picture_is_the_digit_enlarged(pictures):
    (image, pixels) = next(iter(pictures.images.items()))
    levels = grey_levels(pictures.find_picture(attributes(image), NOON))
    assert levels.shape[0] == levels.shape[1] >= 160
    side = len(levels) // 12  # eight pixels and two of margin on each side
    small = 15 - levels.reshape(12, side, 12, side).mean(axis=(1, 3))[2:-2, 2:-2]
    assert np.corrcoef(small.ravel(), pixels.ravel())[0, 1] > 0.9
    assert (levels[:side] == 15).all()


def test_a_digit_that_is_no_letter_is_shown_as_it_is(pictures):
    image = next(iter(pictures.images))
    letter = pictures.find_picture(attributes(image), NOON)
    assert pictures.find_picture({"image": image}, NOON) == letter
    cleaner = load_digit_pictures(find_example("cleaner"))
    shown = cleaner.find_picture({"image": next(iter(cleaner.images))}, NOON)
    assert grey_levels(shown).min() < 4


def test_the_new_form_moves_the_digit_to_the_right(pictures):
    image = next(iter(pictures.images))
    old = grey_levels(pictures.find_picture(attributes(image), NOON))
    new = grey_levels(pictures.find_picture(attributes(image, form="new"), NOON))
    columns = np.arange(old.shape[1])
    centres = [((15 - it).sum(axis=0) * columns).sum() / (15 - it).sum() for it in (old, new)]
    assert centres[1] > centres[0] + 5


def test_a_worn_scanner_loses_ink_until_it_is_cleaned_on_monday(pictures):
    image = next(iter(pictures.images))
    clean = pictures.find_picture(attributes(image), NOON)
    worn = attributes(image, scanner="worn")
    assert pictures.find_picture(worn, MONDAY_NIGHT) == clean
    assert grey_levels(pictures.find_picture(worn, SATURDAY_NIGHT)).sum() > grey_levels(clean).sum()


def test_every_letter_has_a_picture(pictures):
    path = find_example(MAIL_ROOM).records_folder / "cases.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        shown = {row["image"] for row in csv.DictReader(lines)}
    assert shown == pictures.images.keys()
    assert all(
        len(pictures.find_picture(attributes(it), NOON)) < 1_500 for it in sorted(shown)[:50]
    )
