"""The smallest example of each recipe of CONTRIBUTING: what is added to which file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What somebody adds who follows a section of CONTRIBUTING.

    Attributes:
        title: of the section.
        edits: by file, what is added before a text that stands there once.
        files: new files with their text.
        generated: files that a command of the section writes anew.
    """

    title: str
    edits: dict[str, dict[str, str]]
    files: dict[str, str]
    generated: tuple[str, ...]


ROUTE = '''
@router.get("/sources", operation_id="listTrainingSources", summary="List the sources of labels")
def list_training_sources(_caller: Reader) -> list[str]:
    """Return the sources that an export may name."""
    return list(get_args(Source))


'''
ENDPOINT = Recipe(
    "How to add an endpoint",
    {
        "api/training/routes.py": {
            "\n\nfrom fastapi import APIRouter, Depends, Query\n": ", get_args",
            "cleanings_router = APIRouter(": ROUTE,
        }
    },
    {},
    ("docs/reference/api.md",),
)
PAGE_FUNCTION = '''
@router.get("/rollouts/{rollout}/purpose")
def show_purpose(request: Request, visitor: CurrentVisitor, rollout: str) -> Response:
    """Show what a rollout is for."""
    require_permission(visitor.caller, Permission.READ, rollout)
    return render_page(request, visitor, "purpose", name=rollout)


'''
PAGE_TEMPLATE = """{% extends "base.html.j2" %}
{% block title %}Purpose{% endblock %}
{% block content %}
<h1>Purpose of {{ name }}</h1>
{% endblock %}
"""
PAGE = Recipe(
    "How to add a page",
    {"api/policies/pages.py": {'@router.get("/new")\n': PAGE_FUNCTION}},
    {"api/policies/purpose.html.j2": PAGE_TEMPLATE},
    (),
)
SETTING = Recipe(
    "How to add a setting",
    {
        "rollout/settings.py": {
            "        api_key: API key": "        nickname: what pages call it; empty: its URL.\n",
            '    server: str = ""\n': '    nickname: str = ""\n',
        }
    },
    {},
    ("docs/reference/settings.md",),
)
FIGURE_CLASS = '''@dataclass(frozen=True)
class SiteCount:
    """How many sites had a case.

    Attributes:
        sites: their number.
    """

    sites: int


def count_sites(cases: pl.DataFrame) -> SiteCount:
    """Return how many sites had one of the cases."""
    return SiteCount(cases["site"].n_unique())


'''
FIGURES = "rollout/features/reports/figures"
TEMPLATES = "rollout/features/reports/templates"
FIGURE = Recipe(
    "How to add a report figure",
    {
        f"{FIGURES}/reviewers.py": {"def compute_anchoring(\n": FIGURE_CLASS},
        f"{FIGURES}/facts.py": {
            "    Anchoring,\n": "    SiteCount,\n    count_sites,\n",
            "        anchoring: how much": "        site_count: how many sites had a case.\n",
            "    anchoring: tuple[Anchoring, ...] = declare": (
                "    site_count: SiteCount = declare_figure(\n"
                "        lambda m: count_sites(m.inputs.cases)\n    )\n"
            ),
        },
        "rollout/features/reports/pages/section_summaries.py": {
            "), _summarize_agreement": ', "site_count"'
        },
    },
    {
        f"{TEMPLATES}/engineer_site_count.html.j2": (
            "<p>Cases came from {{ several(facts.site_count.sites, 'site') }}.</p>\n"
        )
    },
    ("config/report.schema.json",),
)
RECIPES = (ENDPOINT, PAGE, SETTING, FIGURE)
