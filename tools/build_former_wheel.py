"""Build the wheel of the former program, from which the upgrade test starts.

It is made from git's history with the standard library alone, so that a clone without network and
without a build backend can make it: `python tools/build_former_wheel.py FOLDER`.
"""

import io
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
COMMIT: Final = "f8b32d4"
"""The last commit of the issue on words; take the newest release tag as soon as there is one."""
PROJECT_FILE: Final = "pyproject.toml"
NAME: Final = "rollout_controller-0.1.0"
FOLDERS: Final = {
    "rollout": "rollout",
    "api": "api",
    "config": "rollout/_config",
    "examples/mail-room/records": "rollout/_mail_room",
    "migrations": "rollout/_migrations",
}
"""Where the wheel has the folders of the source, as `pyproject.toml` says."""
METADATA: Final = "Metadata-Version: 2.4\nName: rollout-controller\nVersion: 0.1.0\n"
WHEEL: Final = "Wheel-Version: 1.0\nGenerator: rollout\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def build_wheel(folder: Path) -> Path:
    """Write the wheel into a folder and return its path.

    Raises:
        RuntimeError: the commit is not in this clone; the text has the command that fetches it.
    """
    wheel = folder / f"{NAME}-py3-none-any.whl"
    with (
        tarfile.open(fileobj=io.BytesIO(_archive_source())) as source,
        zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for member in source:
            content = source.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            if member.name == PROJECT_FILE:
                entry_points = _format_entry_points(content.read().decode())
                target.writestr(f"{NAME}.dist-info/entry_points.txt", entry_points)
            else:
                target.writestr(_find_place(member.name), content.read())
        target.writestr(f"{NAME}.dist-info/METADATA", METADATA)
        target.writestr(f"{NAME}.dist-info/WHEEL", WHEEL)
        target.writestr(f"{NAME}.dist-info/RECORD", "")
    return wheel


def _archive_source() -> bytes:
    arguments = ["git", "-C", str(ROOT), "archive", "--format=tar", COMMIT, PROJECT_FILE, *FOLDERS]
    result = subprocess.run(arguments, capture_output=True, check=False)  # noqa: S603 - own words
    if result.returncode:
        raise RuntimeError(
            f"commit {COMMIT} is not in this clone, so the former program can't be built; fetch "
            f"the whole history with `git fetch --unshallow` ({result.stderr.decode().strip()})"
        )
    return result.stdout


def _format_entry_points(project_text: str) -> str:
    groups = tomllib.loads(project_text)["project"].get("entry-points", {})
    return "".join(
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in places.items())
        for group, places in groups.items()
    )


def _find_place(name: str) -> str:
    folder = next(folder for folder in FOLDERS if name.startswith(f"{folder}/"))
    return FOLDERS[folder] + name.removeprefix(folder)


if __name__ == "__main__":
    sys.stdout.write(f"{build_wheel(Path(sys.argv[1]))}\n")
