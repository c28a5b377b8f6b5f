"""Count what makes the code heavy, and compare it with the most that `ratchets.toml` allows.

`python tools/ratchets.py` prints each count of the tree beside its limit; it fails if one is above.
`--lower` writes lower limits where counts have fallen; nothing here raises one. `--run` also counts
what a posted case, a widening tick and an approval do (tests/tools/measured_work.py).

| count | what it counts |
|---|---|
| statements | statements of rollout and api, docstrings left out |
| modules, empty_modules | Python files there; those that have at most a docstring |
| long_modules, full_folders | modules of more than 700 lines; folders of more than 25 modules |
| twin_classes | classes of four fields or more that share 70 % with another, no sibling |
| template_lines | lines of templates with more than 160 characters |
| function_p99 | statements of a function that 99 % of all functions don't exceed |
| measure_tests | comparisons and matches of a measure outside `rollout/kernel/measures` |
| kind_tests | questions after a subclass of `KINDS` outside its modules: isinstance, match, type |
| open_modules | modules of features that others import than the feature, its API and its commands |
| text_readers | searches in, cuts from and bends of what a sayer returned, a reason or a refusal |
| policy_keys, commands | as the policy's schema and the command line list them |
| options.NAME | modules in which a condition names the option, by its words in identifiers |
"""

import ast
import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIMITS = Path(__file__).with_name("ratchets.toml")
MEASURES = ROOT / "rollout/kernel/measures"
OWN_TEXT = re.compile(r"(say|describe|format|phrase)_\w+|reason|sentence|\w+_(reason|sentence)")
"""Names of sayers, and of what they said."""
READING_METHODS = {
    *("endswith", "find", "index", "partition", "removeprefix", "removesuffix", "replace"),
    *("rpartition", "rsplit", "split", "startswith"),
}
BENDING_METHODS = {"capitalize", "lower", "lstrip", "rstrip", "title", "upper"}
BENDERS = re.compile(r"capitalize_\w+|to_sentence")
BENT_TEXT = re.compile(rf"{OWN_TEXT.pattern}|{BENDERS.pattern}|[A-Z]+(_[A-Z]+)+")
"""Also sentences, and texts that are constants."""
BENT_IN_TEMPLATE = re.compile(
    r"\.(?:lstrip|rstrip|removesuffix|partition)\("
    r"|\b(?:reason|sentence|says|\w+_(?:reason|text)) *\| *(?:capitalize|first_large|lower|replace)"
)
KINDS = {
    "LedgerEvent": ("rollout/engine/events/", "rollout/engine/ledger/access_events.py"),
    "Population": ("rollout/kernel/populations.py", "rollout/kernel/facts.py"),
}
"""Bases whose subclasses nobody asks for but the modules named here."""
LONG_LINE, LONG_MODULE, FULL_FOLDER = 160, 700, 25
FEW_FIELDS = 4
ALIKE = 0.7
FRAMEWORK_BASES = frozenset(
    {"BaseModel", "NamedTuple", "Protocol", "Struct", "TypedDict", "object"}
)


@dataclass(frozen=True)
class CodeModule:
    """A Python file with what is counted of it."""

    path: Path
    tree: ast.Module

    @property
    def length(self) -> int:
        """Its lines."""
        return self.tree.body[-1].end_lineno or 0 if self.tree.body else 0

    @cached_property
    def statements(self) -> int:
        """How many statements it has."""
        return count_statements(self.tree)

    @cached_property
    def conditions(self) -> frozenset[str]:
        """The identifiers that its conditions name, texts that could be one included."""
        return frozenset(
            name for test in list_conditions(self.tree) for name in list_identifiers(test)
        )


@dataclass(frozen=True)
class CodeClass:
    """A class by its annotated fields and its bases."""

    name: str
    fields: frozenset[str]
    bases: frozenset[str]

    def is_twin(self, other: "CodeClass") -> bool:
        """Return whether both share most fields without being siblings."""
        larger = max(len(self.fields), len(other.fields))
        are_siblings = self.bases & other.bases
        return not are_siblings and len(self.fields & other.fields) >= ALIKE * larger


@dataclass
class Counts:
    """All counts by name, and the limits that they are compared with."""

    values: dict[str, int]
    limits: dict[str, int] = field(default_factory=dict)

    def list_faults(self) -> Iterator[str]:
        """Yield a sentence for each count that is above its limit or has none."""
        for name, value in self.values.items():
            limit = self.limits.get(name)
            if limit is None:
                yield f"{name} is {value} and has no limit: write one into tools/ratchets.toml"
            elif value > limit:
                yield (
                    f"{name} is {value}, {value - limit} above its limit {limit}: remove as much "
                    "elsewhere, or raise the limit in tools/ratchets.toml and say why"
                )


def main(arguments: list[str]) -> int:
    """Print all counts; return 1 if one is above its limit, else 0."""
    table = tomllib.loads(LIMITS.read_text(encoding="utf-8"))
    values = count_tree(ROOT, {name: each["words"] for name, each in table["options"].items()})
    if "--run" in arguments:
        from tests.tools.measured_work import measure_work  # noqa: PLC0415 - it starts a service

        values |= measure_work()
    counts = Counts(values, read_limits(table))
    for name, value in values.items():
        print(f"{name:<32}{value:>8}{counts.limits.get(name, '-'):>8}")
    if "--lower" in arguments:
        lower_limits(values)
    faults = list(counts.list_faults())
    if faults:
        print(*faults, sep="\n", file=sys.stderr)
    return int(bool(faults))


def count_tree(root: Path, words_by_option: dict[str, list[str]]) -> dict[str, int]:
    """Return what can be counted without running anything."""
    modules = [
        CodeModule(path, ast.parse(path.read_text(encoding="utf-8")))
        for folder in ("rollout", "api")
        for path in sorted((root / folder).rglob("*.py"))
    ]
    templates = [
        line
        for folder in ("rollout", "api")
        for path in (root / folder).rglob("*.j2")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    counts = {
        "statements": sum(module.statements for module in modules),
        "modules": len(modules),
        "empty_modules": sum(module.statements == 0 for module in modules),
        "long_modules": sum(module.length > LONG_MODULE for module in modules),
        "full_folders": sum(
            n > FULL_FOLDER for n in Counter(module.path.parent for module in modules).values()
        ),
        "twin_classes": count_twins(list(list_classes(modules))),
        "template_lines": sum(len(line) > LONG_LINE for line in templates),
        "function_p99": find_function_p99(modules),
        "measure_tests": sum(
            count_measure_tests(module.tree)
            for module in modules
            if MEASURES not in module.path.parents
        ),
        "kind_tests": sum(count_kind_tests(modules, root, *each) for each in KINDS.items()),
        "text_readers": sum(
            reads_words(node) or bends_words(node)
            for module in modules
            for node in walk(module.tree)
        )
        + sum(len(BENT_IN_TEMPLATE.findall(line)) for line in templates),
        "open_modules": count_open_modules(modules, root),
        "migrations": len(list((root / "migrations/versions").glob("*.py"))),
        "policy_keys": count_policy_keys(root / "config/policy.schema.json"),
        "commands": (root / "docs/reference/cli.md").read_text("utf-8").count("\n## rollout "),
    }
    for option, words in words_by_option.items():
        pattern = re.compile("|".join(words), re.IGNORECASE)
        knowing = (any(map(pattern.search, module.conditions)) for module in modules)
        counts[f"options.{option}"] = sum(knowing)
    return counts


@cache
def walk(tree: ast.AST) -> tuple[ast.AST, ...]:
    """Return the nodes of a tree that is counted again and again."""
    return tuple(ast.walk(tree))


def count_statements(tree: ast.AST) -> int:
    """Return the statements of a tree, docstrings left out."""
    return sum(isinstance(node, ast.stmt) and not is_docstring(node) for node in walk(tree))


def count_measure_tests(tree: ast.AST) -> int:
    """Return how often a tree asks which measure something is, instead of what it can do."""
    compared = (
        [node.left, *node.comparators] if isinstance(node, ast.Compare) else [node.subject]
        for node in walk(tree)
        if isinstance(node, ast.Compare | ast.Match)
    )
    return sum(any(map(names_measure, operands)) for operands in compared)


def names_measure(node: ast.AST) -> bool:
    """Return whether an expression is a measure, or its name."""
    if isinstance(node, ast.Attribute):
        is_name = node.attr == "name" and names_measure(node.value)
        return is_name or node.attr == "measure"
    return isinstance(node, ast.Name) and node.id == "measure"


def count_kind_tests(
    modules: list[CodeModule], root: Path, base: str, places: tuple[str, ...]
) -> int:
    """Return how often modules elsewhere ask whether something is of a subclass of a base."""
    bases_by_class = {
        node.name: set(map(get_last_name, node.bases))
        for module in modules
        for node in walk(module.tree)
        if isinstance(node, ast.ClassDef)
    }
    kinds = {base}
    while more := {name for name, bases in bases_by_class.items() if bases & kinds} - kinds:
        kinds |= more
    return sum(
        sum(asks_kind(node, names) for node in walk(module.tree))
        for module in modules
        if not module.path.relative_to(root).as_posix().startswith(places)
        for names in [kinds | list_constants(module.tree, kinds)]
    )


def count_open_modules(modules: list[CodeModule], root: Path) -> int:
    """Return of how many modules of features others know than the feature and its API folder.

    The table of commands is none of them: it names what a command is made of.
    """
    opened = set()
    for module in modules:
        folders = module.path.relative_to(root).with_suffix("").parts
        own = {"rollout": folders[2:3], "api": folders[1:2]}[folders[0]]
        for node in walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.module and folders[1] != "cli":
                names = [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
                parts = [name.split(".") for name in names if name.startswith("rollout.features.")]
                opened |= {tuple(each) for each in parts if tuple(each[2:3]) != own}
    paths = {module.path.relative_to(root).with_suffix("").parts for module in modules}
    return len(opened & paths)


def reads_words(node: ast.AST) -> bool:
    """Return whether a node looks for words in an own sentence, or cuts them from it.

    Marks without letters may be looked for: they are of typed texts, or how lines break.
    """
    match node:
        case ast.Call(func=ast.Attribute(value=text, attr=method), args=[mark, *_]):
            is_reader = method in READING_METHODS
        case ast.Compare(left=mark, ops=[ast.In() | ast.NotIn()], comparators=[text]):
            is_reader = True
        case _:
            return False
    value = str(mark.value) if isinstance(mark, ast.Constant) else ""
    is_mark = re.fullmatch(r"[^\w ]", value) or get_last_name(mark) == "NO_BREAK_SPACE"
    source = text.func if isinstance(text, ast.Call) else text
    return bool(is_reader and not is_mark and OWN_TEXT.fullmatch(get_last_name(source)))


def bends_words(node: ast.AST) -> bool:
    """Return whether a node changes letters or ends of an own sentence or of a refusal.

    What it changes may be a part of the sentence, or a field of what a sayer returned.
    """
    match node:
        case ast.Call(func=ast.Attribute(attr="rstrip" | "lstrip"), args=[ast.Constant(mark)]) if (
            re.fullmatch(r"[^\w ]", str(mark))
        ):
            return False
        case ast.Call(func=ast.Attribute(value=text, attr=method)) if method in BENDING_METHODS:
            pass
        case ast.Subscript(value=ast.Call() as text, slice=ast.Slice()):
            pass
        case ast.Call(func=function, args=[text]) if BENDERS.fullmatch(get_last_name(function)):
            return is_refusal(text)
        case _:
            return False
    names = []
    while isinstance(text, ast.Attribute | ast.Call | ast.Subscript) and not is_refusal(text):
        names.append(get_last_name(text))
        text = text.func if isinstance(text, ast.Call) else text.value
    names.append(get_last_name(text))
    return is_refusal(text) or any(map(BENT_TEXT.fullmatch, names))


def is_refusal(node: ast.AST) -> bool:
    """Return whether an expression is the text of an error."""
    match node:
        case ast.Call(func=ast.Name("str"), args=[ast.Name("error" | "refusal")]):
            return True
    return False


def asks_kind(node: ast.AST, kinds: set[str]) -> bool:
    """Return whether a node asks for one of some classes: by call, pattern or `type(...)`."""
    if isinstance(node, ast.MatchClass):
        return get_last_name(node.cls) in kinds
    if isinstance(node, ast.Call) and get_last_name(node.func) in {"isinstance", "issubclass"}:
        return any(get_last_name(each) in kinds for each in ast.walk(node.args[1]))
    return (
        isinstance(node, ast.Compare)
        and any(
            isinstance(each, ast.Call) and get_last_name(each.func) == "type"
            for each in [node.left, *node.comparators]
        )
        and any(get_last_name(each) in kinds for each in ast.walk(node))
    )


def get_last_name(node: ast.AST) -> str:
    """Return the last part of a name, without its parameters; "" of other expressions."""
    if isinstance(node, ast.Subscript):
        return get_last_name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def list_constants(tree: ast.Module, kinds: set[str]) -> set[str]:
    """Return the names of a module's constants that list some of the classes."""
    return {
        get_last_name(target)
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and node.value is not None
        and any(get_last_name(each) in kinds for each in ast.walk(node.value))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    }


def is_docstring(node: ast.AST) -> bool:
    """Return whether a statement is a text alone."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def list_conditions(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what a tree asks: tests, subjects and patterns of matches, filters, `and` and `or`."""
    for node in walk(tree):
        if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
            yield node.test
        elif isinstance(node, ast.comprehension):
            yield from node.ifs
        elif isinstance(node, ast.BoolOp):
            yield node
        elif isinstance(node, ast.Match):
            yield node.subject
            for case in node.cases:
                yield case.pattern
                if case.guard is not None:
                    yield case.guard


def list_identifiers(tree: ast.AST) -> Iterator[str]:
    """Yield the names in an expression, and each text that could be a name."""
    for node in walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.isidentifier()
        ):
            yield node.value


def list_classes(modules: list[CodeModule]) -> Iterator[CodeClass]:
    """Yield the classes of modules that have four annotated fields or more."""
    for module in modules:
        for node in walk(module.tree):
            if isinstance(node, ast.ClassDef):
                names = {
                    each.target.id
                    for each in node.body
                    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
                }
                if len(names) >= FEW_FIELDS:
                    bases = {ast.unparse(base) for base in node.bases} - FRAMEWORK_BASES
                    yield CodeClass(node.name, frozenset(names), frozenset(bases))


def count_twins(classes: list[CodeClass]) -> int:
    """Return how many classes have a twin."""
    return sum(
        any(each.is_twin(other) for other in classes if other is not each) for each in classes
    )


def find_function_p99(modules: list[CodeModule]) -> int:
    """Return the number of statements that 99 % of all functions don't exceed; 0 without any."""
    sizes = sorted(
        count_statements(node) - 1
        for module in modules
        for node in walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return sizes[min(len(sizes) * 99 // 100, len(sizes) - 1)] if sizes else 0


def count_policy_keys(schema_file: Path) -> int:
    """Return how many keys a policy may have, each place where one may stand counted."""
    schema = json.loads(schema_file.read_text(encoding="utf-8"))
    return sum(1 for _ in list_keys(schema, schema))


def list_keys(node: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    """Yield the keys of a node of a JSON Schema and of all nodes below it."""
    for key, child in node.get("properties", {}).items():
        shape = resolve_reference(child, schema)
        yield key
        yield from list_keys(resolve_reference(shape.get("items", shape), schema), schema)


def resolve_reference(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return what a node refers to, or the node; of several choices, the one with keys."""
    name = node.get("$ref", "").rpartition("/")[2]
    target: dict[str, Any] = schema["$defs"][name] if name else node
    return next((each for each in target.get("anyOf", ()) if "properties" in each), target)


def read_limits(table: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Return all limits by the names of their counts."""
    options = {f"options.{name}": each["branch"] for name, each in table["options"].items()}
    return {**table["tree"], **table["run"], **options}


def lower_limits(values: dict[str, int]) -> None:
    """Write each limit down to its count; a limit that is below stays."""
    text = LIMITS.read_text(encoding="utf-8")
    for name, value in values.items():
        key = name.partition(".")[2] or name
        pattern = rf"^({re.escape(key)} = (?:\{{branch = )?)(\d+)"
        text = re.sub(
            pattern,
            lambda match, most=value: match[1] + str(min(int(match[2]), most)),
            text,
            flags=re.MULTILINE,
        )
    LIMITS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
