"""Labels for table cells, so that a narrow screen can show rows as cards."""

import re

from markupsafe import Markup

HEADER_PATTERN = re.compile(r"<thead>(.*?)</thead>", re.DOTALL)
COLUMN_PATTERN = re.compile(r"<th\b[^>]*>(.*?)</th>|<td></td>", re.DOTALL)
BODY_PATTERN = re.compile(r"<tbody>.*?</tbody>", re.DOTALL)
ROW_PATTERN = re.compile(r"<tr\b[^>]*>.*?</tr>", re.DOTALL)
CELL_PATTERN = re.compile(r"<(td|th)\b")


def label_cells(tables: str) -> Markup:
    """Return HTML whose table cells carry the name of their column; matrices stay as they are.

    >>> header = "<table><thead><tr><th>Cell</th><th>Units</th></tr></thead>"
    >>> table = header + "<tbody><tr><th>a</th><td>3</td></tr></tbody></table>"
    >>> str(label_cells(table)).removeprefix(header)
    '<tbody><tr><th>a</th><td data-label="Units">3</td></tr></tbody></table>'
    """
    parts = re.split(r"(?=<table\b)", str(tables))
    # `tables` is markup already: a template rendered and escaped it
    return Markup("".join(_label_table(part) for part in parts))  # noqa: S704


def _label_table(table: str) -> str:
    header = HEADER_PATTERN.search(table)
    if header is None or table.startswith('<table class="matrix"'):
        return table
    columns = [_get_plain_text(column) for column in COLUMN_PATTERN.findall(header[1])]
    return BODY_PATTERN.sub(
        lambda body: ROW_PATTERN.sub(lambda row: _label_row(row[0], columns), body[0]), table
    )


def _get_plain_text(html: str) -> str:
    return re.sub(r"<[^>]*>", "", html).replace('"', "&quot;")


def _label_row(row: str, columns: list[str]) -> str:
    names = iter(columns)

    def add_label(cell: re.Match[str]) -> str:
        name = next(names, "")
        return f'<td data-label="{name}"' if cell[1] == "td" and name else cell[0]

    return CELL_PATTERN.sub(add_label, row)
