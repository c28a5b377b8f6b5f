"""YAML or JSON as plain text values that know their lines.

No scalar is guessed at: `no`, `46.10` and `07:00` arrive as the letters in the file, and whoever
reads a field decides what they mean. Repeated keys, aliases and tags are faults.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

Place = tuple[str | int, ...]  # ("gates", 0, "to") is the key `to` of the first gate
Value = str | list["Value"] | dict[str, "Value"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where, and a sentence that also says what would be right."""

    place: Place
    says: str


@dataclass(frozen=True, slots=True)
class Document:
    """One file: its values (dicts, lists and text), their lines, and what could not be read.

    `value` is None where the whole file is unreadable.
    """

    value: Value | None
    lines: dict[Place, int]
    faults: tuple[Fault, ...] = ()

    def line(self, place: Place) -> int:
        """Return the line of `place`, or of the nearest thing around it that has one."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def field_path(place: Place) -> str:
    """Write a place as people read it; the file itself is "(file)".

    >>> field_path(("gates", 0, "require", 1, "at_least"))
    'gates[0].require[1].at_least'
    """
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return "".join(steps).strip(".") or "(file)"


def read_lines(text: str) -> Document:
    """Read one YAML or JSON document. An empty file is an empty mapping.

    What is not YAML gives a document with one fault and no values.
    """
    try:
        root = yaml.compose(_plain(text), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        return _unreadable(error)
    except yaml.YAMLError as error:
        return Document(None, {}, (Fault((), f"is not YAML: {str(error).splitlines()[0]}"),))
    except RecursionError:
        return Document(None, {}, (Fault((), "is nested too deeply; close the brackets"),))
    if root is None:
        return Document({}, {})
    return _Walk().document(root)


def _plain(text: str) -> str:
    """Make JSON fit PyYAML: a tab is no white space to it, and a pair of surrogates no letter."""
    is_flow = text.lstrip("\ufeff \t\r\n").startswith("{")
    return text.removeprefix("\ufeff").replace("\t", " ") if is_flow else text


def _unreadable(error: yaml.MarkedYAMLError) -> Document:
    context_mark, mark = error.context_mark, error.problem_mark or error.context_mark
    line = 1 if mark is None else mark.line + 1
    problem, context = error.problem or "", error.context or ""
    text = f"is not YAML: {problem}; {_hint(problem)}"
    if "another document" in problem:
        text = "holds a second document; a policy is one document: remove `---` and what follows"
    elif context_mark is not None and (opened_text := _OPENED.get(context)):
        text, line = f"is not YAML: {opened_text} (seen on line {line})", context_mark.line + 1
    return Document(None, {(): line}, (Fault((), text),))


def _hint(problem: str) -> str:
    return next((hint for prefix, hint in _HINTS.items() if problem.startswith(prefix)), _OPEN)


# What PyYAML makes of a value by its letters; here they stay letters.
_IMPLICIT = frozenset(
    ["str", "int", "float", "bool", "null", "timestamp", "merge", "value", "map", "seq"]
)

_OPEN = "see the lines above for an open bracket or quote"
_HINTS = {
    "mapping values are not allowed here": "begin each key in the column of its neighbours, and "
    "quote a text that contains a colon and a space",
    "found character '\\t' that cannot start any token": "indent with spaces, not with tabs",
    "expected <block end>": "begin this line in the column of its neighbours",
}
_OPENED = {  # what PyYAML was reading: what is wrong where it began
    "while parsing a flow sequence": "a bracket [ that opens here is not closed",
    "while parsing a flow mapping": "a brace { that opens here is not closed",
    "while scanning a quoted scalar": "a quote that opens here is not closed",
    "while scanning a simple key": "a key without a colon and a space; write `key: value`",
}


class _Walk:
    """One pass over the composed nodes: values out, lines and faults noted on the way."""

    def __init__(self) -> None:
        self._lines: dict[Place, int] = {}
        self._faults: list[Fault] = []
        self._seen: set[int] = set()

    def document(self, root: yaml.Node) -> Document:
        value = self._value(root, ())
        return Document(value, self._lines, tuple(self._faults))

    def _value(self, node: yaml.Node, place: Place) -> Value:
        self._lines.setdefault(place, node.start_mark.line + 1)
        if id(node) in self._seen:
            self._faults.append(Fault(place, "is an alias; write the value out here"))
            return ""
        self._seen.add(id(node))
        if node.tag.removeprefix("tag:yaml.org,2002:") not in _IMPLICIT:
            self._faults.append(Fault(place, f"has the tag {node.tag}; leave the tag out"))
        if isinstance(node, yaml.MappingNode):
            return dict(self._entries(node, place))
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*place, index)) for index, item in enumerate(node.value)]
        return _whole_letters(node.value.strip())

    def _entries(self, node: yaml.MappingNode, place: Place) -> Iterator[tuple[str, Value]]:
        key_lines: dict[str, int] = {}
        for key, value in node.value:
            name = _whole_letters(key.value) if isinstance(key, yaml.ScalarNode) else ""
            key_path, line = (*place, name), key.start_mark.line + 1
            if not name:
                self._faults.append(Fault((*place, "?"), "is no key; keys are single words"))
                self._lines[*place, "?"] = line
            elif name in key_lines:
                text = f"stands twice, first on line {key_lines[name]}; keep one of them"
                self._faults.append(Fault((*key_path, ""), text))
                self._lines[*key_path, ""] = line
            else:
                key_lines[name] = self._lines[key_path] = line
                yield name, self._value(value, key_path)


def _whole_letters(text: str) -> str:
    """Join what JSON writes as two escapes into the one letter that they stand for."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
