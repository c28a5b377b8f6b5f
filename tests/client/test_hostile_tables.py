"""A malformed answer of the service is refused as it is read; no case makes `decide` fail."""

import json
import threading
from copy import deepcopy
from datetime import datetime
from pathlib import Path

import pytest

from rollout_client.client import EdgeClient, LedgerRolledBackError
from rollout_client.local_scope import InvalidSnapshotError, UnknownFormError, parse_snapshot
from rollout_client.seen_heads import FileHeadStore, LedgerHead
from tests.client.edge_clients import (
    AFTER,
    BEFORE,
    MINUTE,
    OPEN,
    MovableClocks,
    ask,
    build_scope_body,
    create_client,
)
from tests.client.local_answers import SALT, build_body
from tests.factories import HOUR, NOON

NASTY = (
    None,
    True,
    -1,
    -0.5,
    float("nan"),
    float("inf"),
    1e300,
    10**400,
    "",
    "0.5",
    "x",
    [],
    [[]],
    ["x"],
    {},
    {"x": 1},
)


def list_places(value, path=()):
    """Yield the path to each part of a JSON value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for name, part in parts:
        yield (*path, name)
        if isinstance(part, dict | list):
            yield from list_places(part, (*path, name))


def spoil(body, path, value):
    spoilt = deepcopy(body)
    part = spoilt
    for name in path[:-1]:
        part = part[name]
    if value is ...:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return spoilt


QUESTIONS = [("creek", "v1", 0.97), ("lake", "v1", None), ("creek", "v2", 0.5)]


@pytest.mark.slow
def test_each_part_that_is_spoilt_is_refused_or_leaves_answers():
    read = 0
    for path in list_places(BEFORE):
        for value in (*NASTY, ...):
            body = spoil(BEFORE, path, value)
            clocks = MovableClocks()
            client = EdgeClient("creek", lambda _, body=body: body, clocks)
            try:
                client.renew()
            except (InvalidSnapshotError, UnknownFormError):
                assert ask(client).decider == "human"
                continue
            read += 1
            for site, version, confidence in QUESTIONS:
                answer = client.decide(
                    site, clocks.wall, version, "k9", "", confidence, {"w": "dry"}
                )
                assert not answer.reason.startswith("the case can't be read"), (path, value)
            clocks.move(3600 * 24)
            assert ask(client, at=clocks.wall).decider == "human"
    assert read > 0


TABLE = BEFORE["table"]
ASKING = TABLE["windows"][0]
SITE = next(site for site in TABLE["sites"] if site["site"] == "creek")
ACTING = next(
    (n, m)
    for n, cell in enumerate(SITE["cells"])
    for m, span in enumerate(cell["spans"])
    if span[1] is not None
)


def change_span(end):
    place = TABLE["sites"].index(SITE)
    path = ("table", "sites", place, "cells", ACTING[0], "spans", ACTING[1], 3)
    return spoil(BEFORE, path, end)


@pytest.mark.parametrize(
    "body",
    [
        change_span(-5.0),
        BEFORE | {"issued_at": "9999-12-31T23:59:59+00:00"},
        BEFORE | {"issued_at": "0001-01-01T00:00:00+14:00"},
        BEFORE | {"revision": float("inf")},
        BEFORE | {"revision": True},
        BEFORE | {"revision": 10**30},
        BEFORE | {"hash": None},
        BEFORE | {"sites": [*BEFORE["sites"], BEFORE["sites"][0] | {"lease": 9e6}]},
        BEFORE | {"sites": [BEFORE["sites"][0] | {"lease": True}]},
        BEFORE | {"table": TABLE | {"sites": [*TABLE["sites"], SITE]}},
        BEFORE | {"table": TABLE | {"windows": [TABLE["windows"][0]] * len(TABLE["windows"])}},
        BEFORE | {"table": TABLE | {"edges": ["0.5"]}},
        BEFORE | {"table": TABLE | {"episode_span": 0.0, "unit": "episode"}},
        BEFORE | {"table": TABLE | {"familiar": [{"names": ["w"], "cuts": ["1"]}]}},
        BEFORE | {"table": TABLE | {"familiar": [{"names": "w", "cuts": []}]}},
        BEFORE
        | {"table": TABLE | {"windows": [w | {"when": {"w": "dry"}} for w in TABLE["windows"]]}},
    ],
)
def test_what_would_break_an_answer_or_widen_it_is_refused(body):
    with pytest.raises(InvalidSnapshotError):
        parse_snapshot(body)


@pytest.mark.parametrize("form", [True, 1.0])
def test_a_form_is_a_whole_number(form):
    with pytest.raises(UnknownFormError):
        parse_snapshot(BEFORE | {"table": TABLE | {"form": form}})


@pytest.mark.parametrize(
    ("changes"),
    [
        {"key": "picture-\udce9.jpg"},  # a file's name as Python reads it
        {"key": 7},
        {"site": ["creek"]},
        {"at": 1_811_851_200.0},
        {"at": "2027-06-01T12:00:00+00:00"},
        {"confidence": "0.9"},
        {"attributes": {"w": 5}},
        {"attributes": "dry"},
    ],
    ids=str,
)
def test_a_case_that_cant_be_read_is_left_to_a_human(changes):
    body = build_body(OPEN.policy, OPEN.scope, OPEN.at, {"creek": MINUTE}, salt=SALT)
    windows = [row | {"when": {"w": ["dry"]}} for row in body["table"]["windows"]]
    body["table"] |= {"windows": windows}
    for cell in (cell for site in body["table"]["sites"] for cell in site["cells"]):
        cell["spans"] = [(since, stage, 0.5, end) for since, stage, _, end in cell["spans"]]
    client = EdgeClient("creek", lambda _: body, MovableClocks())
    client.renew()
    case = {"site": "creek", "at": NOON + HOUR, "version": "v1", "key": "k9", "confidence": 0.9}
    case |= {"attributes": {"w": "dry"}}
    assert client.decide(**case).decider == "model"
    for _ in range(2):
        assert client.decide(**case | changes).decider == "human"


def test_site_names_are_compared_letter_by_letter():
    client = create_client(BEFORE)
    client.renew()
    for site in ("Creek", "creek ", "cre\u0301ek", "\uff43reek"):
        assert ask(client, site=site).decider == "human"


def test_two_sites_may_differ_in_case_only():
    text = json.dumps(BEFORE).replace('"lake"', '"Creek"')
    client = create_client(json.loads(text) | {"sites": [BEFORE["sites"][0]]})
    client.renew()
    assert [ask(client, site=site).decider for site in ("creek", "Creek")] == ["model", "human"]


def test_a_slower_renewal_in_another_thread_does_not_bring_back_an_older_head(tmp_path):
    heads = FileHeadStore(tmp_path / "deep" / "head.json")
    client = create_client(head_store=heads)
    slow_may_go, slow_asked = threading.Event(), threading.Event()

    def fetch_slowly(_):
        slow_asked.set()
        assert slow_may_go.wait(10)
        return BEFORE

    client.fetch_scope = fetch_slowly
    slow = threading.Thread(target=client.renew)
    slow.start()
    assert slow_asked.wait(10)
    client.fetch_scope = lambda _: AFTER
    client.renew()
    slow_may_go.set()
    slow.join()
    assert heads.load().revision == AFTER["revision"]
    assert ask(client).decider == "human"


def test_a_head_that_cant_be_stored_still_ends_the_former_table(tmp_path, monkeypatch):
    client = create_client(BEFORE, AFTER, head_store=FileHeadStore(tmp_path / "head.json"))
    client.renew()
    monkeypatch.setattr(Path, "replace", raise_disk_full)
    with pytest.raises(OSError, match="No space"):
        client.renew()
    assert ask(client).decider == "human"
    assert [path.name for path in tmp_path.iterdir()] == ["head.json"]


def raise_disk_full(*_):
    raise OSError(28, "No space left on device")


def test_a_latch_reaches_the_disk_though_the_stored_head_is_unreadable(tmp_path):
    files = {name: FileHeadStore(tmp_path / name) for name in ("head", "latch")}
    client = create_client(BEFORE, head_store=files["head"], latch_store=files["latch"])
    client.renew()
    (tmp_path / "head").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no head"):
        client.hand_over()
    (tmp_path / "head").unlink()
    again = create_client(BEFORE, latch_store=files["latch"])
    again.renew()
    assert ask(again).decider == "human"


def test_a_stored_head_outlasts_a_loss_of_power(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr("os.fsync", lambda _: done.append("flushed"))
    monkeypatch.setattr(Path, "replace", lambda *_: done.append("renamed"))
    FileHeadStore(tmp_path / "head.json").store(LedgerHead(3, "ff", 1, "1.1.2"))
    assert done == ["flushed", "renamed", "flushed"]


def test_answers_and_scopes_show_no_permit_or_salt():
    client = create_client(BEFORE | {"salt": "5a17" * 16})
    client.renew()
    for shown in (
        repr(client),
        repr(client.snapshot),
        repr(client.snapshot.snapshot),
        repr(ask(client)),
    ):
        assert "5a17" not in shown
        assert "permit" not in shown


def test_a_client_decides_while_others_renew_and_hand_over():
    revision = OPEN.scope.revision
    made = iter(range(revision, revision + 10_000))
    client = EdgeClient(
        "creek", lambda _: build_scope_body(OPEN) | {"revision": next(made)}, MovableClocks()
    )
    client.renew()
    faults, ended = [], threading.Event()

    def decide():
        while not ended.is_set():
            answer = ask(client)
            if answer.decider not in {"human", "model"} or "can't be read" in answer.reason:
                faults.append(answer)

    threads = [threading.Thread(target=decide) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        client.hand_over()
        assert ask(client).decider == "human"
        client.renew()
        assert ask(client).decider == "model"
    ended.set()
    for thread in threads:
        thread.join()
    assert faults == []


def test_a_ledger_set_back_is_reported_before_anything_is_dropped():
    client = create_client(AFTER, BEFORE)
    client.renew()
    held = client.snapshot
    with pytest.raises(LedgerRolledBackError):
        client.renew()
    assert client.snapshot is held
    assert isinstance(held.snapshot.issued_at, datetime)
