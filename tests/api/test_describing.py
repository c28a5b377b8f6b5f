"""`/docs` shows every operation, works without a network, and shows texts as text."""

import re

import pytest

from api.app import render_docs


@pytest.fixture
def shown(client):
    del client.headers["Authorization"]
    answer = client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    return answer.text


@pytest.mark.slow
def test_every_operation_is_shown_with_its_path(client, shown):
    document = client.get("/openapi.json").json()
    operations = sum(len(methods) for methods in document["paths"].values())
    assert shown.count("<summary>") == operations
    assert all(f"<code>{path}</code>" in shown for path in document["paths"])


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(shown):
    assert re.findall(r"""(?:src|href)=["'](?!/|#)""", shown) == []
    assert "<script" not in shown


def test_what_others_wrote_is_shown_as_text():
    document = {
        "info": {"title": "<b>", "version": "1", "description": "<script>alert(1)</script>"},
        "components": {"schemas": {}},
        "paths": {"/x": {"get": {"summary": "<i>", "responses": {}}}},
    }
    assert not re.findall(r"<(b|i|script)>(?!GET)", render_docs(document))
