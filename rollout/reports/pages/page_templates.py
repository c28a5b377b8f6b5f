"""Templates of pages: nothing undefined, everything escaped, numbers in the words of all pages."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from rollout.reports.text import formatting


def page_templates(package: str) -> Environment:
    r"""Return the templates of a package, with the filters that a report and the console share.

    >>> page_templates("rollout.reports").filters["pc"](0.5)
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
        pc=formatting.per_cent,
        num=formatting.number,
        dec=formatting.decimal,
        signed=formatting.signed,
        sentence=formatting.sentence,
    )
    return environment
