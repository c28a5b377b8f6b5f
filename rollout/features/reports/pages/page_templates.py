"""Jinja environment, style tokens and shades of matrices, of report and console.

Shades: agreement stays pale, differences stand out by share or cost.
"""

import marshal
import os
import sys
from bisect import bisect_right
from contextlib import suppress
from importlib.metadata import version
from importlib.resources import files
from importlib.util import MAGIC_NUMBER, cache_from_source
from pathlib import Path
from typing import Final

from jinja2 import BytecodeCache, ChoiceLoader, Environment, PackageLoader, StrictUndefined
from jinja2.bccache import Bucket

from rollout.engine.words import formatting
from rollout.features.reports.figures.comparison import ConfusionMatrix


class TemplateBytecode(BytecodeCache):
    """The bytecode of templates by the path of their source.

    It depends on the template's text, on Jinja, Python and the environment's options alone: filters
    run when a page is rendered, never on constants when it is compiled (a test compares).
    """

    def __init__(self) -> None:
        self._jinja = version("jinja2")

    def get_cache_key(self, name: str, filename: str | None = None) -> str:  # noqa: ARG002 - Jinja's
        """Return the path of a template's bytecode, empty for one without a file."""
        return "" if filename is None else cache_from_source(filename)

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill in the code if its file is of this very source."""
        header = self._build_header(bucket)
        # whatever can't be read is compiled again
        with suppress(OSError, EOFError, ValueError, TypeError):
            content = Path(bucket.key).read_bytes()
            if content.startswith(header):
                bucket.code = marshal.loads(content[len(header) :])  # noqa: S302 - as Python's own

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Write the code, whole or not at all, if Python may write its own."""
        if sys.dont_write_bytecode or not bucket.key:
            return
        path = Path(bucket.key)
        part = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("xb") as file:
                file.write(self._build_header(bucket) + marshal.dumps(bucket.code))
            part.replace(path)
        except OSError:  # a full disk, a read-only folder: the page needs no file
            with suppress(OSError):
                part.unlink()

    def _build_header(self, bucket: Bucket) -> bytes:
        environment = bucket.environment
        options = (environment.autoescape, environment.trim_blocks, environment.lstrip_blocks)
        return f"{self._jinja} {MAGIC_NUMBER.hex()} {options} {bucket.checksum}\n".encode()


SHARED_PACKAGE = "rollout.features.reports"  # its `marks.html.j2` draws tags and stages everywhere
TOKENS_FILE = "tokens.css"


def load_templates(package: str, *folders: str) -> Environment:
    r"""Return the Jinja environment of a package's folders, with the common filters.

    >>> load_templates("rollout.features.reports").filters["pc"](0.5)
    '50.0\xa0%'
    """
    loaders = [PackageLoader(package, folder) for folder in folders or ("templates",)]
    environment = Environment(
        loader=ChoiceLoader([*loaders, PackageLoader(SHARED_PACKAGE)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=TemplateBytecode(),
    )
    environment.filters.update(
        pc=formatting.format_percent,
        num=formatting.format_count,
        dec=formatting.format_decimal,
        signed=formatting.format_signed,
        sentence=formatting.to_sentence,
    )
    return environment


def load_tokens() -> str:
    """Return the style sheet of colours, type, tags and stages."""
    return (files(SHARED_PACKAGE) / "templates" / TOKENS_FILE).read_text("utf-8")


AGREEMENT_SHADES, LOSS_SHADES = 2, 4
"""Classes of tokens.css. Agreement takes the pale ones, so that differences stand out when dark."""
LOSS_LIMITS: Final = (0.01, 0.03, 0.1)
"""Shares of a row from which a difference has the next shade."""


def choose_shades(matrix: ConfusionMatrix) -> list[list[str]]:
    """Return the shade class of each cell by row: labels by share of the row, actions by cost.

    Empty for zero counts and zero costs.

    >>> choose_shades(ConfusionMatrix(("ring", "wait"), ((3, 1), (0, 6)), ((0, 20), (1, 0))))
    [['', 'lo-4'], ['', '']]
    """
    if matrix.costs is None:
        return [
            [
                choose_count_shade(count, total, is_agreement=row == column)
                for column, count in enumerate(counts)
            ]
            for row, counts in enumerate(matrix.counts)
            for total in [sum(counts)]
        ]
    costs = [
        [count * cost for count, cost in zip(*rows, strict=True)]
        for rows in zip(matrix.counts, matrix.costs, strict=True)
    ]
    max_cost = max(map(max, costs))
    return [[choose_cost_shade(cost, max_cost) for cost in row] for row in costs]


def choose_count_shade(count: int, total: int, *, is_agreement: bool) -> str:
    """Return the shade class of a count of a row.

    >>> [choose_count_shade(count, 1000, is_agreement=False) for count in (0, 4, 12, 66, 171)]
    ['', 'lo-1', 'lo-2', 'lo-3', 'lo-4']
    >>> choose_count_shade(829, 1000, is_agreement=True)
    'sh-2'
    """
    if not count:
        return ""
    if is_agreement:
        return _choose_step("sh", count, total, AGREEMENT_SHADES)
    return f"lo-{1 + bisect_right(LOSS_LIMITS, count / total)}"


def choose_cost_shade(cost: float, max_cost: float) -> str:
    """Return the shade class of a cost, by its part of the largest one of the matrix."""
    return _choose_step("lo", cost, max_cost, LOSS_SHADES) if cost else ""


def _choose_step(kind: str, part: float, total: float, step_count: int) -> str:
    return f"{kind}-{min(step_count, 1 + int(step_count * part / total))}"
