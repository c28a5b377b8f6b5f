"""What holds on every page that links from the overview lead to, for every role.

A crawler follows each link within the console as each person. What it meets is whole, holds no
script or style that the policy would refuse, and nothing that a client or a person wrote as markup.
"""

import re
from collections import Counter
from contextlib import ExitStack, contextmanager
from functools import cache
from html.parser import HTMLParser
from unittest import mock
from urllib.parse import urldefrag, urljoin, urlsplit

import pytest

from api.app import create_app
from tests.browser.town import SCRIPT, busy, town
from tests.console.conftest import Browsing
from tests.data.databases import fresh

pytestmark = pytest.mark.exhaustive

MOST = 150
"""Pages that one person visits; lists lead to more of the same."""
DEVOURED = re.compile(r"(/cells/|/proposals/|/incidents/|/cases/|[?&](before|after|at|page)=)")
OPEN_TAGS = {"br", "hr", "img", "input", "link", "meta", "path", "rect", "line", "circle", "use"}
VIEWER_TIME = re.compile(
    r'<time datetime="([^"T]*)T[^"]*?([+-][0-9:]+)">[^<]*</time> <span[^>]*>\([^<]* for you\)'
)
WHO = [("sqlite", name) for name in ("ana", "ada", "vic", "rita", "cleo", "sue")]
WHO += [("postgresql", name) for name in ("ana", "ada", "rita")]
"""On the other engine those who reach every kind of page: its queries are asked too."""


class Read(HTMLParser):
    """What a page holds: links, ids, attributes that the policy refuses, headings, open tags."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.links, self.ids, self.faults, self.headings = [], Counter(), [], []
        self._open = []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self._open]

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if given.get("id"):
            self.ids[given["id"]] += 1
        self.faults += [f"{name} of <{tag}>" for name in given if name.startswith("on")]
        if "style" in given or tag == "style":
            self.faults.append(f"style of <{tag}>")
        if tag == "script" and not given.get("src"):
            self.faults.append("an inline script")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in OPEN_TAGS:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in OPEN_TAGS:
            self._open.pop()

    def handle_endtag(self, tag):
        if tag in OPEN_TAGS:
            return
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> closes another tag")


@contextmanager
def _opened(engine, folder):
    with (
        mock.patch("api.limits.ANONYMOUS_BURST", 1e9),
        fresh(engine, folder) as url,
        town(url) as made,
    ):
        busy(made)
        with Browsing(create_app(made.service), base_url="http://localhost:8000") as opened:
            opened.headers["Sec-Fetch-Site"] = "same-origin"
            yield opened


@pytest.fixture(scope="module")
def towns(tmp_path_factory):
    """Return a function that opens the town on an engine: one for everybody who looks at it."""
    with ExitStack() as stack:
        yield cache(
            lambda engine: stack.enter_context(_opened(engine, tmp_path_factory.mktemp("town")))
        )


@pytest.fixture
def browser(request, towns):
    return towns(request.param)


def crawled(browser, name):
    """Yield each page that somebody comes to by links: its address, answer, and what it holds."""
    browser.as_(name)
    waiting, seen = ["/console/"], {"/console/"}
    while waiting and len(seen) < MOST:
        path = waiting.pop(0)
        answer = browser.get(path, follow_redirects=True)
        is_page = "text/html" in answer.headers.get("content-type", "")
        page = Read(answer.text) if is_page else None
        yield path, answer, page
        for link in page.links if is_page else ():
            found = urldefrag(urljoin(str(answer.url), link)).url
            parts = urlsplit(found)
            if parts.netloc != "localhost:8000" or not parts.path.startswith("/console/"):
                continue
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            if target not in seen and not _enough(seen, target):
                seen.add(target)
                waiting.append(target)


def _enough(seen, target):
    """Say whether three pages of the same kind were seen."""
    kind = DEVOURED.search(target)
    return kind is not None and sum(kind[1] in other for other in seen) >= 3


@pytest.mark.parametrize(("browser", "name"), WHO, indirect=["browser"])
def test_every_link_leads_to_a_whole_page_without_anything_that_the_policy_refuses(browser, name):
    met = times = 0
    for path, answer, page in crawled(browser, name):
        met += 1
        assert answer.status_code == 200, (path, answer.status_code, answer.text[-600:])
        if page is None:
            continue
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], path
        assert SCRIPT not in answer.text, path
        if "/reports/" in path:  # a report is a file of its own, with its style in it
            continue
        assert page.faults == [], path
        assert [i for i, n in page.ids.items() if n > 1] == [], path
        assert page.headings.count(1) == 1, path
        days = Counter(VIEWER_TIME.findall(answer.text))
        times += days.total()
        assert answer.text.count(" for you)") == days.total(), path
        assert [day for day, n in days.items() if n > 1] == [], path
        steps = zip(page.headings, page.headings[1:], strict=False)
        assert all(later <= earlier + 1 for earlier, later in steps), (path, page.headings)
    assert met >= 3
    assert times > 0


@pytest.mark.parametrize("browser", ["sqlite"], indirect=True)
def test_a_reviewer_comes_to_no_page_that_shows_what_the_model_said(browser):
    for path, answer, _ in crawled(browser, "rita"):
        assert not re.search(r"\bv1\b", answer.text), path
        assert "0.9" not in answer.text, path
