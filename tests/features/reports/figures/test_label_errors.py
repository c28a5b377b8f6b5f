"""The cleaning list finds as many wrong labels as confident learning, at the same length."""

import numpy as np
import pytest

from benchmarks.cleaning import (
    DATA,
    compute_precision_recall,
    draw_person,
    find_confident_issues,
    list_label_errors,
    load_label_data,
    plant_errors,
)

pytestmark = [
    pytest.mark.simulation,
    pytest.mark.skipif(not DATA.exists(), reason=f"the records are not on this machine: {DATA}"),
]


@pytest.mark.parametrize("draw_labels", [plant_errors, draw_person])
def test_precision_and_recall_are_those_of_confident_learning(draw_labels):
    data, scores = load_label_data(cases=2500), []
    for seed in range(10):
        labels = draw_labels(data, seed)
        is_wrong = labels != data.truth
        theirs = find_confident_issues(data.probabilities, labels)
        listed = list_label_errors(data, labels)
        # Every case in which model and human differ is listed, also where the model is unsure.
        assert len(listed) == np.sum(data.probabilities.argmax(axis=1) != labels)
        scores.append(
            (
                compute_precision_recall(listed[: len(theirs)], is_wrong),
                compute_precision_recall(theirs, is_wrong),
            )
        )
    ours, others = np.mean(scores, axis=0)
    assert (ours >= others - 0.01).all()
    assert others.min() > 0.5
