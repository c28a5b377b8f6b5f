"""A town, served, and browsers in it: what tests of the console's pages begin with."""

from contextlib import ExitStack, contextmanager
from unittest import mock

from api.app import create_app
from tests.browser.chromium import WIDE, chromium
from tests.browser.town import busy, served, town
from tests.services.houses import PASSWORD
from tests.store.databases import fresh


@contextmanager
def served_town(folder, hours=0, *, odd=True, **how):
    """Found a town on SQLite, let hours pass, serve it; give the town with its `address`."""
    with (
        mock.patch("api.limits.ANONYMOUS_BURST", 1e9),  # tests sign in faster than people
        fresh("sqlite", folder) as url,
        town(url, odd=odd) as made,
        served(create_app(made.service)) as address,
    ):
        made.hours(hours, **how)
        made.address = address
        yield made


class BrowserWindow:
    """A browser's window of its own: nobody is signed in, nothing is remembered."""

    def __init__(self, browser, address, *, width=WIDE, scheme="light", script=True, height=900):
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            java_script_enabled=script,
            timezone_id="America/Denver",
        )
        self.address = address
        self.page = self.context.new_page()
        self.heard = []
        self.page.on("console", lambda message: self.heard.append(message.text))
        self.page.on("pageerror", lambda error: self.heard.append(str(error)))

    def as_(self, name):
        """Sign in through the form."""
        self.open("/sign-in")
        self.page.fill("#name", name)
        self.page.fill("#password", PASSWORD)
        self.page.click("button:has-text('Sign in')")
        return self

    def open(self, path):
        """Open a page below /console."""
        answer = self.page.goto(f"{self.address}/console{path}")
        assert answer.status < 400 or answer.status == 422, (path, answer.status)
        return self.page


@contextmanager
def windows(browser, address):
    """Give a function that opens windows, all closed at the end."""
    with ExitStack() as stack:

        def opened(**how):
            window = BrowserWindow(browser, address, **how)
            stack.callback(window.context.close)
            return window

        yield opened


@contextmanager
def residents(folder, *, odd=True):
    """Found the busy town; give a function that opens a window of somebody, signed in once."""
    pages = {}
    with (
        served_town(folder, odd=odd) as made,
        chromium() as browser,
        windows(browser, made.address) as opened,
    ):
        busy(made)

        def of(name, *, width=WIDE, scheme="light", script=True):
            page_key = (name, width, scheme, script)
            if page_key not in pages:
                window = opened(width=width, scheme=scheme, script=script)
                pages[page_key] = window.as_(name) if name else window
            return pages[page_key]

        yield of
