"""What `live_outage` counts: answers that are too wide, stops, and records that are missing."""

from tests.faults.live_outage import (
    TimedAnswer,
    compare_records,
    count_models,
    list_stopped,
    prepare_field,
)


def test_an_answer_is_too_wide_from_its_instant_on_at_its_site():
    answers = [
        TimedAnswer("creek", 1.0, 1.1, "model"),
        TimedAnswer("creek", 3.0, 3.1, "human"),
        TimedAnswer("lake", 4.0, 4.1, "model"),
        TimedAnswer("creek", 5.0, 5.1, "model"),
        TimedAnswer("creek", 5.5, 5.6, ""),
    ]
    assert count_models(answers, 2.0, site="creek") == 1
    assert count_models(answers, 5.2, site="creek") == 0
    assert count_models(answers, 2.0) == 2
    assert count_models(answers, 2.0, until=4.5) == 1


def test_what_was_acknowledged_and_is_not_stored_is_lost(tmp_path):
    url = f"sqlite:///{tmp_path / 'rollout.db'}"
    prepare_field(url)
    assert compare_records(url, []) == (0, 0)
    assert compare_records(url, ["case-1"]) == (2, 0)  # the case and its prediction
    assert list_stopped(url) == []
