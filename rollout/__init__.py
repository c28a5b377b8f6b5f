"""rollout: widen a model's scope site by site and hour by hour, on evidence that people approve.

The names below are the library: they replay, plan, compare, draft and verify files without a
database or server. Each is imported when it is asked for: a command that needs none stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rollout.engine.records.records import Case, Decision, Outcome, Prediction
    from rollout.features.lake.counting import count_units
    from rollout.features.ledger.ledger_verification import verify_ledger
    from rollout.features.policies.drafting import draft_policy
    from rollout.features.policies.planning import plan
    from rollout.features.replay.compare import compare
    from rollout.features.replay.replay import replay, write_report
    from rollout.features.replay.requests import read_records
    from rollout.kernel.errors import RolloutError
    from rollout.kernel.policy.policy import Policy
    from rollout.kernel.policy_files.reader import load_policy

__all__ = [
    "Case",
    "Decision",
    "Outcome",
    "Policy",
    "Prediction",
    "RolloutError",
    "compare",
    "count_units",
    "draft_policy",
    "load_policy",
    "plan",
    "read_records",
    "replay",
    "verify_ledger",
    "write_report",
]

_MODULES: Final = {
    "rollout.engine.records.records": ("Case", "Decision", "Outcome", "Prediction"),
    "rollout.features.lake.counting": ("count_units",),
    "rollout.features.ledger.ledger_verification": ("verify_ledger",),
    "rollout.features.policies.drafting": ("draft_policy",),
    "rollout.features.policies.planning": ("plan",),
    "rollout.features.replay.compare": ("compare",),
    "rollout.features.replay.replay": ("replay", "write_report"),
    "rollout.features.replay.requests": ("read_records",),
    "rollout.kernel.errors": ("RolloutError",),
    "rollout.kernel.policy.policy": ("Policy",),
    "rollout.kernel.policy_files.reader": ("load_policy",),
}

if not TYPE_CHECKING:  # else a checker would take any name for one of the library

    def __getattr__(name: str) -> Any:
        """Import a name of the library when it is asked for first."""
        for module, names in _MODULES.items():
            if name in names:
                globals()[name] = value = getattr(import_module(module), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """Return the names of the library."""
        return sorted({*globals(), *__all__})
