"""No text that the commands print uses a word that the glossary replaced.

Texts are read from the code: string constants, and the docstrings of commands, which `--help`
prints. A word that is right in one place is named in `ALLOWED` with that place.
"""

import ast
import re
from functools import cache

import pytest

from tests.docs.pages import ROOT

FOLDERS = (
    "rollout/cli",
    "rollout/terminal",
    "rollout/engine/words",
    "rollout/features/reports/pages",
    "rollout/features/reports/figures/funnel.py",
    "rollout/features/reports/figures/methods.py",
    "rollout/features/reports/figures/evidence_facts.py",
    "rollout/features/policies",
    "rollout/features/delivery",
    "rollout/features/replay",
    *(
        f"rollout/features/reports/{path.name}"
        for path in ROOT.glob("rollout/features/reports/*.py")
    ),
    "rollout/kernel/policy_files",
    "rollout/kernel/policy",
)
REPLACED = {
    r"verdicts?": "decision",
    r"somebody|anybody|whoever|everybody": "a user, a reviewer, a human",
    r"people|persons?": "humans, users, reviewers",
    r"set aside|left out": "rejected, excluded",
    r"beside": "with, and",
    r"dearest": "costliest",
    r"rungs?": "stage",
    r"(taken|takes|take) back": "narrowed, ended",
    r"stands at|it stands|where .* stands?": "is, has",
    r"(reach|reaches|below|at) (the|its) line": "threshold",
    r"asks? for|asked": "needs",
    r"seen (first|by)|unseen": "first used, audited, blind",
    r"good again|goes up|goes down|gone up": "met again, widened, narrowed",
    r"known cases?": "gold case",
    r"seats?": "review task",
    r"draws?|drawn": "sample",
    r"the house|household": "access ledger",
}
ALLOWED: dict[str, tuple[str, ...]] = {
    r"people|persons?": (
        "by people,",  # in readings that ledgers have
        "(?P<people>",
    ),
    r"asks? for|asked": ("# Drafted from recorded files",),
    r"draws?|drawn": ("of cases, drawn at random",),
}


@cache
def texts_of(path):
    """Return the line and text of each printed sentence of a module."""
    return [(line, text) for line, text in strings_of(path) if is_prose(text)]


def strings_of(path):
    """Yield the line and text of each printed string of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    is_command = "cli" in path.parts
    hidden = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
            first = node.body[0]
            is_help = is_command and isinstance(node, ast.FunctionDef) and node.name[0] != "_"
            if isinstance(first, ast.Expr) and not is_help:
                hidden.add(id(first.value))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in hidden
        ):
            yield node.lineno, node.value


def list_modules(path):
    """Return the modules of a folder, or one module."""
    assert path.exists(), path
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def is_prose(text):
    """Return whether a string is for readers: two words or more."""
    return re.search(r"[a-z]{2,} [a-z]{2,}", text) is not None


@pytest.mark.parametrize("word", REPLACED)
def test_no_printed_text_uses_a_replaced_word(word):
    pattern = re.compile(rf"\b({word})\b", re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match[0]!r} in {text.strip()[:70]!r}"
        for folder in FOLDERS
        for path in list_modules(ROOT / folder)
        for line, text in texts_of(path)
        if (match := pattern.search(text))
        and not any(part in text for part in ALLOWED.get(word, ()))
    ]
    assert not found, f"write {REPLACED[word]} instead:\n" + "\n".join(found)
