"""Erasures and exports miss no table: rows go with their case, and each text says what it is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Text

from rollout.data.erasure.contents import BATCHED_COLUMNS, SMALL_COLUMNS, TEXT_COLUMNS
from rollout.data.erasure.user_data import NAMED_COLUMNS
from rollout.data.tables.record_tables import JsonType
from rollout.data.tables.tables import counted_units, metadata

ROOT = Path(__file__).parents[3]
NAMELESS = """
actions: action authorization by lever permit_kind sender version
api_keys: prefix second_factor
baselines: action lever site window
cases: attributes draws media sender site window
cleanings: choice label lever report version
count_classes: decided lever predicted second
count_queue: track
count_series: definition site track version window
counted_outcomes: definition drawn outcome site source_fault sources version window
counted_records: kind
counted_units: attribute_values class_ids exclusion_reason slices track version
credential_resets: credential
decisions: answers basis claimed_exposure exposure sender source
deliveries: channel error reason state
exposures: content page
external_keys: key kind
heartbeats: site
incidents: guard incident kind site version window
ledger: actor body hash kind previous
ledger_heads: hash
ledger_texts: field
notifications: about channel error kind rollout state
outcomes: answers harm outcome_values sender source source_kind
policies: hash text
predictions: answers decider error exposure probabilities sender version
proposals: evidence_hash kind proposal site state to_stage version window
rejected_records: kind reason
replica_heartbeats: owner program
report_runs: owner report_name
reports: hash name schema state view
reviews: gold_answers kind site state version
role_assignments: group role site
rollouts: name
schema_revisions: oldest_program revision
sessions: second_factor
tick_slots: owner
top_losses: version
unopened_incidents: kind site window
version_uses: site version window
versions: details source version
"""
"""Texts that name nobody: words of ours or the policy, ids, and content that goes with a case."""
OTHERWISE = """
account_names: account name
cleanings: reason
damages: reason rollout
deliveries: intro subject
idempotency_keys: key principal response_body
identities: issuer subject
ledger_texts: text
notification_channels: address channel code kinds
notification_settings: quiet_from quiet_until timezone
pending_stops: actor cells id reason rollout
rejected_records: body key
report_requests: principal
reports: body divergences
reviews: gold_decision
scopes: body
users: email name password
"""
"""Texts that may name somebody, in which an erasure looks in a way of its own."""


def list_texts(lines):
    """Return the columns of lines of a table each, as `table.column`."""
    tables = (line.split(": ") for line in lines.strip().splitlines())
    return [f"{table}.{name}" for table, names in tables for name in names.split()]


def test_each_text_of_each_table_says_whether_it_may_name_somebody():
    erased = map(str, {*BATCHED_COLUMNS, *SMALL_COLUMNS, *TEXT_COLUMNS})
    listed = sorted([*erased, *list_texts(NAMELESS), *list_texts(OTHERWISE)])
    texts = {
        str(column)
        for table in metadata.sorted_tables
        for column in table.c
        if isinstance(column.type, Text | JsonType)
    }
    assert listed == sorted(texts), (
        "a name belongs into SMALL_COLUMNS or BATCHED_COLUMNS (contents.py) and NAMED_COLUMNS"
        " (user_data.py), a text in which somebody may be named into an erasure; then list it here"
    )


def test_each_name_that_an_erasure_replaces_is_exported():
    erased = {*BATCHED_COLUMNS, *SMALL_COLUMNS}
    exported = {column for column, _ in NAMED_COLUMNS}
    assert erased ^ exported == {counted_units.c.reviewer}  # would tell decisions on gold cases


@pytest.mark.slow
def test_rows_of_a_further_table_go_with_their_case():
    story = Path(__file__).with_name("notes_story.py")
    ran = subprocess.run(
        [sys.executable, story], cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {"erased": ["heron", "teal"], "purged": ["heron"]}
