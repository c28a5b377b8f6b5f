"""Keys are found by number with one search each, however many there are."""

from rollout.data.records.external_keys import ExternalKeys, _build_keys_query
from tests.data.databases import on_sqlite
from tests.data.new_rollouts import created
from tests.data.plans import steps_of


def test_numbers_have_the_keys_that_they_were_given_for(database):
    rollout, other = created(database), created(database)
    with database.begin_write() as transaction:
        store = ExternalKeys(transaction, rollout)
        numbers = store.assign_ids(["a", "b"]).by_key
        theirs = ExternalKeys(transaction, other).assign_ids(["c"]).by_key
        found = store.find_keys({*numbers.values(), *theirs.values(), 999})
    assert found == {number: key for key, number in numbers.items()}


@on_sqlite
def test_no_other_keys_are_read_for_it(database):
    query = _build_keys_query("sqlite")
    with database.begin_read() as transaction:
        assert steps_of(transaction, query)[0] == (
            "SEARCH external_keys USING INTEGER PRIMARY KEY (rowid=?)"
        )
