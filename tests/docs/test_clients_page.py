"""docs/how-to/clients.md: its Python runs up to the fetch, with classes and arguments there are."""

import re
from datetime import UTC, datetime

import pytest

from rollout.kernel.policy_files.reader import parse_policy
from rollout_client import EdgeClient
from tests.docs.pages import text_of

PAGE = "docs/how-to/clients.md"


class _Fetched(Exception):  # noqa: N818 - it ends the snippet where a service would be asked
    pass


def _fetch_scope(head):
    raise _Fetched(head)


def _snippet():
    (snippet,) = re.findall(r"```python\n(.*?)```", text_of(PAGE), flags=re.DOTALL)
    return snippet


def test_the_snippet_asks_for_the_scope(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(_Fetched):
        exec(_snippet(), {"fetch_scope": _fetch_scope})  # noqa: S102 - the page's own lines


def test_without_a_scope_the_snippet_gets_human(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_renewal = re.sub(r"^client\.renew\(\).*$", "", _snippet(), flags=re.MULTILINE)
    names = {"fetch_scope": _fetch_scope, "at": datetime.now(UTC)}
    exec(without_renewal, names)  # noqa: S102 - the page's own lines
    assert names["assignment"].decider == "human"


def test_the_printed_command_fits_the_shipped_policy():
    path, command = re.findall(r"```text\n# for (\S+);.*?\n(.*?)```", text_of(PAGE), re.DOTALL)[0]
    policy = parse_policy(text_of(path))
    options = dict(re.findall(r"--(\w+) (\S+)", command))
    assert options["rollout"] == policy.rollout
    assert options["site"] in {site.id for site in policy.sites}
    (lever,) = policy.levers
    assert options["label"] in lever.labels
    assert f'{{"{lever.id}": label}}' in text_of("examples/clients/service.py")


def test_what_the_page_names_of_a_client_exists():
    named = set(re.findall(r"`client\.(\w+)`", text_of(PAGE)))
    assert named == {"is_renewal_due"}
    assert all(isinstance(getattr(EdgeClient, name), property) for name in named)
