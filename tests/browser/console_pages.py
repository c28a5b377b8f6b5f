"""A town, served, and browsers in it: what tests of the console's pages begin with."""

from contextlib import ExitStack, contextmanager
from unittest import mock

from api.app import create_app
from tests.browser.chromium import HEIGHT, WIDE, chromium
from tests.browser.town import busy, served, town
from tests.data.databases import fresh
from tests.features.houses import PASSWORD


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

    def __init__(self, browser, address, *, width=WIDE, scheme="light", script=True, height=HEIGHT):
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


class SharedWindow:
    """One window for everybody: who looks changes with its cookies, how with its size and colours.

    A window of one's own takes a second of a processor to open and to sign in.
    """

    def __init__(self, window):
        self._window, self._name, self._jars = window, "", {"": []}

    def of(self, name, width, scheme):
        """Return the window as somebody's, signed in, before they open a page."""
        page, context = self._window.page, self._window.context
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.emulate_media(color_scheme=scheme, reduced_motion="no-preference")
        if name != self._name:
            page.goto("about:blank")  # no page left behind asks on with other cookies
            self._jars[self._name] = context.cookies()
            context.clear_cookies()
            context.add_cookies(self._jars.get(name, []))
            if name not in self._jars:
                self._window.as_(name)
            self._name = name
        return self._window


@contextmanager
def residents(folder, *, odd=True):
    """Found the busy town; give a function that returns the window as somebody's, signed in."""
    with (
        served_town(folder, odd=odd) as made,
        chromium() as browser,
        windows(browser, made.address) as opened,
    ):
        busy(made)
        shared = {}

        def of(name, *, width=WIDE, scheme="light", script=True):
            if script not in shared:
                shared[script] = SharedWindow(opened(script=script))
            return shared[script].of(name, width, scheme)

        of.town = made
        yield of
