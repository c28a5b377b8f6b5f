"""Golden ledgers: their bytes and hashes were written once and must stay."""

from pathlib import Path

PATH = Path(__file__).parent / "chains" / "rollout.jsonl"
ROLLOUT = PATH.read_text(encoding="utf-8").splitlines()
ACCESS = PATH.with_name("access.jsonl").read_text(encoding="utf-8").splitlines()
