"""The pages of settings, metrics and error codes, from code and data files."""

import inspect
import re
import tomllib
from dataclasses import fields

from prometheus_client.parser import text_string_to_metric_families

from api.health import routes
from api.metrics import ProcessMetrics, RequestCounts
from api.problems import STATUS_BY_CODE
from rollout.data.database.session import Database
from rollout.features.cells.overview import RolloutMetrics
from rollout.features.notifications.kinds import KINDS
from rollout.settings import PREFIX, Settings
from tests.docs.pages import ROOT

REFERENCE = ROOT / "docs/reference"
DEFAULT_STATUS = 422
SETTINGS_HEAD = """\
# Settings

Generated from `rollout/settings.py`. Each setting is an environment variable, read once at start.

No setting chooses the parser of HTTP and the event loop: `rollout serve` uses httptools and uvloop
if they are installed, and h11 and asyncio otherwise. The extra `server` installs both, on Windows
httptools only.

| variable | default | meaning |
|---|---|---|
"""
METRICS_HEAD = """\
# Metrics

Generated from the service. GET `/metrics` returns them in the text format of Prometheus; the API
key needs a role that reads all rollouts. Counters are those of one replica since its start.
[Operations](../operations.md) says which ones to alert on.

| metric | type | labels | meaning |
|---|---|---|---|
"""
ERRORS_HEAD = """\
# Errors

Generated from the table of statuses and from `errors.toml` beside this page. Every error is
`application/problem+json` (RFC 9457): `code` is for programs, `detail` says what to do next,
`faults` lists the errors of a body or a policy with their positions. Commands print `detail` and
exit with 2.

| status | code | meaning | what to do |
|---|---|---|---|
"""


def write_settings():
    lines = re.findall(
        r"^ +(\w+): (.+(?:\n +(?! |\w+: ).+)*)", inspect.getdoc(Settings) or "", re.MULTILINE
    )
    texts = {name: " ".join(text.split()) for name, text in lines}
    rows = []
    for field in fields(Settings):
        default = f"`{field.default}`" if field.default != "" else "none"
        text = texts[field.name][0].upper() + texts[field.name][1:]
        rows.append(f"| `{PREFIX}{field.name.upper()}` | {default} | {text} |")
    return SETTINGS_HEAD + "\n".join([*rows, ""])


def sample_metrics():
    """Return the lines of a process that has counted one of each."""
    counts = RequestCounts()
    counts.requests["GET", "/", 200] += 1
    counts.assignments["r", "human"] += 1
    counts.records["r", "accepted"] += 1
    numbers = dict.fromkeys((f.name for f in fields(RolloutMetrics)), 1)
    gauges = routes._format_gauges([RolloutMetrics(**numbers | {"name": "r"})])
    process = ProcessMetrics(Database("sqlite:///sample.db"))
    process.observe_request("GET", "/", 200, 0.01)
    process.observe_tick("r", 0.1)
    gauges = [*gauges, *routes._format_key_expiry(1.0)]
    return "".join([*routes._format_counters(counts), *gauges, process.format()]).splitlines()


def write_metrics():
    rows = []
    for family in text_string_to_metric_families("\n".join(sample_metrics()) + "\n"):
        names = {name: None for sample in family.samples for name in sample.labels if name != "le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append(f"| `{name}` | {family.type} | {', '.join(names)} | {family.documentation} |")
    return METRICS_HEAD + "\n".join([*rows, ""])


def load_error_texts():
    return tomllib.loads((REFERENCE / "errors.toml").read_text(encoding="utf-8"))


def write_errors():
    texts = load_error_texts()
    rows = sorted((_status_of(code, text), code) for code, text in texts.items())
    lines = [
        f"| {status} | `{code}` | {texts[code]['meaning']} | {texts[code]['do']} |"
        for status, code in rows
    ]
    return ERRORS_HEAD + "\n".join([*lines, ""])


def _status_of(code, text):
    return text.get("status", STATUS_BY_CODE.get(code, DEFAULT_STATUS))


def write_notifications():
    """Return the guide to notifications, its table made from their kinds."""
    page = (ROOT / "docs/how-to/notifications.md").read_text(encoding="utf-8")
    head = "| choice | message |\n|---|---|\n"
    before, after = page.split(head)
    rest = after.partition("\n\n")[2]
    rows = "".join(f"| `{kind.name}` | {kind.description} |\n" for kind in KINDS.values())
    return f"{before}{head}{rows}\n{rest}"
