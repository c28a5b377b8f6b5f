"""The site: every page is in its navigation, short enough, with its pictures drawn, and builds."""

import re
from functools import cache

import pytest

from tests.docs.pages import ROOT, text_of
from tests.docs.reference import GENERATED
from tests.docs.site import CONFIG, build_site, html_of, pages_of
from tests.docs.words import words_of
from tests.examples.pages import PAGES as EXAMPLE_PAGES

DOCS = ROOT / "docs"
PRIVATE = re.compile(r"(?i)\b(?:rungs?|households?|verdicts?|whoever|somebody|seats?|stood|told)\b")
MAX_WORDS, MAX_WORDS_OF_A_PAGE = (
    17_960,
    1_200,
)  # on call, Kubernetes, recovery, the lake
OTHER_HOST = re.compile(
    r"""(?:src|href|srcset|action|poster)=["'](?:https?:)?//(?!$)[^"']+|url\(["']?(?:https?:)?//"""
)
LINK_ELSEWHERE = re.compile(r"""<a\b[^>]*\bhref=["']https?://""")
PAGES = list(pages_of(CONFIG["nav"]))


def hand_written():
    """Return the pages that a person wrote; the examples' READMEs have a limit of their own."""
    lists = {*GENERATED, DOCS / "reference/folders.md"}
    pages = [page for page in DOCS.rglob("*.md") if page not in lists]
    others = {DOCS / "decisions", EXAMPLE_PAGES}
    return [page for page in pages if page.parent not in others]


@pytest.mark.parametrize("page", hand_written(), ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_is_short(page):
    assert words_of(page) <= MAX_WORDS_OF_A_PAGE


def test_all_pages_together_can_be_read():
    assert sum(words_of(page) for page in hand_written()) <= MAX_WORDS


def test_the_readme_fits_a_screen_or_two():
    assert len(text_of("README.md").splitlines()) <= 120


def test_every_page_is_in_the_navigation():
    there = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    assert sorted(PAGES) == sorted(name for name in there if not name.startswith("decisions/0"))


@pytest.mark.parametrize("folder", ["concepts", "roles"])
def test_every_concept_and_role_has_a_picture(folder):
    pages = list((DOCS / folder).glob("*.md"))
    assert len(pages) >= 5
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "```mermaid\n" in text or re.search(r"^!\[", text, re.MULTILINE), page.name


def test_every_diagram_has_a_title_for_screen_readers():
    for page in DOCS.rglob("*.md"):
        for diagram in re.findall(r"```mermaid\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            assert re.search(r"^\s*accTitle: \w", diagram, re.MULTILINE), page.name


@pytest.mark.parametrize("page", hand_written(), ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_has_no_private_words(page):
    prose = re.sub(
        r"```.*?```|`[^`]*`|\([^)]*\.md[^)]*\)", "", page.read_text("utf-8"), flags=re.DOTALL
    )
    assert PRIVATE.findall(prose) == []


def test_pages_that_the_code_names_exist():
    for folder in ("rollout", "api", "tools", "examples"):
        for file in [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.j2")]:
            for page in re.findall(r"\bdocs/[\w/-]+\.(?:md|toml)\b", file.read_text("utf-8")):
                assert (ROOT / page).exists(), f"{file.name} names {page}"


@cache
def sources():
    files = [*(ROOT / "rollout").rglob("*.py"), *(ROOT / "api").rglob("*.py")]
    return re.sub(r'"\s*\n?\s*f?"', "", "\n".join(file.read_text("utf-8") for file in files))


def messages():
    text, _, _ = text_of("docs/how-to/troubleshooting.md").partition("## Nothing happens")
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


@pytest.mark.parametrize("message", messages())
def test_a_message_of_the_troubleshooting_page_exists(message):
    assert message in sources()


@pytest.mark.exhaustive
def test_the_site_builds_without_a_warning_draws_diagrams_and_loads_nothing(tmp_path):
    site = build_site(tmp_path)
    for name in PAGES:
        html = (site / html_of(name)).read_text(encoding="utf-8")
        diagrams = (DOCS / name).read_text(encoding="utf-8").count("```mermaid\n")
        assert html.count('<figure class="diagram"><svg') == diagrams, name
    program = "how-to/verify_ledger.py"  # linked, to be downloaded
    assert (site / program).read_bytes() == (DOCS / program).read_bytes()
    for file in [*site.rglob("*.html"), *site.rglob("*.css")]:
        text = LINK_ELSEWHERE.sub("", file.read_text(encoding="utf-8"))
        assert not OTHER_HOST.search(text), file.name
