"""Real handwritten digits, what scanners make of them, and two real classifiers that read them.

The 1,797 images of 8 x 8 pixels come with scikit-learn. Pixels stay integers from 0, paper, to 16,
ink, all the way, so that the same seed gives the same bytes on any machine.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from chance import stream
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.svm import SVC  # type: ignore[import-untyped]

Integers = npt.NDArray[np.int64]

SIDE: Final = 8
FULL_INK: Final = 16
TRAINED: Final = 800
NEW_FORM_SET: Final = 300
WORN_COLUMN: Final = 5
BLOCK: Final = 4000


@dataclass(frozen=True, slots=True)
class Digits:
    """The digit set, cut once by image, so that no image is both learnt from and scanned.

    `pixels` has shape (images, 64), `labels` the digit of each; the other three hold image
    numbers: learnt by v1, learnt by v2 beside those, and left for letters.
    """

    pixels: Integers
    labels: Integers
    trained: Integers
    new_form_set: Integers
    pool: Integers

    def pool_of(self, digit: int) -> Integers:
        """Image numbers of the pool that show `digit`."""
        shown: Integers = self.pool[self.labels[self.pool] == digit]
        return shown


@dataclass(frozen=True, slots=True)
class Reading:
    """What one version reads in many letters: a digit and how sure it is, in hundredths."""

    digits: Integers
    hundredths: Integers


def load(seed: int) -> Digits:
    """Load the bundled images and cut them by one shuffle."""
    bundled = load_digits()
    pixels = bundled.data.astype(np.int64)
    order = stream(seed, "split").permutation(len(pixels)).astype(np.int64)
    trained, new_form_set, pool = np.split(order, [TRAINED, TRAINED + NEW_FORM_SET])
    return Digits(pixels, bundled.target.astype(np.int64), trained, new_form_set, pool)


def moved_right(pixels: Integers) -> Integers:
    """Print the digit one column further right, as the new form does; the last column is lost.

    >>> moved_right(np.arange(64).reshape(1, 64))[0, :9].tolist()
    [0, 0, 1, 2, 3, 4, 5, 6, 0]
    """
    wide = np.pad(pixels.reshape(-1, SIDE, SIDE), ((0, 0), (0, 0), (1, 0)))
    return wide[:, :, :SIDE].reshape(-1, SIDE * SIDE)


def scan(pixels: Integers, wear: int, luck: np.random.RandomState) -> Integers:
    """Scan images, shape (images, 64), with a scanner worn by `wear` per cent.

    A clean one varies in contrast and adds a little noise; wear makes ink fainter, adds more
    noise and blinds one column.
    """
    shape = (len(pixels), 1)
    contrast = luck.randint(85, 111, size=shape, dtype=np.int64) - round(30 * wear / 100)
    speckle = max(1, round(3 * wear / 100))
    noise = luck.randint(-speckle, speckle + 1, size=pixels.shape, dtype=np.int64)
    seen: Integers = np.clip(pixels * contrast // 100 + noise, 0, FULL_INK)
    seen[:, WORN_COLUMN::SIDE] = seen[:, WORN_COLUMN::SIDE] * (100 - wear) // 100
    return seen


def scan_letters(
    digits: Digits, images: Integers, wear: Integers, new_form: npt.NDArray[np.bool_], seed: int
) -> Integers:
    """Scan each letter's image once, on its form and by a scanner as worn as it was then."""
    flat = digits.pixels[images]
    flat[new_form] = moved_right(flat[new_form])
    seen = np.zeros_like(flat)
    luck = stream(seed, "scans")
    for level in np.unique(wear).tolist():
        here = wear == level
        seen[here] = scan(flat[here], level, luck)
    return seen


def train(digits: Digits, seed: int) -> dict[str, Any]:
    """Train v1 on clean scans of the old form, and v2 also on the new form."""
    luck = stream(seed, "training")
    both = np.concatenate([digits.trained, digits.new_form_set])
    old = _scans(digits.pixels, digits.trained, 3, luck)
    more = _scans(digits.pixels, digits.new_form_set, 2, luck)
    new = _scans(moved_right(digits.pixels), both, 2, luck)
    old_labels = np.tile(digits.labels[digits.trained], 3)
    more_labels = np.tile(digits.labels[digits.new_form_set], 2)
    all_labels = np.concatenate([old_labels, more_labels, np.tile(digits.labels[both], 2)])
    return {
        "v1": _machine().fit(old, old_labels),
        "v2": _machine().fit(np.concatenate([old, more, new]), all_labels),
    }


def read(version: Any, scans: Integers) -> Reading:
    """Let one trained version read scans, in blocks so that memory stays small.

    How sure it is, is the softmax of twice its decision values, rounded to hundredths.
    """
    blocks = [version.decision_function(scans[i : i + BLOCK]) for i in range(0, len(scans), BLOCK)]
    values = 2 * np.concatenate(blocks)
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    sure = weights.max(axis=1) / weights.sum(axis=1)
    return Reading(values.argmax(axis=1).astype(np.int64), np.rint(100 * sure).astype(np.int64))


def _scans(pixels: Integers, images: Integers, times: int, luck: np.random.RandomState) -> Integers:
    return np.concatenate([scan(pixels[images], 0, luck) for _ in range(times)])


def _machine() -> Any:
    return SVC(gamma=0.001, C=10)
