"""The names in rows: once written they stand for ever, so a change of one is seen here."""

from dataclasses import fields

from rollout.engine.events import ACCOUNT, FREE_TEXT, OMITTED_WHEN_EMPTY
from rollout.engine.ledger.ledger import ALL_EVENT_TYPES, COLUMNS, DOMAIN, EVENT_HINTS, ROW_FIELDS

NOT_TYPED = """
about attributes cause changed confidence_floor confidence_floors content continues
credential credentials digest digests effect episode evidence_hash fact file_digest files
from_stage gate_hash group groups guard holds holidays incident incidents issuer keys kind
link name_hash needs policy_hash prefix program proposal pseudonym public_key records_digest
replaced_version report risk_weight role rollout salt_hash service_salt_hash sha256 shares
site stage stages state statuses stop stricter_floors tables time_zones to_stage values
version versions
"""
"""Texts that a row may show for ever: ids, hashes, words of ours or of the policy."""


def _keys(kind):
    """Yield the keys of a kind's body, as they are hashed."""
    for field in fields(kind):
        if field.name in ROW_FIELDS:
            continue
        names = ("site", "window") if field.name == "cell" else (field.name,)
        for name in names:
            hashed = f"{name}_hash" if FREE_TEXT in field.metadata else name
            marks = [
                mark for mark in (OMITTED_WHEN_EMPTY, FREE_TEXT, ACCOUNT) if mark in field.metadata
            ]
            yield " ".join([hashed, *(f"({mark})" for mark in marks)])


def test_the_kinds_and_keys_of_rows(snapshot):
    assert {name: sorted(_keys(kind)) for name, kind in sorted(ALL_EVENT_TYPES.items())} == snapshot


def test_the_columns_and_the_domain_of_rows(snapshot):
    assert snapshot == (DOMAIN, COLUMNS)


def test_each_text_of_a_row_is_marked_or_names_nobody():
    texts = {
        field.name
        for name, kind in ALL_EVENT_TYPES.items()
        for field in fields(kind)
        if EVENT_HINTS[name][field.name] in {str, str | None, tuple[str, ...]}
        and field.name not in ROW_FIELDS
        and not {FREE_TEXT, ACCOUNT} & field.metadata.keys()
    }
    assert sorted(texts) == NOT_TYPED.split(), (
        "what somebody types, or a case's key, is marked with FREE_TEXT, an account with ACCOUNT:"
        " no erasure reaches it otherwise; list here what is neither"
    )
