"""The keys of some numbers are looked up one by one, however many there are."""

from rollout.store.records.external_keys import CallerKeys
from tests.store.databases import on_sqlite
from tests.store.new_rollouts import created
from tests.store.plans import steps


def test_numbers_have_the_keys_that_they_were_given_for(database):
    rollout, other = created(database), created(database)
    with database.writing() as transaction:
        store = CallerKeys(transaction, rollout)
        numbers = store.number(["a", "b"]).of
        theirs = CallerKeys(transaction, other).number(["c"]).of
        found = store.keys_of({*numbers.values(), *theirs.values(), 999})
    assert found == {number: key for key, number in numbers.items()}


@on_sqlite
def test_no_other_keys_are_read_for_it(database):
    rollout = created(database)
    with database.reading() as transaction:
        store = CallerKeys(transaction, rollout)
        first = steps(transaction, lambda: store.keys_of({1, 2}))[0]
    assert first == "SEARCH external_keys USING INTEGER PRIMARY KEY (rowid=?)"
