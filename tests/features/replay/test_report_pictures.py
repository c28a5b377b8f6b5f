"""Pictures of the worst divergences, from recorded files and from the store by the same code."""

import base64
import json
from dataclasses import replace

import pytest

from rollout.data.records.records import RecordStore
from rollout.engine.files.files import RecordPaths
from rollout.engine.records.records import Case
from rollout.features.replay.replay import replay_files
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.archive import format_report, load_report
from rollout.features.reports.builder import ReportOptions, create_report
from rollout.features.reports.inputs.pictures import MAX_PICTURE_BYTES
from rollout.features.reports.pages.html_report import render_html_report
from tests.engine.slots.facts import compute_replay_facts
from tests.factories import HOUR
from tests.features.replay.test_replay import POLICY
from tests.features.reports.test_builder import VIEWER
from tests.features.review_room import ANA, Room

pytestmark = pytest.mark.slow

GIF = b"GIF89a" + bytes(20)
INSIDE = f"data:image/gif;base64,{base64.b64encode(GIF).decode()}"
LINK = "https://pictures.example/7.jpg"
on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@pytest.fixture
def pictured(tmp_path):
    """Return what replays divergences, at most five, whose pictures are said to be somewhere."""
    folder = tmp_path / "records"
    (folder / "stills").mkdir(parents=True)

    def found(*media):
        rows = {
            "p.csv": ["case_key,site,occurred_at,model_version,label"],
            "d.csv": ["case_key,reviewer,label,decided_at"],
            "c.csv": ["case_key,site,occurred_at,media"],
        }
        for number, text in enumerate(media):
            rows["p.csv"].append(f"c{number},ramp-a,2025-03-03T10:00:00,v1,sound")
            rows["d.csv"].append(f"c{number},ana,damaged,2025-03-03T10:30:00")
            rows["c.csv"].append(f'c{number},ramp-a,2025-03-03T10:00:00,"{text}"')
        (folder / "policy.yaml").write_text(POLICY, encoding="utf-8")
        for file, lines in rows.items():
            (folder / file).write_text("\n".join([*lines, ""]), encoding="utf-8")
        sources = RecordPaths(folder / "p.csv", folder / "d.csv", folder / "c.csv")
        facts = compute_replay_facts(replay_files(ReplayRequest(folder / "policy.yaml", sources)))
        pictures = {row.case_key: row.picture for row in facts.divergences.top}
        assert ("<img" in render_html_report(facts)) == bool({*pictures.values()} - {None, LINK})
        return [pictures[f"c{number}"] for number in range(len(media))]

    found.folder = folder
    return found


def test_a_small_file_beside_the_records_stands_in_the_report(pictured):
    file = pictured.folder / "stills/7.gif"
    file.write_bytes(GIF)
    assert pictured("stills/7.gif", "./stills/../stills/7.gif", str(file)) == [INSIDE] * 3


def test_what_is_too_large_or_no_picture_or_not_there_is_told_by_attributes_alone(pictured):
    (pictured.folder / "stills/large.gif").write_bytes(GIF + bytes(MAX_PICTURE_BYTES))
    (pictured.folder / "stills/svg.gif").write_bytes(b"<svg onload='alert(1)'/>")
    assert pictured("stills/large.gif", "stills/svg.gif", "stills/8.gif") == [None] * 3
    assert pictured("stills", "", "7\0.gif") == [None] * 3


def test_no_file_outside_the_folder_of_the_records_is_read(pictured):
    outside = pictured.folder.parent / "secret.gif"
    outside.write_bytes(GIF)
    (pictured.folder / "stills/link.gif").symlink_to(outside)
    assert pictured("../secret.gif", str(outside), "stills/link.gif") == [None] * 3


def test_an_address_in_a_file_is_taken_as_it_is(pictured):
    assert pictured(LINK, "javascript:alert(1)") == [LINK, None]
    assert pictured(INSIDE) == [INSIDE]


@on_sqlite
@pytest.mark.parametrize(
    ("media", "picture"),
    [
        ({"a": LINK, "b": INSIDE}, INSIDE),
        ({"still": LINK}, LINK),
        ({"still": "/etc/passwd"}, None),
        ({}, None),
    ],
)
def test_a_stored_case_shows_what_was_sent_with_it(database, media, picture):
    room = Room(database)
    room.arrive("case-1", label="fox")
    before = {"key": "case-1", "site": "creek", "occurred_at": room.at, "window": "always"}
    case = Case(**before, attributes={"weather": "dry"}, media=media, revision=2)
    with database.begin_write() as transaction:
        RecordStore(transaction, room.stood.rollout).store([case], received_at=room.at)
    room.done(ANA, "bear")
    room.later(25 * HOUR)
    number = create_report(database, "bears", "week", ReportOptions(), room.at).number
    shown = load_report(database, VIEWER, "bears", number, room.at)
    (worst,) = json.loads(shown.report.body)["divergences"]["top"]
    # what is sealed never holds a picture, so that an erasure can take it
    assert worst["picture"] == ("stored with the case" if picture == INSIDE else picture)
    page = format_report(shown, "html").decode()
    assert page.count(f'src="{INSIDE}"') == (picture == INSIDE)
    assert (f'href="{LINK}"' in page) == (picture == LINK)
    assert "/etc/passwd" not in page


@on_sqlite
def test_a_report_that_was_kept_before_there_were_pictures_is_read_as_ever(database):
    room = Room(database)
    room.arrive("case-1", label="fox").done(ANA, "bear")
    room.later(25 * HOUR)
    number = create_report(database, "bears", "week", ReportOptions(), room.at).number
    shown = load_report(database, VIEWER, "bears", number, room.at)
    body = json.loads(shown.report.body)
    for row in body["divergences"]["top"]:
        del row["picture"]
    assert "case-1" in format_report(replace(shown, body=body), "html").decode()
