"""Jinja environment and style tokens of report and console."""

import marshal
import os
import sys
from contextlib import suppress
from importlib.metadata import version
from importlib.resources import files
from importlib.util import MAGIC_NUMBER, cache_from_source
from pathlib import Path

from jinja2 import BytecodeCache, ChoiceLoader, Environment, PackageLoader, StrictUndefined
from jinja2.bccache import Bucket

from rollout.reports.text import formatting


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


SHARED_PACKAGE = "rollout.reports"  # its `marks.html.j2` draws tags and stages everywhere
TOKENS_FILE = "tokens.css"


def load_templates(package: str) -> Environment:
    r"""Return the Jinja environment of a package, with the common filters.

    >>> load_templates("rollout.reports").filters["pc"](0.5)
    '50.0\xa0%'
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(SHARED_PACKAGE)]),
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
