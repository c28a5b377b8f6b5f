"""A filled database is copied only if filling it again would give the same."""

from contextlib import ExitStack, closing
from datetime import timedelta

import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from tests.data.databases import ENGINES, fresh
from tests.data.snapshots import filled_once
from tests.factories import NOON

runs = []


SALT = "s"


@filled_once
def founded(database, name, at=NOON):
    runs.append(name)
    with database.begin_write() as transaction:
        return Rollouts(transaction).create(name, salt=32 * SALT.encode(), at=at)


@pytest.fixture(autouse=True)
def _none_ran():
    runs.clear()


@pytest.fixture
def give(tmp_path, engine):
    """Return a function that gives one more fresh database."""
    with ExitStack() as opened:

        def given():
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            folder.mkdir()
            url = opened.enter_context(fresh(engine, folder))
            return opened.enter_context(closing(Database(url)))

        yield given


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


def names(database):
    with database.begin_read() as transaction:
        return [found.name for found in Rollouts(transaction).list_all()]


def test_the_second_database_is_a_copy_with_what_was_returned(give):
    first = give()
    returned, second = founded(first, "copied"), give()
    assert founded(second, "copied") == returned
    assert runs == ["copied"]
    assert names(first) == names(second) == ["copied"]


def test_fillings_are_copied_one_after_the_other(give):
    for _ in range(3):
        database = give()
        founded(database, "one")
        founded(database, "two")
        assert sorted(names(database)) == ["one", "two"]
    assert runs == ["one", "two"]


def test_an_open_database_reads_what_was_copied_into_it_and_writes_on(give):
    founded(give(), "open")
    database = give()
    assert names(database) == []
    founded(database, "open")
    assert names(database) == ["open"]
    with database.begin_write() as transaction:
        Rollouts(transaction).create("later", salt=bytes(32), at=NOON)
    assert sorted(names(database)) == ["later", "open"]


def test_other_arguments_are_run(give):
    founded(give(), "at")
    founded(give(), "at", at=NOON + timedelta(days=1))
    assert runs == ["at", "at"]


def test_where_a_text_beside_the_function_was_patched_it_runs(give, monkeypatch):
    founded(give(), "patched")
    monkeypatch.setitem(globals(), "SALT", "t")
    founded(give(), "patched")
    monkeypatch.undo()
    founded(give(), "patched")
    assert runs == ["patched", "patched"]


def test_after_any_other_writing_the_function_runs(give):
    founded(give(), "after")
    database = give()
    with database.begin_write() as transaction:
        Rollouts(transaction).create("before", salt=bytes(32), at=NOON)
    founded(database, "after")
    assert runs == ["after", "after"]
    assert sorted(names(database)) == ["after", "before"]


def test_numbers_go_on_where_those_of_the_copied_rows_end(give):
    first = give()
    numbers = [founded(first, "numbered").number]
    with first.begin_write() as transaction:
        numbers.append(Rollouts(transaction).create("next", salt=bytes(32), at=NOON).number)
    second = give()
    founded(second, "numbered")
    with second.begin_write() as transaction:
        assert Rollouts(transaction).create("next", salt=bytes(32), at=NOON).number == numbers[1]


def test_a_database_that_is_given_back_is_empty_and_known_to_be(engine, tmp_path):
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        with fresh(engine, folder) as url, closing(Database(url)) as database:
            assert names(database) == []
            founded(database, "returned")
            with database.begin_write() as transaction:
                Rollouts(transaction).create("more", salt=bytes(32), at=NOON)
    assert runs == ["returned"]
