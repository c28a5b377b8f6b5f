"""What a file says of a record is stored, also in columns to come."""

import pytest

from rollout.engine.evidence.frames import (
    VALUE_PREFIX,
    build_cases_schema,
    build_decisions_schema,
    build_predictions_schema,
)
from rollout.features.records import record_import

NOT_STORED = {
    "case": {
        *("occurred_text", "hour_written"),  # the time as written
        *("received_at", "known_at", "draws"),  # the receipt is the import's; it draws no sample
    },
    "prediction": {"received_at", "known_at"},
    "decision": {"source", "received_at"},  # an import is a source of its own
}
ALSO = {"case": {"window": "day", "unit": "k"}, "prediction": {"sampled_arm": None}}
"""Columns that the import adds to a row of its file."""


class ReadRow(dict):
    """A row that knows which of its columns were read."""

    def __init__(self, *parts):
        super().__init__(*parts)
        self.names = set()

    def __getitem__(self, name):
        self.names.add(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        self.names.add(name)
        return super().get(name, default)


@pytest.mark.parametrize(
    ("kind", "columns", "build"),
    [
        ("case", build_cases_schema(()), record_import._build_case),
        ("prediction", build_predictions_schema(("alarm",)), record_import._build_prediction),
        (
            "decision",
            build_decisions_schema(("alarm",)),
            lambda row: record_import._build_decision(row, None),
        ),
    ],
)
def test_an_import_reads_each_column_of_a_record_or_leaves_it_for_a_reason(kind, columns, build):
    row = ReadRow(dict.fromkeys(columns, "x") | ALSO.get(kind, {}))
    build(row)
    unread = {name for name in columns if not name.startswith(VALUE_PREFIX)} - row.names
    assert unread == NOT_STORED[kind], "an import would lose what files say in it"
