"""No code runs what it was sent: no evaluation, shell, unsafe reader, weak hash or markup sink."""

import ast
import re

import pytest

from tests.docs.pages import ROOT

MODULES = {"pickle", "marshal", "shelve", "dbm", "xml", "lxml", "telnetlib", "ftplib"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load"}
CALLS |= {"yaml.unsafe_load", "hashlib.md5", "hashlib.sha1", "subprocess.getoutput"}
SAMPLERS = {"rollout/live/evidence/live_evidence.py"}
"""Modules that may use `random`: they choose which records to check, and no secret."""
BYTECODE = "rollout/features/reports/pages/page_templates.py"
"""The module that may use `marshal`: whoever can write there can write Python's bytecode too."""
SCRIPT_SINKS = re.compile(
    r"\b(inner|outer)HTML\s*=[^=]|insertAdjacentHTML|document\.write|\beval\(|new Function"
    r"|postMessage|WebSocket|localStorage|sessionStorage"
)
SOURCES = sorted(path for name in ("api", "rollout") for path in (ROOT / name).rglob("*.py"))


def find_dangers(name, source):
    """Return the dangerous imports and calls of a module's source."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
        elif isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            shell = any(k.arg == "shell" and ast.unparse(k.value) != "False" for k in node.keywords)
            found += [f"{call}()"] if call in CALLS or shell else []
    dangers = MODULES if name in SAMPLERS else MODULES | {"random"}
    dangers -= {"marshal"} if name == BYTECODE else set()
    return [text for text in found if text.endswith("()") or text.split(".")[0] in dangers]


@pytest.mark.slow
def test_no_module_evaluates_unpickles_or_opens_a_shell():
    names = {path: path.relative_to(ROOT).as_posix() for path in SOURCES}
    found = {name: find_dangers(name, path.read_text("utf-8")) for path, name in names.items()}
    assert len(found) > 300
    assert {name: texts for name, texts in found.items() if texts} == {}


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)",
        "import pickle",
        "import marshal",
        "from xml.etree import ElementTree",
        "subprocess.run(text, shell=True)",
        "hashlib.md5(text)",
        "import random",
        "yaml.load(text)",
    ],
)
def test_what_is_dangerous_would_be_found(source):
    assert find_dangers("a.py", source)


def test_no_script_of_the_console_writes_markup_or_stores_anything():
    scripts = list((ROOT / "api/web_kit/assets").glob("*.js"))
    assert scripts
    assert not [path.name for path in scripts if SCRIPT_SINKS.search(path.read_text("utf-8"))]
    assert SCRIPT_SINKS.search("element.innerHTML = text")
