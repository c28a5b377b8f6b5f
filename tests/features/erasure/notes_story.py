"""What becomes of the rows of a further table about cases, as JSON: `python notes_story.py`."""

import json
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from sqlalchemy import BigInteger, Table, delete, insert, select

from rollout.data.tables.record_tables import (
    id_column,
    metadata,
    optional_column,
    required_column,
    rollout_column,
)

NOTES = Table(  # before what reads which tables there are
    "case_notes",
    metadata,
    id_column(),
    rollout_column(),
    required_column("case_id", BigInteger),
    optional_column("note"),
)


def main():
    from rollout.data.counting.purge import purge_records  # noqa: PLC0415 - after the table
    from rollout.data.database.rollouts import Rollouts  # noqa: PLC0415
    from rollout.data.database.session import Database  # noqa: PLC0415
    from rollout.data.records.external_keys import ExternalKeys  # noqa: PLC0415
    from rollout.data.tables.tables import count_queue, recent_arrivals  # noqa: PLC0415
    from tests.data.databases import close_templates, fresh  # noqa: PLC0415
    from tests.factories import DAY, NOON  # noqa: PLC0415
    from tests.features.erasure import test_case_erasure as town  # noqa: PLC0415

    def read_notes():
        with database.begin_read() as transaction:
            return sorted(transaction.execute(select(NOTES.c.note)).scalars())

    with (
        tempfile.TemporaryDirectory() as folder,
        fresh("sqlite", Path(folder), reused=False) as url,
        closing(Database(url)) as database,
    ):
        town.apply_policy(database, town.POLICY, town.Actor("ada"), NOON)
        keys = ("heron", "kestrel", "teal")
        town.store(database, [record for key in keys for record in town.build_records(key)])
        with database.begin_write() as transaction:
            rollout = Rollouts(transaction).find("ramps")
            ids = ExternalKeys(transaction, rollout).find_ids(keys)
            rows = [
                {"id": n, "rollout": rollout.number, "case_id": ids[key], "note": key}
                for n, key in enumerate(keys)
            ]
            transaction.execute(insert(NOTES), rows)
        town.erase_case(database, town.REQUEST, "kestrel")
        after_erasure = read_notes()
        with database.begin_write() as transaction:
            for table in (count_queue, recent_arrivals):
                transaction.execute(delete(table))
            purge_records(
                transaction, rollout, before=NOON + DAY, case_ids=[ids["teal"]], revision=9
            )
        json.dump({"erased": after_erasure, "purged": read_notes()}, sys.stdout)
    close_templates()


if __name__ == "__main__":
    main()
