"""A sealed report in a browser: the very page, under a policy that lets its own style and no other.

The page can't say what it needs, as it is sealed. So its policy names the hash of its one style
sheet and of each style attribute; scripts, forms and anything from elsewhere are let by none.
"""

import base64
from hashlib import sha256
from html.parser import HTMLParser
from typing import Final

CLOSED: Final = (
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)


def policy_of(page: str) -> str:
    """Return the Content-Security-Policy of a page that is all in one file.

    >>> policy_of("<style>p{}</style><p>well")[:60]
    "style-src 'unsafe-hashes' 'sha256-gG2yISYereRMiG2lMXrbiUgi0U"
    """
    parser = _Styles()
    parser.feed(page)
    hash_sources = " ".join(f"'sha256-{_hashed(text)}'" for text in dict.fromkeys(parser.texts))
    return f"style-src 'unsafe-hashes' {hash_sources}; {CLOSED}" if hash_sources else CLOSED


def _hashed(text: str) -> str:
    return base64.b64encode(sha256(text.encode()).digest()).decode()


class _Styles(HTMLParser):
    """The first style sheet of a page and its style attributes; what else there may be is none."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self._sheets = 0
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.texts += [value for name, value in attrs if name == "style" and value]
        if tag == "style":
            self._sheets += 1
            self._inside = self._sheets == 1

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "style":
            self._inside = False
