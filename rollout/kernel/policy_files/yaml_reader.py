"""Read YAML or JSON as text values with line numbers.

Scalars are not converted: `no`, `46.10` and `07:00` stay text, and the reader of the field
interprets them. Repeated keys, aliases and tags are faults.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

DocumentPath = tuple[str | int, ...]  # ("gates", 0, "to") is the key `to` of the first gate
DocumentValue = str | list["DocumentValue"] | dict[str, "DocumentValue"]


@dataclass(frozen=True, slots=True)
class DocumentFault:
    """A fault in a document: its path, and the problem with a remedy."""

    path: DocumentPath
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """The values of a file (dicts, lists and text), their lines, and faults.

    `value` is None if the whole file is unreadable.
    """

    value: DocumentValue | None
    lines: dict[DocumentPath, int]
    faults: tuple[DocumentFault, ...] = ()

    def find_line(self, path: DocumentPath) -> int:
        """Return the line of `path`, or of its nearest parent with a line."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def format_path(path: DocumentPath) -> str:
    """Return a path as text; the root is "(file)".

    >>> format_path(("gates", 0, "require", 1, "at_least"))
    'gates[0].require[1].at_least'
    """
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).strip(".") or "(file)"


def read_document(text: str) -> Document:
    """Read one YAML or JSON document; an empty file is an empty mapping.

    Text that is not YAML returns a document with one fault and no values.
    """
    try:
        root = yaml.compose(_prepare_json(text), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        return _describe_yaml_error(error)
    except yaml.YAMLError as error:
        return Document(
            None, {}, (DocumentFault((), f"is not YAML: {str(error).splitlines()[0]}"),)
        )
    except RecursionError:
        return Document(None, {}, (DocumentFault((), "is nested too deeply; close the brackets"),))
    if root is None:
        return Document({}, {})
    return _NodeReader(has_nulls=_is_json(text)).read(root)


def _is_json(text: str) -> bool:
    return text.lstrip("\ufeff \t\r\n").startswith("{")


def _prepare_json(text: str) -> str:
    """Return JSON without tabs, which PyYAML rejects as white space."""
    return text.removeprefix("\ufeff").replace("\t", " ") if _is_json(text) else text


def _describe_yaml_error(error: yaml.MarkedYAMLError) -> Document:
    context_mark, mark = error.context_mark, error.problem_mark or error.context_mark
    line = 1 if mark is None else mark.line + 1
    problem, context = error.problem or "", error.context or ""
    hints = (hint for prefix, hint in _HINTS.items() if problem.startswith(prefix))
    text = f"is not YAML: {problem}; {next(hints, _DEFAULT_HINT)}"
    if "another document" in problem:
        text = "holds a second document; a policy is one document: remove `---` and what follows"
    elif context_mark is not None and (opened_text := _OPENED_HINTS.get(context)):
        text, line = f"is not YAML: {opened_text} (seen on line {line})", context_mark.line + 1
    return Document(None, {(): line}, (DocumentFault((), text),))


# Tags that PyYAML infers from plain text; they are ignored.
_IMPLICIT = frozenset(
    ["str", "int", "float", "bool", "null", "timestamp", "merge", "value", "map", "seq"]
)

NULL_TAG = "tag:yaml.org,2002:null"

_DEFAULT_HINT = "see the lines above for an open bracket or quote"
_HINTS = {
    "mapping values are not allowed here": "begin each key in the column of its neighbours, and "
    "quote a text that contains a colon and a space",
    "found character '\\t' that cannot start any token": "indent with spaces, not with tabs",
    "expected <block end>": "begin this line in the column of its neighbours",
}
_OPENED_HINTS = {  # by PyYAML's context: the problem where that context began
    "while parsing a flow sequence": "a bracket [ that opens here is not closed",
    "while parsing a flow mapping": "a brace { that opens here is not closed",
    "while scanning a quoted scalar": "a quote that opens here is not closed",
    "while scanning a simple key": "a key without a colon and a space; write `key: value`",
}


class _NodeReader:
    """Converts composed YAML nodes to values and collects lines and faults.

    If `has_nulls`, a bare null is no value, as in JSON; else it is text, such as a label.
    """

    def __init__(self, *, has_nulls: bool) -> None:
        self._has_nulls = has_nulls
        self._lines: dict[DocumentPath, int] = {}
        self._faults: list[DocumentFault] = []
        self._visited: set[int] = set()

    def read(self, root: yaml.Node) -> Document:
        return Document(self._read_value(root, ()), self._lines, tuple(self._faults))

    def _read_value(self, node: yaml.Node, path: DocumentPath) -> DocumentValue:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in self._visited:
            self._faults.append(DocumentFault(path, "is an alias; write the value out here"))
            return ""
        self._visited.add(id(node))
        if node.tag.removeprefix("tag:yaml.org,2002:") not in _IMPLICIT:
            self._faults.append(DocumentFault(path, f"has the tag {node.tag}; leave the tag out"))
        if isinstance(node, yaml.MappingNode):
            return dict(self._read_entries(node, path))
        if isinstance(node, yaml.SequenceNode):
            return [self._read_value(item, (*path, index)) for index, item in enumerate(node.value)]
        if self._has_nulls and node.tag == NULL_TAG:
            return ""
        return _join_surrogates(node.value.strip())

    def _read_entries(
        self, node: yaml.MappingNode, path: DocumentPath
    ) -> Iterator[tuple[str, DocumentValue]]:
        key_lines: dict[str, int] = {}
        for key, value in node.value:
            name = _join_surrogates(key.value) if isinstance(key, yaml.ScalarNode) else ""
            key_path, line = (*path, name), key.start_mark.line + 1
            if not name:
                self._faults.append(DocumentFault((*path, "?"), "is no key; keys are single words"))
                self._lines[*path, "?"] = line
            elif name in key_lines:
                text = f"is repeated, first on line {key_lines[name]}; keep one of them"
                self._faults.append(DocumentFault((*key_path, ""), text))
                self._lines[*key_path, ""] = line
            else:
                key_lines[name] = self._lines[key_path] = line
                yield name, self._read_value(value, key_path)


def _join_surrogates(text: str) -> str:
    """Return text with surrogate pairs, as JSON escapes write them, joined."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
