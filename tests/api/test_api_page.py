"""The page on the API names every route and every refusal that there is."""

import re
from pathlib import Path

from api.problems import STATUS_BY_CODE
from tests.api.test_rights_matrix import BEARS, MATRIX

PAGE = (Path(__file__).parents[2] / "docs/api.md").read_text(encoding="utf-8")
ELSEWHERE = ("/v1/me", "/v1/session", "/v1/keys", "/v1/users", "/health", "/ofrep", "reviews/")


def test_every_route_is_named():
    for name in MATRIX:
        method, path = name.split()
        short = path.replace(f"{BEARS}/", "").replace(":path}", "}")
        if path != BEARS and not any(part in path for part in ELSEWHERE):
            assert re.search(rf"{method} `{re.escape(short)}[`?]", PAGE), name


def test_every_refusal_is_named():
    assert [code for code in STATUS_BY_CODE if f"`{code}`" not in PAGE] == []
