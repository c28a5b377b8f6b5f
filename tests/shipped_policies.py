"""The policy files that come with the product, by name."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
SHIPPED_POLICIES = dict(
    sorted(
        {path.stem: path for path in (ROOT / "config/policies").glob("*.yaml")}.items()
        | {path.parent.name: path for path in (ROOT / "examples").glob("*/policy.yaml")}.items()
    )
)
"""Templates of config/policies, and each example's; an example wins over a template of its name."""
