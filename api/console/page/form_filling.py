"""Fill a form of a rendered page with what a user had typed into it before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser
from typing import Final
from urllib.parse import unquote

TYPED_INPUTS: Final = frozenset({"text", "search", "number", "date", "datetime-local", "time"})
CHOSEN_INPUTS: Final = frozenset({"checkbox", "radio"})
Attributes = Sequence[tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class FilledPage:
    """A page with a filled form.

    Attributes:
        html: the page.
        has_form: whether it has the form at all.
        hidden: values of the form's hidden fields, as the page has them now.
        pressed: text of the button that had been pressed with a value, "" if none.
    """

    html: str
    has_form: bool
    hidden: Mapping[str, str]
    pressed: str


def fill_form(html: str, action: str, fields: Mapping[str, list[str]]) -> FilledPage:
    """Fill the first form of a page that sends to `action`; hidden fields stay as they are.

    >>> page = '<form action="/a"><input type="text" name="x" value="1"></form>'
    >>> fill_form(page, "/a", {"x": ["<b>"]}).html
    '<form action="/a"><input type="text" name="x" value="&lt;b&gt;"></form>'
    """
    filler = _FormFiller(html, action, fields)
    return FilledPage(filler.finish(), filler.has_form, filler.hidden, filler.pressed)


@dataclass
class _OpenForm:
    """A form being read; buttons may send it to another path than its own."""

    actions: set[str]
    id: str = ""
    edits: list[tuple[int, int, str]] = field(default_factory=list)
    hidden: dict[str, str] = field(default_factory=dict)
    pressed: str = ""


class _FormFiller(HTMLParser):
    """Collects replacements of tags, so that the rest of the page stays as it is."""

    def __init__(self, html: str, action: str, fields: Mapping[str, list[str]]) -> None:
        super().__init__(convert_charrefs=True)
        self._html, self._action, self._fields = html, action, fields
        self._line_starts = [0]
        for line in html.split("\n"):
            self._line_starts.append(self._line_starts[-1] + len(line) + 1)
        self._form: _OpenForm | None = None
        self._typed_text = ""
        self._select, self._button, self._textarea = "", False, -1
        self._edits: list[tuple[int, int, str]] = []
        self.has_form, self.pressed, self._used_id = False, "", ""
        self.hidden: dict[str, str] = {}

    def finish(self) -> str:
        """Return the page with all replacements made."""
        self.feed(self._html)
        self.close()
        html = self._html
        for start, end, text in sorted(self._edits, reverse=True):
            html = html[:start] + text + html[end:]
        return html

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Replace a field's tag."""
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._form = _OpenForm({_get_path(values.get("action", ""))}, values.get("id", ""))
        typed = self._fields.get(values.get("name", ""))
        if self._form is None:
            if (
                tag == "textarea"
                and typed
                and self._used_id
                and values.get("form") == self._used_id
            ):
                self._begin_text(typed[-1])  # a field of the form that stands behind it
            return
        if "formaction" in values:
            self._form.actions.add(_get_path(values["formaction"]))
        if tag == "input":
            self._fill_input(values, typed, attrs)
        elif tag == "select":
            self._select = values.get("name", "")
        elif tag == "option" and self._select in self._fields:
            self._mark(
                "selected", attrs, tag, is_on=values.get("value") in self._fields[self._select]
            )
        elif tag == "textarea" and typed and "hidden" not in values and "readonly" not in values:
            self._begin_text(typed[-1])
        elif tag == "button" and typed and values.get("value") in typed:
            self._button = True

    def handle_data(self, data: str) -> None:
        """Note the text of the button that had been pressed."""
        if self._button and self._form is not None:
            self._form.pressed += data

    def handle_endtag(self, tag: str) -> None:
        """Finish a text, or a form."""
        if tag == "select":
            self._select = ""
        if tag == "button":
            self._button = False
        if tag == "textarea" and self._textarea >= 0:
            text = "\n" + escape(self._typed_text)  # a parser drops the first line break
            edits = self._edits if self._form is None else self._form.edits
            edits.append((self._textarea, self._offset(), text))
            self._textarea = -1
        if tag == "form" and self._form is not None:
            self._use_form(self._form)
            self._form = None

    def _begin_text(self, text: str) -> None:
        self._textarea = self._offset() + len(self.get_starttag_text() or "")
        self._typed_text = text

    def _use_form(self, form: _OpenForm) -> None:
        if self._action in form.actions and not self.has_form:
            self.has_form, self.hidden, self._used_id = True, form.hidden, form.id
            self.pressed = " ".join(form.pressed.split())
            self._edits += form.edits

    def _fill_input(
        self, values: Mapping[str, str], typed: list[str] | None, attrs: Attributes
    ) -> None:
        assert self._form is not None  # noqa: S101 - the caller has looked
        kind = values.get("type", "text")
        if kind == "hidden":
            self._form.hidden[values.get("name", "")] = values.get("value", "")
        elif kind in CHOSEN_INPUTS:
            self._mark("checked", attrs, "input", is_on=values.get("value", "on") in (typed or ()))
        elif kind in TYPED_INPUTS and typed:
            self._replace(
                "input", [pair for pair in attrs if pair[0] != "value"] + [("value", typed[-1])]
            )

    def _mark(self, name: str, attrs: Attributes, tag: str, *, is_on: bool) -> None:
        others = [pair for pair in attrs if pair[0] != name]
        self._replace(tag, [*others, (name, None)] if is_on else others)

    def _replace(self, tag: str, attrs: Attributes) -> None:
        text = "".join(
            f" {name}" if value is None else f' {name}="{escape(value)}"' for name, value in attrs
        )
        start = self._offset()
        end = start + len(self.get_starttag_text() or "")
        if self._form is not None:
            self._form.edits.append((start, end, f"<{tag}{text}>"))

    def _offset(self) -> int:
        line, column = self.getpos()
        return self._line_starts[line - 1] + column


def _get_path(action: str) -> str:
    return unquote(action.partition("?")[0])
