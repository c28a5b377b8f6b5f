"""A process of an install without extras: it finds no package of the service and no store."""

import re
import subprocess
import sys
import tomllib

from tests.docs.pages import ROOT

DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PACKAGES = {re.match(r"[\w-]+", each)[0] for each in DECLARED["optional-dependencies"]["server"]}
MODULES = {"argon2-cffi": "argon2", "prometheus-client": "prometheus_client"}
MISSING = {MODULES.get(name, name) for name in PACKAGES} | {"starlette", "psycopg", "duckdb"}
"""What only an extra installs, with what those packages bring."""
STORE = {"rollout.data", "rollout.live"}
OPTIONAL = {"apprise", "authlib", "duckdb", "joserfc", "psycopg"}
"""What neither the core nor the extra `demo` installs, and a developer has."""
BLOCK = """
import sys
from importlib.machinery import PathFinder

MISSING = sys.argv.pop(1).split()


class LeanFinder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        is_missing = any(f"{name}.".startswith(f"{missing}.") for missing in MISSING)
        return None if is_missing else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = LeanFinder
"""


def run_lean(program, *arguments, lines=(), missing=frozenset(MISSING | STORE)):
    """Run a program in a process that doesn't find some modules."""
    return subprocess.run(
        [sys.executable, "-c", BLOCK + program, " ".join(sorted(missing)), *arguments],
        input="\n".join("\t".join(words) for words in lines),
        capture_output=True,
        text=True,
        check=False,
    )
