"""Content-Security-Policy of a sealed report.

A sealed page can't change, so its policy lists the hashes of its style sheet and style attributes.
Scripts, forms and external resources are forbidden.
"""

import base64
from hashlib import sha256
from html.parser import HTMLParser
from typing import Final

CLOSED_POLICY: Final = (
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)


def build_content_policy(page: str) -> str:
    """Return the Content-Security-Policy of a self-contained page.

    >>> build_content_policy("<style>p{}</style><p>well")[:60]
    "style-src 'unsafe-hashes' 'sha256-gG2yISYereRMiG2lMXrbiUgi0U"
    """
    parser = _StyleParser()
    parser.feed(page)
    hash_sources = " ".join(f"'sha256-{_hash_text(text)}'" for text in dict.fromkeys(parser.texts))
    return (
        f"style-src 'unsafe-hashes' {hash_sources}; {CLOSED_POLICY}"
        if hash_sources
        else CLOSED_POLICY
    )


def _hash_text(text: str) -> str:
    return base64.b64encode(sha256(text.encode()).digest()).decode()


class _StyleParser(HTMLParser):
    """Collects the first style sheet and the style attributes of a page."""

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
