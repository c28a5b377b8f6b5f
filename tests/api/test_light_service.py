"""What `rollout serve` does without until it is asked for it: it holds less at rest."""

import subprocess
import sys

UNASKED = (
    "polars",
    "numpy",
    "scipy.special",
    "scipy.stats",
    "scipy.optimize",
    "alembic",
    "apprise",
    "authlib",
    "requests",
    "duckdb",
    "vl_convert",
    "api.web_kit.page",
)
ASKS = f"""
import sys
from pkgutil import resolve_name
import rollout.cli.main, api.serve
from api.app import ROUTERS, load_parts
for name in ROUTERS:
    resolve_name(f"api.{{name}}")
load_parts()
print(*(name for name in {UNASKED} if name in sys.modules))
"""


def test_a_service_starts_without_what_only_evidence_upgrades_and_reports_ask_for():
    told = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, text=True, check=True)
    assert told.stdout.split() == []
