"""Jinja environment of report and console: strict, autoescaped, common filters."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from rollout.reports.text import formatting


def load_templates(package: str) -> Environment:
    r"""Return the Jinja environment of a package, with the common filters.

    >>> load_templates("rollout.reports").filters["pc"](0.5)
    '50.0\xa0%'
    """
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        pc=formatting.format_percent,
        num=formatting.format_count,
        dec=formatting.format_decimal,
        signed=formatting.format_signed,
        sentence=formatting.to_sentence,
    )
    return environment
