"""Readers of a report, and the sections of their pages."""

from collections.abc import Mapping
from typing import Final

READER_NAMES: Final[Mapping[str, str]] = {
    "operator": "operator",
    "engineer": "ML engineer",
    "auditor": "auditor",
}
SECTION_TITLES: Final[Mapping[str, Mapping[str, str]]] = {
    "operator": {
        "stages": "Stages over time",
        "cells": "Cells and next steps",
        "actions": "Change in actions",
        "divergences": "Costliest divergences",
        "incidents": "Operations",
    },
    "engineer": {
        "evidence": "Evidence against thresholds",
        "rules": "Simple rules",
        "auditing": "Price of auditing little",
        "price": "Cost of the model's decisions",
        "events": "What happened",
        "timelines": "Timelines of cells",
        "funnel": "From records to evidence",
        "agreement": "Agreement",
        "slices": "Slices",
        "losses": "Cases to look at again",
        "confusion": "Confusions",
        "confidence": "Confidence",
        "drift": "Drift",
        "latency": "Latency",
        "sampling": "Sampling",
        "outcomes": "Outcomes and baseline",
        "reviewers": "Reviewers",
        "cleaning": "Training choices",
        "feedback": "Feedback",
    },
    "auditor": {
        "policy": "Policy",
        "promises": "Promises and limits",
        "versions": "Versions and attempts",
        "ledger": "Proposals and approvals",
        "checks": "Reviewer checks",
        "stops": "Stops and incidents",
        "gaps": "Gaps in the records",
        "sources": "Reproduce this report",
    },
}
"""Sections by reader, in the order of the page; a finding links to the section of its details."""


def list_sections(view: str | None) -> dict[str, str]:
    """Return the titles of the sections of a view by their id; all without a view."""
    readers = [view] if view else list(SECTION_TITLES)
    return {id_: title for reader in readers for id_, title in SECTION_TITLES[reader].items()}
