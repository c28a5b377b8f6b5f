"""Writes the generated pages of docs/: `python -m tests.docs.reference`.

A test compares each page with what its module returns here.
"""

from tests.docs import (
    api_page,
    asvs_page,
    cli_page,
    events_page,
    performance_page,
    policy_page,
    reliability_page,
    small_pages,
)
from tests.docs.pages import ROOT
from tests.examples.pages import write_gallery

FOLDER = ROOT / "docs"
WRITERS = {
    "examples/gallery.md": write_gallery,
    "how-to/notifications.md": small_pages.write_notifications,
    "performance.md": performance_page.write_performance,
    "reference/api.md": api_page.written,
    "reference/asvs.md": asvs_page.write_asvs,
    "reference/cli.md": cli_page.written,
    "reference/errors.md": small_pages.write_errors,
    "reference/events.md": events_page.write_events,
    "reference/metrics.md": small_pages.write_metrics,
    "reference/policy.md": policy_page.written,
    "reference/settings.md": small_pages.write_settings,
    "reliability.md": reliability_page.write_reliability,
}
GENERATED = frozenset(
    FOLDER / name
    for name in WRITERS
    if not name.startswith("how-to/")  # a table alone
)


if __name__ == "__main__":
    for name, write in WRITERS.items():
        (FOLDER / name).write_text(write(), encoding="utf-8")
