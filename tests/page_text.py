"""The text of a page without white space that a browser doesn't show."""

import re

VERBATIM = re.compile(r"(<pre\b.*?</pre>|<textarea\b.*?</textarea>)", re.DOTALL)
BLOCKS = (
    "article|aside|blockquote|body|caption|col|colgroup|dd|details|div|dl|dt|fieldset|figcaption"
    "|figure|footer|form|h[1-6]|head|header|html|legend|li|link|main|meta|nav|ol|optgroup|option|p"
    "|pre|script|section|summary|table|tbody|td|tfoot|th|thead|title|tr|ul|br|hr|path|rect|line"
    "|circle|g"
)
AROUND_BLOCKS = re.compile(rf" *(</?(?:{BLOCKS})\b(?:[^>\"]|\"[^\"]*\")*>) *")


def collapse_space(html: str) -> str:
    """Return a page with one space where white space is, and none beside what begins a line.

    >>> collapse_space("<dl>\\n  <dt>A  <b>c</b></dt>\\n</dl>")
    '<dl><dt>A <b>c</b></dt></dl>'
    """
    parts = VERBATIM.split(html)
    parts[::2] = (AROUND_BLOCKS.sub(r"\1", re.sub(r"[ \t\r\n]+", " ", part)) for part in parts[::2])
    return "".join(parts)
