"""Report names that a stranger can't read: private words, and classes that share a name.

The words are participles and pronouns that say what happened to a thing instead of what it is. They
are refused as the whole name of a module, class, function or parameter. A class name stands in
one module only, so that a name in an error or a page leads to one place.

Run as `python tools/check_names.py [--list]`. Names from before the check are still being changed:
`KNOWN_FAULTS` says how many there may be. It only ever falls, and goes when it is zero.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("rollout", "api")
KNOWN_FAULTS = 1094
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
    """One name where it is defined; `kind` is module, class, function or parameter."""

    path: Path
    line: int
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.kind} {self.name}"


def main(arguments: list[str]) -> int:
    """Return 1 where there are more or fewer faults than `KNOWN_FAULTS`, else 0; say which."""
    paths = [path for folder in FOLDERS for path in sorted(Path(folder).rglob("*.py"))]
    faults = list(find_faults(paths))
    if "--list" in arguments or len(faults) > KNOWN_FAULTS:
        print(*faults, sep="\n", file=sys.stderr)
    if len(faults) > KNOWN_FAULTS:
        print(f"{len(faults)} names to change, {KNOWN_FAULTS} are known: rename the new ones")
    if len(faults) < KNOWN_FAULTS:
        print(f"{len(faults)} names to change: set KNOWN_FAULTS to it in tools/check_names.py")
    return int(len(faults) != KNOWN_FAULTS)


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
    """Yield the module, its classes, functions and parameters."""
    yield Definition(path, 1, "module", path.stem)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            yield Definition(path, node.lineno, "class", node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Definition(path, node.lineno, "function", node.name)
        elif isinstance(node, ast.arg):
            yield Definition(path, node.lineno, "parameter", node.arg)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
