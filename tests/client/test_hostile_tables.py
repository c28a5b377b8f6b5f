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
from tests.client.local_answers import SALT, build_body
from tests.client.test_boxes import AFTER, BEFORE, MINUTE, OPEN, MovableClocks, ask, box_of, said
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


def test_each_part_that_is_spoilt_is_refused_or_leaves_answers():
    read = 0
    for path in list_places(BEFORE):
        for value in (*NASTY, ...):
            body = spoil(BEFORE, path, value)
            clocks = MovableClocks()
            box = EdgeClient("creek", lambda _, body=body: body, clocks)
            try:
                box.renew()
            except (InvalidSnapshotError, UnknownFormError):
                assert ask(box).decider == "human"
                continue
            read += 1
            for site, version, confidence in QUESTIONS:
                answer = box.decide(site, clocks.wall, version, "k9", "", confidence, {"w": "dry"})
                assert not answer.reason.startswith("the case can't be read"), (path, value)
            clocks.move(3600 * 24)
            assert ask(box, at=clocks.wall).decider == "human"
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
    stages = [
        row | {"confidences": [0.5], "buckets": row["buckets"] * 2}
        for row in body["table"]["stages"]
    ]
    windows = [row | {"when": {"w": ["dry"]}} for row in body["table"]["windows"]]
    body["table"] |= {"stages": stages, "windows": windows}
    box = EdgeClient("creek", lambda _: body, MovableClocks())
    box.renew()
    case = {"site": "creek", "at": NOON + HOUR, "version": "v1", "key": "k9", "confidence": 0.9}
    case |= {"attributes": {"w": "dry"}}
    assert box.decide(**case).decider == "model"
    for _ in range(2):
        assert box.decide(**case | changes).decider == "human"


def test_site_names_are_compared_letter_by_letter():
    box = box_of(BEFORE)
    box.renew()
    for site in ("Creek", "creek ", "cre\u0301ek", "\uff43reek"):
        assert ask(box, site=site).decider == "human"


def test_two_sites_may_differ_in_case_only():
    text = json.dumps(BEFORE).replace('"lake"', '"Creek"')
    box = box_of(json.loads(text) | {"sites": [BEFORE["sites"][0]]})
    box.renew()
    assert [ask(box, site=site).decider for site in ("creek", "Creek")] == ["model", "human"]


def test_a_slower_renewal_in_another_thread_does_not_bring_back_an_older_head(tmp_path):
    heads = FileHeadStore(tmp_path / "deep" / "head.json")
    box = box_of(head_store=heads)
    slow_may_go, slow_asked = threading.Event(), threading.Event()

    def fetch_slowly(_):
        slow_asked.set()
        assert slow_may_go.wait(10)
        return BEFORE

    box.fetch_scope = fetch_slowly
    slow = threading.Thread(target=box.renew)
    slow.start()
    assert slow_asked.wait(10)
    box.fetch_scope = lambda _: AFTER
    box.renew()
    slow_may_go.set()
    slow.join()
    assert heads.load().revision == AFTER["revision"]
    assert ask(box).decider == "human"


def test_a_head_that_cant_be_stored_still_ends_the_former_table(tmp_path, monkeypatch):
    box = box_of(BEFORE, AFTER, head_store=FileHeadStore(tmp_path / "head.json"))
    box.renew()
    monkeypatch.setattr(Path, "replace", raise_disk_full)
    with pytest.raises(OSError, match="No space"):
        box.renew()
    assert ask(box).decider == "human"
    assert [path.name for path in tmp_path.iterdir()] == ["head.json"]


def raise_disk_full(*_):
    raise OSError(28, "No space left on device")


def test_a_latch_reaches_the_disk_though_the_stored_head_is_unreadable(tmp_path):
    files = {name: FileHeadStore(tmp_path / name) for name in ("head", "latch")}
    box = box_of(BEFORE, head_store=files["head"], latch_store=files["latch"])
    box.renew()
    (tmp_path / "head").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no head"):
        box.hand_over()
    (tmp_path / "head").unlink()
    again = box_of(BEFORE, latch_store=files["latch"])
    again.renew()
    assert ask(again).decider == "human"


def test_a_stored_head_outlasts_a_loss_of_power(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr("os.fsync", lambda _: done.append("flushed"))
    monkeypatch.setattr(Path, "replace", lambda *_: done.append("renamed"))
    FileHeadStore(tmp_path / "head.json").store(LedgerHead(3, "ff", 1, "1.1.2"))
    assert done == ["flushed", "renamed", "flushed"]


def test_answers_and_scopes_show_no_permit_or_salt():
    box = box_of(BEFORE | {"salt": "5a17" * 16})
    box.renew()
    for shown in (repr(box), repr(box.snapshot), repr(box.snapshot.snapshot), repr(ask(box))):
        assert "5a17" not in shown
        assert "permit" not in shown


def test_a_client_decides_while_others_renew_and_hand_over():
    revision = OPEN.scope.revision
    made = iter(range(revision, revision + 10_000))
    box = EdgeClient("creek", lambda _: said(OPEN) | {"revision": next(made)}, MovableClocks())
    box.renew()
    faults, ended = [], threading.Event()

    def decide():
        while not ended.is_set():
            answer = ask(box)
            if answer.decider not in {"human", "model"} or "can't be read" in answer.reason:
                faults.append(answer)

    threads = [threading.Thread(target=decide) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        box.hand_over()
        assert ask(box).decider == "human"
        box.renew()
        assert ask(box).decider == "model"
    ended.set()
    for thread in threads:
        thread.join()
    assert faults == []


def test_a_ledger_set_back_is_reported_before_anything_is_dropped():
    box = box_of(AFTER, BEFORE)
    box.renew()
    held = box.snapshot
    with pytest.raises(LedgerRolledBackError):
        box.renew()
    assert box.snapshot is held
    assert isinstance(held.snapshot.issued_at, datetime)
