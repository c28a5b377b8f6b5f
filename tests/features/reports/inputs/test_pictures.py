"""The worst divergences show their pictures: small ones inside the page, others as a link."""

import base64
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.inputs.divergences import MAX_LISTED, MAX_PICTURES
from rollout.features.reports.inputs.pictures import (
    MAX_PICTURE_BYTES,
    embed_picture,
    find_no_media,
    find_picture,
    is_link,
)
from rollout.features.reports.pages.html_report import render_html_report
from tests.page_text import collapse_space

GIF = b"GIF89a" + bytes(20)
LINK = "https://pictures.example/7.jpg?size=2&of=bear"
FORMS = {
    "png": b"\x89PNG\r\n\x1a\n" + bytes(8),
    "jpeg": b"\xff\xd8\xff\xe0" + bytes(8),
    "gif": GIF,
    "webp": b"RIFF\x10\x00\x00\x00WEBPVP8 ",
}


def inside(content, form="gif"):
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize("form", FORMS)
def test_a_small_picture_is_known_by_its_first_bytes(form):
    assert embed_picture(FORMS[form]) == inside(FORMS[form], form)
    assert find_picture([inside(FORMS[form], "svg+xml")], may_embed=True) == inside(
        FORMS[form], form
    )


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "still.jpg",
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        " javascript:alert(1)",
        "data:text/html;base64,PHNjcmlwdD4=",
        "data:image/svg+xml,<svg onload='alert(1)'/>",
        "data:image/svg+xml;base64,PHN2Zy8+",
        "data:image/png;base64,PHN2Zy8+",
        "data:image/gif;base64,R0lGODlh*",
        "data:image/gif," + GIF.hex(),
        "file:///etc/passwd",
        "//pictures.example/7.jpg",
        "https:7.jpg",
        "https://",
        "https://ana:secret@pictures.example/7.jpg",
        "https://pictures.example/7 8.jpg",
        "https://pictures.example/\n7.jpg",
        "https://[pictures.example/7.jpg",
        "https://pictures.example/" + "7" * 2_000,
        "blob:https://pictures.example/7",
    ],
)
def test_what_is_neither_a_picture_nor_a_web_link_is_not_shown(reference):
    assert find_picture([reference], may_embed=True) is None


def test_a_picture_that_is_too_large_is_not_embedded():
    assert embed_picture(GIF[:6] + bytes(MAX_PICTURE_BYTES - 6))
    assert embed_picture(GIF[:6] + bytes(MAX_PICTURE_BYTES - 5)) is None
    assert (
        find_picture([inside(GIF[:6] + bytes(MAX_PICTURE_BYTES - 5)), LINK], may_embed=True) == LINK
    )
    assert (
        find_picture([inside(GIF[:6] + bytes(9 * MAX_PICTURE_BYTES)), LINK], may_embed=True) == LINK
    )


def test_what_is_inside_goes_before_a_link():
    assert find_picture([LINK, inside(GIF)], may_embed=True) == inside(GIF)
    assert find_picture([LINK, inside(GIF)], may_embed=False) == LINK
    assert find_picture([], may_embed=True) is None


@given(st.text(max_size=30))
def test_a_link_is_of_the_web_whatever_is_said(text):
    if is_link(text):
        assert re.match(r"(?i)https?://[^\s@/]", text)


def test_only_the_worst_cases_are_asked_for_their_pictures(told):
    asked = []
    picture = inside(GIF)

    def media(keys):
        asked.append(sorted(keys))
        return dict.fromkeys(keys, (picture, LINK))

    inputs, before = told
    found = compute_report_facts(replace(inputs, media=media)).divergences
    assert asked == [sorted(row.case_key for row in found.top)]
    assert len(found.top) == MAX_LISTED
    assert [row.picture for row in found.top] == [picture] * MAX_PICTURES + [LINK] * (
        MAX_LISTED - MAX_PICTURES
    )
    assert {row.picture for row in before.divergences.top} == {None}
    assert find_no_media(["a"]) == {}


@pytest.fixture(scope="module")
def page(told):
    """Return the page of a report whose worst cases have pictures, and the rest links."""
    inputs, _ = told

    def media(keys):
        return {key: (LINK,) if int(key[-1]) % 2 else (inside(GIF),) for key in keys}

    facts = compute_report_facts(replace(inputs, media=media))
    return facts, collapse_space(render_html_report(facts))


def test_a_picture_stands_once_in_the_page_and_says_of_which_case_it_is(page):
    facts, text = page
    worst = [row.case_key for row in facts.divergences.top[:MAX_PICTURES] if row.picture[0] == "d"]
    assert worst
    assert re.findall(r'<img class="case" src="([^"]*)" alt="([^"]*)">', text) == [
        (inside(GIF), f"Picture of case {key}") for key in worst
    ]


def test_a_link_leads_away_without_saying_from_where(page):
    facts, text = page
    links = re.findall(r'<a href="([^"#][^"]*)" ([^>]*)>Picture', text)
    rows = [row for row in facts.divergences.top if row.picture == LINK]
    worst = [row for row in facts.divergences.top[:MAX_PICTURES] if row.picture == LINK]
    assert links == [(LINK.replace("&", "&amp;"), 'rel="noreferrer noopener"')] * len(rows + worst)


def test_a_kept_report_that_says_something_else_shows_no_picture(page):
    """Who could change a stored report could write any address into it."""
    facts, _ = page
    found = facts.divergences
    evil = (
        "data:text/html;base64,PHNjcmlwdD4=",
        "data:image/svg+xml,<svg/>",
        "javascript:alert(1)",
    )
    top = tuple(replace(row, picture=evil[n % 3]) for n, row in enumerate(found.top))
    text = render_html_report(replace(facts, divergences=replace(found, top=top)))
    assert "<img" not in text
    assert not [one for one in evil if one.partition(":")[2] in text]
