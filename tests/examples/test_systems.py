"""Each example plays its story: the held cell stays closed; plain rules would have opened it."""

import gzip
import re

import pytest

from rollout.features.demo.catalog import list_examples
from tests.docs.pages import ROOT
from tests.docs.site import CONFIG, pages_of
from tests.docs.words import words_of
from tests.examples.pages import MARKER, PAGES, PICTURES, write_gallery, write_page
from tests.examples.plays import generate_records, play_example_story
from tests.examples.seeds import SEEDS, build_result, format_seed_table, load_results
from tests.examples.stage_picture import draw_stages

EXAMPLES = {example.name: example for example in list_examples()}
PLAYED_BY_MAKE_TEST = {"skin"}
"""The lightest one; `make test-all` plays all."""
MIN_JUDGED = 50  # units in the held cell: it is held for its evidence, not for want of any
MAX_WORDS = 410
MAX_BYTES = 1_500_000
DAY = re.compile(r"\b(\d{1,2})\s+(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\b")
COUNT = re.compile(r"\b(\d[\d,]*)\s+of\s+(\d[\d,]*)\b")
AGAIN = "python -m tests.examples.pages"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in PLAYED_BY_MAKE_TEST else pytest.mark.simulation)
        for name in EXAMPLES
    ],
)
def story(request):
    return play_example_story(EXAMPLES[request.param])


@pytest.mark.slow
def test_a_story_keeps_the_tolerances_of_its_seeds(story):
    assert build_result(story, story.example.seed).list_faults() == []


@pytest.mark.slow
def test_the_table_of_seeds_still_holds_for_the_shipped_one(story):
    name, seed = story.example.name, story.example.seed
    recorded = [row for row in load_results()[0] if (row.example, row.seed) == (name, seed)]
    assert recorded == [build_result(story, seed)], "code or records changed: make demos"


def test_the_held_cell_has_evidence(story):
    held_cell = story.example.held
    judged = [
        evidence.decided_units
        for evidence in story.facts.evidence
        if (evidence.site, evidence.window) == (held_cell.site, held_cell.window)
    ]
    assert max(judged) >= MIN_JUDGED


def test_the_timeline_is_the_expected_one(story, snapshot):
    assert "\n".join(story.describe_stages()) == snapshot(name=story.example.name)


def test_the_page_and_its_picture_are_what_the_replay_gives(story):
    name = story.example.name
    assert (PAGES / f"{name}.md").read_text(encoding="utf-8") == write_page(story), AGAIN
    assert (PICTURES / f"{name}.svg").read_text(encoding="utf-8") == draw_stages(story), AGAIN


def test_a_page_tells_the_days_and_counts_that_its_demo_prints(story):
    seeds = format_seed_table(story.example.name).strip()
    page, printed = write_page(story).replace(seeds, ""), story.describe()
    for pattern in (DAY, COUNT):
        assert set(pattern.findall(page)) <= set(pattern.findall(printed))


def test_the_gallery_shows_every_example():
    page = (PAGES / "gallery.md").read_text(encoding="utf-8")
    assert page == write_gallery()
    assert page.count("![") == len(EXAMPLES)
    in_navigation = {target for target in pages_of(CONFIG["nav"]) if target.startswith("examples/")}
    assert in_navigation == {f"examples/{name}.md" for name in ("gallery", *EXAMPLES)}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_readme_is_short_and_has_the_generated_tables(name):
    readme = ROOT / "examples" / name / "README.md"
    assert words_of(readme) <= MAX_WORDS
    markers = MARKER.findall(readme.read_text(encoding="utf-8"))
    assert sorted(markers) == ["plain rules", "seeds", "timeline"]
    assert not re.search(r"<!-- (?!timeline|plain rules|seeds)", readme.read_text("utf-8"))


def test_every_recorded_seed_kept_the_tolerances():
    results, runs = load_results()
    assert {row.example for row in results} == set(runs) <= set(EXAMPLES)
    for name in runs:
        rows = [row for row in results if row.example == name]
        assert [row.seed for row in rows] == list(SEEDS)
    assert [fault for row in results for fault in row.list_faults()] == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_generator_makes_the_shipped_records_again(name, tmp_path):
    example = EXAMPLES[name]
    generate_records(example, example.seed, tmp_path)
    made, shipped = unpack_files(tmp_path / "records"), unpack_files(example.records_folder)
    assert made.keys() == shipped.keys()
    assert [path for path, content in shipped.items() if made[path] != content] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_records_are_small_enough_to_ship(name):
    files = EXAMPLES[name].records_folder.rglob("*")
    assert sum(path.stat().st_size for path in files if path.is_file()) <= MAX_BYTES


def unpack_files(folder):
    """Return the content of each file, unpacked: packed bytes depend on the machine's zlib."""
    contents = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {
        path.relative_to(folder): gzip.decompress(content) if path.suffix == ".gz" else content
        for path, content in contents.items()
    }
