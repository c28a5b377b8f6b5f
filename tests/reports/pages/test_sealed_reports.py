"""Reports that an earlier program sealed: their hash holds, and every page opens.

Both files were written by the program at commit 9693427, before the pages were divided by reader.
"""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from rollout.reports.figures.report_forms import translate_report
from rollout.reports.figures.report_version import compare_versions, format_canonical
from rollout.reports.pages.html_report import render_html_report
from rollout.reports.pages.json_report import to_plain_values
from rollout.reports.pages.text_report import render_text_report
from rollout.services.reports.archive import OlderReportError
from rollout.services.reports.report_pages import parse_report_facts

FOLDER = Path(__file__).parent / "sealed"
HASHES = {
    "narrowed": "4e631b9be26595b74d6e4201bcbf47bf6da83759b5df4e0b7c5e5143672a2925",
    "waiting": "40a714b8bcf70127bf44c132694c3f7273f81f54de46c31e4b9f25b4a000d6f9",
}
READERS = (None, "operator", "engineer", "auditor")


def load(name):
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("name", HASHES)
def test_the_hash_of_an_older_report_still_holds(name):
    assert sha256(format_canonical(load(name)).encode()).hexdigest() == HASHES[name]


@pytest.mark.parametrize("name", HASHES)
def test_an_older_report_still_opens_for_every_reader(name):
    facts = parse_report_facts(load(name))
    pages = [render_html_report(facts, reader) for reader in READERS]
    assert all("What to know" in page for page in pages)
    assert "creek" in render_text_report(facts)


def test_an_older_report_still_lists_what_needs_an_approval():
    page = render_html_report(parse_report_facts(load("waiting")), "operator")
    assert "Widening of creek · day to autonomous needs 2 more approvals" in page
    assert "No proposal needs an approval" not in page


def test_an_older_report_names_the_price_of_auditing_little():
    page = render_html_report(parse_report_facts(load("narrowed")))
    assert "v1 was narrowed in creek · day, 2 times" in page
    assert "On all blind decisions it trips after" in page


@pytest.mark.parametrize("name", HASHES)
def test_a_report_of_form_1_has_the_same_figures_under_the_names_of_form_2(name):
    translated = translate_report(load(name))
    assert translated["schema"] == "rollout-report/2"
    written_again = to_plain_values(parse_report_facts(load(name)))
    changes = compare_versions(translated, written_again)
    assert {change.before for change in changes} <= {None}, "a figure was lost or changed"
    assert (
        compare_versions(load(name) | {"report_version": {"state": ""}}, written_again) != changes
    )


@pytest.mark.parametrize("name", HASHES)
def test_a_report_of_form_2_stays_as_it_is(name):
    translated = translate_report(load(name))
    assert translate_report(translated) is translated


@pytest.mark.parametrize("form", ["rollout-report/3", "rollout-report/", "", None])
def test_a_report_of_an_unknown_form_is_refused_with_what_to_do(form):
    report = {**translate_report(load("waiting")), "schema": form}
    with pytest.raises(OlderReportError, match="in another form; read it as JSON or CSV"):
        parse_report_facts(report)
