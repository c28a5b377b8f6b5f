"""Report names that a stranger can't read: private words, and classes that share a name.

The words are participles and pronouns that say what happened to a thing instead of what it is. They
are refused as the whole name of a module, class, function, parameter or local variable. A class
name exists in one module only, so that a name in an error or a page leads to one place.

Run as `python tools/check_names.py`.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("rollout", "api", "clients", "benchmarks", "docs", "tools", "tests")
FORBIDDEN = frozenset(
    {
        "asked",
        "beside",
        "found",
        "given",
        "hands",
        "heard",
        "held",
        "kept",
        "known",
        "looked",
        "named",
        "one",
        "said",
        "seen",
        "shown",
        "stood",
        "thing",
        "told",
        "wanted",
        "whoever",
    }
)


@dataclass(frozen=True, slots=True)
class Definition:
    """One name where it is defined; `kind` is module, class, function, parameter or variable."""

    path: Path
    line: int
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.kind} {self.name}"


def main() -> int:
    """Print the faults of the tree; return 1 if there are any, else 0."""
    paths = [
        path
        for folder in FOLDERS
        for path in sorted(Path(folder).rglob("*.py"))
        if not is_test_module(path)
    ]
    faults = list(find_faults(paths))
    if faults:
        print(*faults, sep="\n", file=sys.stderr)
    return int(bool(faults))


def is_test_module(path: Path) -> bool:
    """Return whether a module has tests; only their helpers are checked."""
    return path.parts[0] == "tests" and path.name.startswith(("test_", "conftest"))


def find_faults(paths: list[Path]) -> Iterator[str]:
    """Yield a sentence for each forbidden name and each class name that exists twice."""
    definitions = [item for path in paths for item in list_definitions(path)]
    for item in definitions:
        if item.name.strip("_").lower() in FORBIDDEN:
            yield f"{item}: name what it is, not what happened to it (docs/glossary.md)"
    classes: dict[str, list[Definition]] = defaultdict(list)
    for item in definitions:
        if item.kind == "class":
            classes[item.name].append(item)
    for places in classes.values():
        for item in places[1:]:
            first = places[0]
            yield f"{item}: also in {first.path}:{first.line}; give each class a name of its own"


def list_definitions(path: Path) -> Iterator[Definition]:
    """Yield the module, its classes, functions, parameters and variables.

    Fields of classes are left alone: they are keys of stored reports and columns of tables.
    """
    yield Definition(path, 1, "module", path.stem)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    fields = {
        id(name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        for name in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield Definition(path, node.lineno, "class", node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Definition(path, node.lineno, "function", node.name)
        elif isinstance(node, ast.arg):
            yield Definition(path, node.lineno, "parameter", node.arg)
        elif (
            isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Store)
            and id(node) not in fields
        ):
            yield Definition(path, node.lineno, "variable", node.id)


if __name__ == "__main__":
    raise SystemExit(main())
