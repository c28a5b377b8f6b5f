"""The site: every page is in its navigation, short enough, with its pictures drawn, and builds."""

import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache

import pytest

from tests.docs.pages import ROOT, text_of
from tests.docs.reference import GENERATED

DOCS = ROOT / "docs"
MAX_WORDS, MAX_WORDS_OF_A_PAGE = 15_000, 1_200
OTHER_HOST = re.compile(
    r"""(?:src|href|srcset|action|poster)=["'](?:https?:)?//(?!$)[^"']+|url\(["']?(?:https?:)?//"""
)
LINK_ELSEWHERE = re.compile(r"""<a\b[^>]*\bhref=["']https?://""")
CONFIG = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))


def pages_of(nav):
    for entry in nav:
        for target in entry.values():
            yield from pages_of(target) if isinstance(target, list) else [target]


def hand_written():
    pages = [page for page in DOCS.rglob("*.md") if page not in GENERATED]
    return [page for page in pages if "decisions" not in page.parts]


def words_of(page):
    """Return the words of a page: not those of commands, outputs and diagrams, which run."""
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    prose = re.sub(r"\]\([^)]*\)", "]", prose)
    return len([word for word in prose.split() if re.search(r"\w", word)])


@pytest.mark.parametrize("page", hand_written(), ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_is_short(page):
    assert words_of(page) <= MAX_WORDS_OF_A_PAGE


def test_all_pages_together_can_be_read():
    assert sum(words_of(page) for page in hand_written()) <= MAX_WORDS


def test_the_readme_fits_a_screen_or_two():
    assert len(text_of("README.md").splitlines()) <= 120


def test_every_page_is_in_the_navigation():
    listed = list(pages_of(CONFIG["project"]["nav"]))
    there = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    assert sorted(listed) == sorted(name for name in there if not name.startswith("decisions/0"))


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


@pytest.fixture(scope="session")
def site():
    """Build the site as `make docs` does; skip where what builds it is not installed."""
    pytest.importorskip("zensical", reason="the extra `docs` is not installed: no site is built")
    pytest.importorskip("mermaidx", reason="the extra `docs` is not installed: no diagram is drawn")
    out = ROOT / CONFIG["project"]["site_dir"]
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.exhaustive
def test_the_site_builds_without_a_warning_and_draws_every_diagram(site):
    for name in pages_of(CONFIG["project"]["nav"]):
        file = site / name.replace("README", "index")
        html = file.with_suffix(".html").read_text(encoding="utf-8")
        wanted = (DOCS / name).read_text(encoding="utf-8").count("```mermaid\n")
        assert html.count('<figure class="diagram"><svg') == wanted, name


@pytest.mark.exhaustive
def test_no_page_of_the_site_loads_anything_from_elsewhere(site):
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(files) > 40
    for file in files:
        text = LINK_ELSEWHERE.sub("", file.read_text(encoding="utf-8"))
        assert not OTHER_HOST.search(text), file.name
