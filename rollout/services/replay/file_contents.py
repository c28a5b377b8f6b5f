"""Contents of versions in files: the hash of weights and pre-processing in a column `content`."""

from collections.abc import Iterator, Mapping

from rollout.core.policy.policy import Policy
from rollout.core.policy.version_contents import shorten_content
from rollout.tally.frames import CONTENT, RecordFrames, RecordKind

ADVICE = "give other weights another version name"


def list_file_contents(records: RecordFrames) -> dict[str, str]:
    """Return by version the content that its predictions declare, without those that don't.

    Of several contents of a version, which `check_file_contents` refuses, the first one.
    """
    contents: dict[str, str] = {}
    for version, content in _list_declarations(records):
        contents.setdefault(version, content)
    return contents


def list_declared_contents(
    records: RecordFrames, declared: Mapping[str, str], policy: Policy
) -> dict[str, str]:
    """Return the contents by version of files, of options and of the policy."""
    return {**list_file_contents(records), **declared, **policy.contents_by_version}


def check_file_contents(records: RecordFrames, declared: Mapping[str, str], policy: Policy) -> None:
    """Raise ValueError if a version in the files has another content elsewhere.

    Args:
        records: the files' records.
        declared: contents by version of the option `--content`.
        policy: the policy, which may declare some too.
    """
    sources = {"--content": declared, "the policy": policy.contents_by_version}
    first_contents = list_file_contents(records)
    for version, content in _list_declarations(records):
        first = first_contents[version]
        others = {"another row": content}
        others |= {name: values[version] for name, values in sources.items() if version in values}
        for name, other in others.items():
            if other != first:
                file = records.row_counts[RecordKind.PREDICTIONS].file
                raise ValueError(
                    f"{file}: {version} has the content {shorten_content(first)}, and {name} says"
                    f" {shorten_content(other)}; correct one of them, or {ADVICE}"
                )


def _list_declarations(records: RecordFrames) -> Iterator[tuple[str, str]]:
    """Yield each version with each of its contents, in the order of the file."""
    populations = (records,) if records.planted is None else (records, records.planted)
    for part in populations:
        if CONTENT in part.predictions.columns:
            declared = part.predictions.select("version", CONTENT).drop_nulls()
            yield from declared.unique(maintain_order=True).iter_rows()
