"""No registry has these packages: nothing tells anybody to install them from one."""

import re

from rollout.cli.main import app
from tests.docs.pages import ROOT

FOLDERS = ("api", "clients", "config", "docs", "examples", "rollout")
UNREGISTERED = re.compile(r"(pip|uv|pipx)[^\n]* install [^\n]*rollout-(client|controller)")


def test_no_page_or_message_installs_a_name_that_nobody_registered():
    paths = [*ROOT.glob("*.md"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.*"))]
    texts = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for path in paths
        if path.suffix in {".md", ".py", ".toml", ".j2", ".yaml"}
    }
    assert len(texts) > 20
    assert [name for name, text in texts.items() if UNREGISTERED.search(text)] == []


def test_help_leads_to_the_service_where_it_is_installed():
    assert "rollout quickstart" in app.info.help
