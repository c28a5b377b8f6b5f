"""Options of commands that read a policy file, and a reader of salts."""

from pathlib import Path
from typing import Annotated

import typer

PolicyFile = Annotated[Path, typer.Argument(help="policy file, YAML or JSON", metavar="POLICY")]


def parse_salt(text: str) -> bytes:
    """Read `--salt`.

    Raises:
        ValueError: the text is not hexadecimal.
    """
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(
            f"--salt {text} is not hexadecimal; write an even number of hex digits"
        ) from None


def parse_salts(text: str) -> tuple[bytes, bytes]:
    """Read `--salt` of a replay: a rollout's salt and its service's; b"" for the same one.

    Raises:
        ValueError: a part is not hexadecimal.
    """
    salt, _, audit_salt = text.partition(",")
    return parse_salt(salt), parse_salt(audit_salt)
