"""Digits, their scans, wrong labels, and what a classifier by nearest neighbours makes of them.

All arithmetic is on whole numbers, so every machine gives the same answers.
"""

import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

POOL: Final = 1200  # images that are annotated; the other 597 measure accuracy
COPIES: Final = 2  # scans of each image in a batch, one in each half
NOISE: Final = 3  # of 16 levels of ink that a scan may add or take
RANDOM_ERRORS: Final = {"batch-a": 0.18, "batch-b": 0.22, "batch-c": 0.03}
"""Share of labels that are another digit by chance."""
SYSTEMATIC: Final = ("batch-c", 9, 4, 0.7)
"""In this batch this digit is labelled as another one, in this share of its images."""
FOLDS: Final = 5  # each label is read by a model that never saw its image
NEIGHBOURS: Final = 7  # of the cleaning model: many, so that single wrong labels are outvoted
VOTES_TO_CORRECT: Final = 4  # of 7 for one other digit
RETRAINED_NEIGHBOURS: Final = (
    3  # of the classifier that is trained at the end: wrong labels hurt it
)

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DigitSet:
    """The images by number, with their digits, and which of them are annotated or held out."""

    pixels: Integers
    digits: Integers
    annotated: Integers
    held_out: Integers


@dataclass(frozen=True)
class AnnotatedBatch:
    """One batch: image numbers, halves (0, 1), scans, right digits, labels as annotated, votes."""

    images: Integers
    halves: Integers
    scans: Integers
    digits: Integers
    given: Integers
    votes: Integers

    @property
    def readings(self) -> Integers:
        """Return the digit with most votes for each label."""
        return self.votes.argmax(axis=1)

    @property
    def corrects(self) -> npt.NDArray[np.bool_]:
        """Return where the model corrects the label."""
        return (self.readings != self.given) & (self.votes.max(axis=1) >= VOTES_TO_CORRECT)


def open_stream(seed: int, purpose: str) -> np.random.RandomState:
    """Return the random numbers of one purpose; NumPy never changes what `RandomState` draws."""
    return np.random.RandomState([seed, zlib.crc32(purpose.encode())])


def load_digit_set(seed: int) -> DigitSet:
    """Return scikit-learn's 1,797 digits, split by chance."""
    bunch = load_digits()
    order = open_stream(seed, "split").permutation(len(bunch.target))
    return DigitSet(
        pixels=bunch.data.astype(np.int64),
        digits=bunch.target.astype(np.int64),
        annotated=order[:POOL],
        held_out=order[POOL:],
    )


def annotate_batch(digit_set: DigitSet, batch: str, seed: int) -> AnnotatedBatch:
    """Return a batch with its wrong labels, read by models of other images of the batch."""
    images = np.concatenate([digit_set.annotated] * COPIES)
    digits = digit_set.digits[images]
    scans = scan_images(digit_set.pixels[images], open_stream(seed, f"scans {batch}"))
    given = mislabel_digits(digits, batch, open_stream(seed, f"labels {batch}"))
    votes = np.zeros((len(images), 10), dtype=np.int64)
    for fold in range(FOLDS):
        inside = images % FOLDS == fold
        votes[inside] = count_votes(scans[~inside], given[~inside], scans[inside], NEIGHBOURS)
    halves = np.repeat(np.arange(COPIES), POOL)
    return AnnotatedBatch(images, halves, scans, digits, given, votes)


def scan_images(pixels: Integers, stream: np.random.RandomState) -> Integers:
    """Return scans: half of the images one column to the right, all with noise."""
    images = pixels.reshape(-1, 8, 8).copy()
    shifted = stream.randint(2, size=len(images)) == 1
    images[shifted, :, 1:], images[shifted, :, 0] = images[shifted, :, :-1], 0
    noise = stream.randint(-NOISE, NOISE + 1, size=pixels.shape)
    return np.clip(images.reshape(pixels.shape) + noise, 0, 16)


def mislabel_digits(digits: Integers, batch: str, stream: np.random.RandomState) -> Integers:
    """Return the labels as annotated."""
    luck, other = stream.random_sample((2, len(digits)))
    given = np.where(
        luck < RANDOM_ERRORS[batch], (digits + 1 + (other * 9).astype(np.int64)) % 10, digits
    )
    where, digit, label, share = SYSTEMATIC
    confused = (digits == digit) & (stream.random_sample(len(digits)) < share)
    return np.where(confused & (batch == where), label, given)


def count_votes(known: Integers, labels: Integers, scans: Integers, neighbours: int) -> Integers:
    """Return by scan and digit how many of the nearest known scans have that label."""
    distances = (known**2).sum(axis=1)[None, :] - 2 * scans @ known.T
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :neighbours]
    return np.stack([(labels[nearest] == digit).sum(axis=1) for digit in range(10)], axis=1)


def measure_accuracy(
    digit_set: DigitSet, batches: list[AnnotatedBatch], labels: Integers, seed: int
) -> float:
    """Return the accuracy on held-out images of a classifier that learned these labels."""
    scans = np.concatenate([batch.scans for batch in batches])
    images = digit_set.held_out
    tests = scan_images(digit_set.pixels[images], open_stream(seed, "held out"))
    votes = count_votes(scans, labels, tests, RETRAINED_NEIGHBOURS)
    return float((votes.argmax(axis=1) == digit_set.digits[images]).mean())
