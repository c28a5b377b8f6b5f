"""Guards use what counting has read of the cases that arrived: a tick reads no record twice."""

import pytest

from rollout import faults
from rollout.live.evidence.due_counting import PageSize
from rollout.live.tick_passes import Ticker
from tests.factories import HOUR, MINUTE
from tests.live.guarded_shop import BY_EPISODE, SITES, Shop, list_all, note_loaded

pytestmark = pytest.mark.slow

LONG_AGO = 2 * HOUR  # so that a case is due when it arrives


@pytest.fixture
def shop(database):
    shop = Shop(database)
    shop.ticker = Ticker(database, "shop", "one")
    send_cases(shop, 3)
    shop.tick(shop.ticker)
    return shop


def send_cases(shop, count, ago=LONG_AGO):
    return [send_case(shop, number, ago) for number in range(count)]


def send_case(shop, number, ago=LONG_AGO):
    key = shop.send_case(site=SITES[number % 3], ago=ago + number * MINUTE)
    shop.predict(key, answer=None if number % 2 else "low", latency=1500 * number)
    return key


def assert_observed(shop):
    """See that the ticker's guards observe what all records say."""
    state = shop.load_state()
    observed = list_all(shop.ticker._evidence.feeds, state)
    assert observed == list_all(shop.begin(reads_all=True), state)
    return observed


def test_due_cases_that_arrived_are_read_once(shop, monkeypatch):
    batches, before = note_loaded(monkeypatch), assert_observed(shop)
    batches.clear()
    send_cases(shop, 6)
    shop.tick(shop.ticker)
    assert batches == []
    assert assert_observed(shop) != before


def test_cases_that_are_not_due_are_read_by_guards(shop, monkeypatch):
    batches = note_loaded(monkeypatch)
    send_cases(shop, 4)
    send_cases(shop, 2, ago=-MINUTE)
    shop.tick(shop.ticker)
    assert batches == [2]
    assert_observed(shop)


def test_a_page_with_cases_of_before_adds_the_new_ones_alone(shop, monkeypatch):
    early = send_cases(shop, 3, ago=0 * HOUR)  # due when their grace has passed
    shop.tick(shop.ticker)
    batches = note_loaded(monkeypatch)
    send_cases(shop, 4)
    shop.tick(shop.ticker)
    assert batches == []
    assert_observed(shop)
    shop.harm(early[0])
    shop.tick(shop.ticker)
    assert_observed(shop)


def test_a_case_that_arrives_again_while_it_is_counted_is_read_again(shop, monkeypatch):
    batches = note_loaded(monkeypatch)
    key, *_ = send_cases(shop, 3)
    with faults.install_action(lambda *_: shop.harm(key), "tick.read"):
        shop.tick(shop.ticker)
    assert batches == [1]
    assert_observed(shop)


def test_pages_after_the_first_need_no_second_reading(shop, monkeypatch):
    batches = note_loaded(monkeypatch)
    shop.ticker._page_size = PageSize(entries=2, cases=1)
    send_cases(shop, 7)
    shop.tick(shop.ticker)
    assert batches == []
    assert_observed(shop)


def test_where_an_episode_decides_whose_harm_counts_guards_read_all_of_it(database, monkeypatch):
    shop = Shop(database, BY_EPISODE)
    shop.ticker = Ticker(database, "shop", "one")
    send_cases(shop, 3)
    shop.tick(shop.ticker)
    batches = note_loaded(monkeypatch)
    send_cases(shop, 3)
    shop.tick(shop.ticker)
    assert sum(batches) >= 3
    assert_observed(shop)
