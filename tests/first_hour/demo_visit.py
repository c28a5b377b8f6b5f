"""The live demo in an empty home, and users who stay signed in by its printed links."""

import re
import shutil
import time
from contextlib import contextmanager
from importlib.util import find_spec

import httpx2

OPERATORS = ("ana", "bo")
ROLLOUT = "mail-room"
API = f"/v1/rollouts/{ROLLOUT}"
PAGES = {
    "ana": ("/", f"/rollouts/{ROLLOUT}", f"/rollouts/{ROLLOUT}/proposals", "/reports"),
    "bo": ("/", f"/rollouts/{ROLLOUT}/divergences", f"/rollouts/{ROLLOUT}/cases", "/incidents"),
    "rui": ("/", "/review"),
    "ada": ("/", "/settings/users", f"/rollouts/{ROLLOUT}/settings"),
    "vic": ("/", f"/rollouts/{ROLLOUT}", f"/rollouts/{ROLLOUT}/ledger"),
}
"""Below /console, by user: what their work shows them."""
MAIN_PAGES = (
    "/",
    "/incidents",
    "/reports",
    "/files",
    "/settings",
    f"/rollouts/{ROLLOUT}",
    f"/rollouts/{ROLLOUT}/proposals",
    f"/rollouts/{ROLLOUT}/divergences",
    f"/rollouts/{ROLLOUT}/cause",
    f"/rollouts/{ROLLOUT}/cases",
    f"/rollouts/{ROLLOUT}/ledger",
    f"/rollouts/{ROLLOUT}/settings/what-if",
)
"""Below /console, which an operator reads; with a proposal, an incident and a cell of the demo."""
REVIEWER, REVIEWER_PAGES = "rui", ("/", f"/rollouts/{ROLLOUT}/review")
LOOK_WIDTHS = (1280, 390)
LINK = re.compile(r"^  (\w+) +\w+ +(http\S+)$", re.MULTILINE)
HIDDEN = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')
REASON = "Read the evidence."
START_PATIENCE = 240  # seconds: a cold start works half a minute, longer on a busy machine
BROWSER_PATIENCE = 30_000  # milliseconds for a page on a busy machine


def start_demo(terminals, port, *options):
    """Start the demo as its page says; return the links by user, once it is served."""
    output = terminals.start("demo", " ".join(["rollout demo --serve --port", port, *options]))
    lines = output.wait_until(
        lambda lines: any("Ctrl-C ends the demo" in line for line in lines), START_PATIENCE
    )
    return dict(LINK.findall("\n".join(lines)))


class LinkVisitor:
    """A user who signed in by a link, over HTTP."""

    def __init__(self, name, link):
        self.name, self.pages, self.slowest = name, 0, 0.0
        self._address = link.partition("/console")[0]
        self._client = httpx2.Client(
            base_url=self._address, follow_redirects=True, timeout=60,
            headers={"Sec-Fetch-Site": "same-origin"},
        )  # fmt: skip
        self._check(self._client.get(link))

    def open(self, path):
        """Return a page below /console; fail unless it is shown to this user."""
        started = time.monotonic()
        page = self._check(self._client.get(f"/console{path}"))
        self.pages, self.slowest = self.pages + 1, max(self.slowest, time.monotonic() - started)
        return page

    def fetch(self, path):
        """Return what the API answers to the user's session."""
        response = self._client.get(f"{API}{path}")
        assert response.status_code == 200, (self.name, path, response.status_code, response.text)
        return response.json()

    def submit(self, path, page, **fields):
        """Send a form of a page, with its hidden fields."""
        fields = {**dict(HIDDEN.findall(page)), **fields}
        return self._check(self._client.post(f"/console{path}", data=fields))

    def approve(self, proposal):
        """Approve a proposal on its page; return whether the page offers it."""
        path = f"/rollouts/{ROLLOUT}/proposals/{proposal}"
        page = self.open(path)
        forms = re.findall(rf'<form method="post" action="/console{path}/approvals">.*?</form>',
                           page, re.DOTALL)  # fmt: skip
        for form in forms:
            assert REASON in self.submit(f"{path}/approvals", form, reason=REASON)
        return bool(forms)

    def close(self):
        """Close the connections."""
        self._client.close()

    def _check(self, response):
        assert response.status_code == 200, (self.name, response.url, response.status_code)
        assert "/sign-in" not in response.url.path, f"{self.name} is signed out"
        names = re.findall(r'<div class="who">(\w+)', response.text)  # the review page has none
        assert set(names) <= {self.name}, (self.name, names)
        return response.text


class BrowserVisitor:
    """A user who signed in by a link, in Chromium."""

    def __init__(self, browser, name, link):
        self.name, self.pages = name, 0
        self._address = link.partition("/console")[0]
        self._page = browser.new_context().new_page()
        self._page.set_default_timeout(BROWSER_PATIENCE)
        self._page.goto(link)
        self._check()

    def open(self, path):
        """Return a page below /console; fail unless it is shown to this user."""
        self._page.goto(f"{self._address}/console{path}")
        self.pages += 1
        return self._check()

    def approve(self, proposal):
        """Approve a proposal on its page; return whether the page offers it."""
        self.open(f"/rollouts/{ROLLOUT}/proposals/{proposal}")
        if not self._page.locator("#reason").count():
            return False
        self._page.fill("#reason", REASON)
        self._page.click("button:has-text('Approve proposal')")
        self._page.wait_for_selector(f"aside :text('{REASON}')")
        return True

    def find_violations(self, paths):
        """Return what axe-core finds on pages in both widths and colour schemes, by page."""
        from tests.browser.looks import each_look, find_violations  # noqa: PLC0415 - skips without axe

        violations_by_look = {}
        for path in paths:
            answer = self._page.goto(f"{self._address}/console{path}")
            assert answer.status == 200, (self.name, path, answer.status)
            self.pages += 1
            for width, scheme in each_look(self._page, LOOK_WIDTHS):
                if violations := find_violations(self._page):
                    violations_by_look[path, width, scheme] = violations
        return violations_by_look

    def _check(self):
        text = self._page.inner_text(".who")
        assert text.startswith(self.name), f"{self.name} is signed out: {text}"
        return self._page.content()


@contextmanager
def open_browser():
    """Yield a Chromium, or None where it or its driver is missing."""
    programs = (shutil.which(name) for name in ("chromium", "chromium-browser"))
    if find_spec("playwright") is None or not any(programs):
        yield None
        return
    from tests.browser.chromium import chromium  # noqa: PLC0415 - skips without playwright

    with chromium() as browser:
        yield browser


class DemoVisit:
    """Users at work: once a second one opens a page, and both operators approve what is open."""

    def __init__(self, links, browser=None):
        self.visitors = [LinkVisitor(name, links[name]) for name in PAGES]
        self._reader = next(visitor for visitor in self.visitors if visitor.name == OPERATORS[0])
        self.browser_visitor = browser and BrowserVisitor(browser, "ana", links["ana"])
        approvers = [visitor for visitor in self.visitors if visitor.name in OPERATORS]
        self._approvers = [self.browser_visitor, *approvers] if browser else approvers
        self.approvers_by_proposal, self.longest_wait, self.seconds = {}, 0.0, 0.0
        self._started = self._offered_at = time.monotonic()

    def act(self):
        """Let a user open a page, and the operators approve; then wait out the second."""
        begun = time.monotonic()
        visitor = self.visitors[int(self.seconds) % len(self.visitors)]
        visitor.open(PAGES[visitor.name][visitor.pages % len(PAGES[visitor.name])])
        for proposal in self._list_proposals():
            for approver in self._approvers:
                if approver.name not in self._approvers_of(proposal) and approver.approve(proposal):
                    self._approvers_of(proposal).append(approver.name)
        time.sleep(max(0.0, begun + 1 - time.monotonic()))
        self.seconds = time.monotonic() - self._started

    def _approvers_of(self, proposal):
        return self.approvers_by_proposal.setdefault(proposal, [])

    def _list_proposals(self):
        """Return the proposals that miss an approval, and note how long there was none."""
        proposals = [p["id"] for p in self._reader.fetch("/proposals")["items"]
                 if p["approvals_missing"]]  # fmt: skip
        now = time.monotonic()
        self.longest_wait = max(self.longest_wait, now - self._offered_at)
        if proposals:
            self._offered_at = now
        return proposals

    def find_violations(self, browser, links):
        """Return what axe-core finds on the pages of an operator and of a reviewer."""
        base = f"/rollouts/{ROLLOUT}"
        cell = self._reader.fetch("/cells")["items"][0]
        paths = [*MAIN_PAGES, f"{base}/cells/{cell['site']}/{cell['window']}"]
        paths += [f"{base}/proposals/{proposal}" for proposal in self.list_applied()[:1]]
        incidents = self._reader.fetch("/incidents?state=all")["items"]
        paths += [f"{base}/incidents/{incident['id']}" for incident in incidents[:1]]
        reviewer = BrowserVisitor(browser, REVIEWER, links[REVIEWER])
        return self.browser_visitor.find_violations(paths) | reviewer.find_violations(
            REVIEWER_PAGES
        )

    def list_applied(self):
        """Return the proposals that an operator approved and a tick applied."""
        return [
            proposal
            for proposal, names in self.approvers_by_proposal.items()
            if names and self.fetch_proposal(proposal)["state"] == "applied"
        ]

    def fetch_proposal(self, proposal):
        """Return a proposal as the API has it."""
        return self._reader.fetch(f"/proposals/{proposal}")

    @property
    def pages(self):
        """Return how many pages were opened."""
        browser_pages = self.browser_visitor.pages if self.browser_visitor else 0
        return browser_pages + sum(visitor.pages for visitor in self.visitors)

    def close(self):
        """Close the connections."""
        for visitor in self.visitors:
            visitor.close()
