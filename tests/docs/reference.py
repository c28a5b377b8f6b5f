"""Writes the generated pages of docs/reference: `python -m tests.docs.reference`.

A test compares each page with what its module returns here.
"""

from tests.docs import (
    api_page,
    asvs_page,
    cli_page,
    events_page,
    folders_page,
    policy_page,
    small_pages,
)
from tests.docs.pages import ROOT

FOLDER = ROOT / "docs/reference"
WRITERS = {
    "api.md": api_page.written,
    "asvs.md": asvs_page.write_asvs,
    "cli.md": cli_page.written,
    "errors.md": small_pages.write_errors,
    "events.md": events_page.write_events,
    "folders.md": folders_page.write_folders,
    "metrics.md": small_pages.write_metrics,
    "policy.md": policy_page.written,
    "renamed.md": small_pages.write_renamed,
    "settings.md": small_pages.write_settings,
}
GENERATED = frozenset(FOLDER / name for name in WRITERS)


if __name__ == "__main__":
    for name, write in WRITERS.items():
        (FOLDER / name).write_text(write(), encoding="utf-8")
