"""Jinja environment and style tokens of report and console."""

from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from rollout.reports.pages.template_bytecode import TemplateBytecode
from rollout.reports.text import formatting

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
    return files(SHARED_PACKAGE).joinpath("templates", TOKENS_FILE).read_text("utf-8")
