"""A real classifier of boards, its training labels, and what cleaning them changes.

v1 learns from labels as taggers gave them in a hurry. For v2 the labels that a cross-validated
classifier finds least likely are looked at again, and the same classifier learns from the result.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from boards import EMPTY, KINDS, LISTED, Integers, open_stream, photograph
from sklearn.ensemble import ExtraTreesClassifier  # type: ignore[import-untyped]
from sklearn.model_selection import cross_val_predict  # type: ignore[import-untyped]

TRAINED: Final = 2600  # boards with a label
EMPTY_SHARE: Final = 0.4
# Errors of the first labels: a logo behind a player overlooked, two logos taken for each other, and
# a wrong button. What a tagger confuses is what a classifier then learns to confuse.
OVERLOOKED: Final = 0.55  # of covered logos
CONFUSED: Final = {"cobalt": "granite", "acorn": "ember", "harbor": "acorn"}
CONFUSED_SHARE: Final = 0.36
WRONG_BUTTON: Final = 0.04
LOOKED_AT_AGAIN: Final = 800  # the least likely labels
STILL_WRONG: Final = 0.03  # of those that were wrong, after a second look
TREES: Final = 60


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Boards with the labels that were given, and the true ones, which no model sees."""

    pixels: Integers
    truth: Integers
    labels: Integers


@dataclass(frozen=True, slots=True)
class TrainedVersions:
    """Classifiers by version, and how many of their training labels were wrong."""

    models: dict[str, Any]
    wrong_labels: dict[str, int]


@dataclass(frozen=True, slots=True)
class BoardReading:
    """What a version answers to boards: positions in KINDS, and hundredths of confidence."""

    kinds: Integers
    hundredths: Integers


def make_training_set(seed: int) -> TrainingSet:
    """Return photographed boards with hasty labels."""
    luck = open_stream(seed, "training")
    shares = [(1 - EMPTY_SHARE) / len(LISTED)] * len(LISTED) + [EMPTY_SHARE]
    truth = luck.choice(len(shares), TRAINED, p=shares).astype(np.int64)
    pixels, is_hidden = photograph(truth, luck)
    labels = truth.copy()
    for kind, other in CONFUSED.items():
        is_confused = (truth == KINDS.index(kind)) & (luck.random_sample(TRAINED) < CONFUSED_SHARE)
        labels[is_confused] = KINDS.index(other)
    is_overlooked = (is_hidden == 1) & (luck.random_sample(TRAINED) < OVERLOOKED)
    labels[is_overlooked] = KINDS.index(EMPTY)
    is_slip = luck.random_sample(TRAINED) < WRONG_BUTTON
    labels[is_slip] = luck.randint(0, len(LISTED), int(is_slip.sum()))
    return TrainingSet(pixels, truth, labels)


def build_classifier(seed: int) -> Any:
    """Return an untrained classifier; trees over integers are the same on any machine."""
    return ExtraTreesClassifier(TREES, min_samples_leaf=2, random_state=seed, n_jobs=1)


def clean_labels(training: TrainingSet, seed: int) -> Integers:
    """Return the labels after a second look at those with the largest loss."""
    votes = cross_val_predict(
        build_classifier(seed), training.pixels, training.labels, cv=3, method="predict_proba"
    )
    classes = np.unique(training.labels)
    likely = votes[np.arange(TRAINED), np.searchsorted(classes, training.labels)]
    listed = np.argsort(np.rint(likely * 10_000), kind="stable")[:LOOKED_AT_AGAIN]
    is_seen = open_stream(seed, "second look").random_sample(LOOKED_AT_AGAIN) >= STILL_WRONG
    labels = training.labels.copy()
    labels[listed[is_seen]] = training.truth[listed[is_seen]]
    return labels


def train_versions(seed: int) -> TrainedVersions:
    """Return v1, trained on the first labels, and v2, trained on the cleaned ones."""
    training = make_training_set(seed)
    cleaned = clean_labels(training, seed)
    models = {
        "v1": build_classifier(seed).fit(training.pixels, training.labels),
        "v2": build_classifier(seed).fit(training.pixels, cleaned),
    }
    labels = {"v1": training.labels, "v2": cleaned}
    wrong = {version: int((own != training.truth).sum()) for version, own in labels.items()}
    return TrainedVersions(models, wrong)


def read_boards(model: Any, pixels: Integers) -> BoardReading:
    """Return the likeliest kind of each board."""
    votes: npt.NDArray[np.float64] = np.rint(model.predict_proba(pixels) * 100)
    kinds = np.asarray(model.classes_, dtype=np.int64)[votes.argmax(axis=1)]
    return BoardReading(kinds, votes.max(axis=1).astype(np.int64))
