"""Check the names in a policy: unique, not reserved, and defined where used."""

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import TypeVar

from rollout.core.calendar.sites import ALWAYS_WINDOW, OTHER_WINDOW, SHADOW
from rollout.core.policy.policy import Policy, matches_pattern
from rollout.formats.policy.model import CellSelection, PolicyShape, SiteSelection
from rollout.formats.policy.yaml_reader import DocumentFault, DocumentPath

RESERVED = frozenset({SHADOW, OTHER_WINDOW, ALWAYS_WINDOW})
SAME_STAGE = "same-stage"
SIMILARITY = 0.7  # "bear" is no misspelt "clear" (0.67)

Faults = Iterator[DocumentFault]
PolicyCheck = tuple[tuple[str, ...], Callable[[PolicyShape, Policy], Faults]]
Row = TypeVar("Row", bound=SiteSelection)


def describe_unknown_name(name: str, valid_names: Iterable[str], kind: str) -> str:
    """Return the text of a fault for an undefined name, with the closest valid one.

    >>> describe_unknown_name("crek", ["creek", "meadow"], "site")
    "'crek' fits no site; did you mean creek?"
    """
    unique_names = list(dict.fromkeys(valid_names))
    close_names = get_close_matches(name, unique_names, n=1, cutoff=SIMILARITY)
    sample = ", ".join(unique_names[:8]) + (", …" if len(unique_names) > 8 else "")
    hint = f"did you mean {close_names[0]}?" if close_names else f"known: {sample}"
    return f"{name!r} fits no {kind}; {hint if unique_names else 'there are none'}"


def _check_unique_ids(shape: PolicyShape, _: Policy) -> Faults:
    yield from _check_unique("sites", [site.id for site in shape.sites], "id")
    yield from _check_unique("windows", [window.id for window in shape.windows or ()], "id")
    yield from _check_unique("stages", [stage.id for stage in shape.stages], "id")
    yield from _check_unique("levers", [lever.id for lever in shape.levers], "id")
    yield from _check_unique("versions", [version.id for version in shape.versions], "id")
    yield from _check_unique("reports", [report.name for report in shape.reports], "name")
    yield from _check_unique("import", [row.records for row in shape.imports], "records")


def _check_unique(section: str, ids: list[str], key: str) -> Faults:
    for i, name in enumerate(ids):
        path: DocumentPath = (section, i, key)
        if name in RESERVED:
            yield DocumentFault(
                path, f"{name!r} is a name that the engine uses itself; choose another"
            )
        elif name in ids[:i]:
            first = f"{section}[{ids.index(name)}]"
            yield DocumentFault(
                path, f"{name!r} is repeated, first as {first}; rename or remove one"
            )


def _check_former_ids(shape: PolicyShape, _: Policy) -> Faults:
    for section, rows in (("sites", shape.sites), ("windows", shape.windows or ())):
        ids, former_ids = [row.id for row in rows], [row.was for row in rows]
        for i, was in enumerate(former_ids):
            path: DocumentPath = (section, i, "was")
            if was in ids:
                yield DocumentFault(path, f"{was!r} is still one of the {section}; leave was out")
            elif was is not None and was in former_ids[:i]:
                yield DocumentFault(path, f"{was!r} is repeated; only one of the {section} was it")


def _check_unique_labels(shape: PolicyShape, _: Policy) -> Faults:
    for i, lever in enumerate(shape.levers):
        labels = lever.labels or []
        for j, label in enumerate(labels):
            if label in labels[:j]:
                yield DocumentFault(
                    ("levers", i, "labels", j), f"{label!r} is repeated; remove one"
                )


def _check_site_names(shape: PolicyShape, policy: Policy) -> Faults:
    site_ids = [site.id for site in policy.sites]
    sections: tuple[tuple[str, Iterable[SiteSelection]], ...] = (
        ("gates", shape.gates),
        ("guards", shape.guards),
        ("limits", shape.limits),
        ("freezes", shape.freezes),
    )
    for path, row in _list_rows(sections):
        for j, pattern in enumerate(row.sites or ()):
            if not any(matches_pattern(pattern, name) for name in site_ids):
                yield DocumentFault(
                    (*path, "sites", j), describe_unknown_name(pattern, site_ids, "site")
                )


def _check_window_names(shape: PolicyShape, policy: Policy) -> Faults:
    window_ids = [window.id for window in policy.windows]
    sections: tuple[tuple[str, Iterable[CellSelection]], ...] = (
        ("gates", shape.gates),
        ("limits", shape.limits),
    )
    for path, row in _list_rows(sections):
        for j, pattern in enumerate(row.windows or ()):
            if not any(matches_pattern(pattern, name) for name in window_ids):
                yield DocumentFault(
                    (*path, "windows", j), describe_unknown_name(pattern, window_ids, "window")
                )


def _list_rows(
    sections: Iterable[tuple[str, Iterable[Row]]],
) -> Iterator[tuple[DocumentPath, Row]]:
    for name, rows in sections:
        for i, row in enumerate(rows):
            yield (name, i), row


def _check_stage_names(shape: PolicyShape, _: Policy) -> Faults:
    stages = [stage.id for stage in shape.stages]
    for path, name, special_names in _list_named_stages(shape):
        if name not in (*stages, *special_names):
            yield DocumentFault(
                path, describe_unknown_name(name, (*stages, *special_names), "stage")
            )


def _list_named_stages(shape: PolicyShape) -> Iterator[tuple[DocumentPath, str, tuple[str, ...]]]:
    """Yield path, stage name and other allowed names of each reference to a stage."""
    for i, gate in enumerate(shape.gates):
        yield ("gates", i, "to"), gate.to, ()
    for i, limit in enumerate(shape.limits):
        if limit.never_above is not None:
            yield ("limits", i, "never_above"), limit.never_above, (SHADOW,)
    if shape.waves is not None:
        yield ("waves", "stage"), shape.waves.stage, ()
    yield ("takeover",), shape.takeover, (SAME_STAGE, SHADOW)


def _check_action_names(shape: PolicyShape, policy: Policy) -> Faults:
    for i, (row, lever) in enumerate(zip(shape.levers, policy.levers, strict=True)):
        for label in row.actions or {}:
            if lever.labels and label not in lever.labels:
                text = describe_unknown_name(label, lever.labels, "label")
                yield DocumentFault(("levers", i, "actions", label), text)
        for j, cost in enumerate(row.costs or ()):
            for key, action in (("did", cost.did), ("right", cost.right)):
                if lever.labels and action is not None and action not in lever.actions:
                    text = describe_unknown_name(action, lever.actions, "action")
                    yield DocumentFault(("levers", i, "costs", j, key), text)


def _check_expected_labels(shape: PolicyShape, policy: Policy) -> Faults:
    valid_labels = list_expected_labels(policy)
    for name in shape.expect.labels or {}:
        if name not in valid_labels:
            yield DocumentFault(
                ("expect", "labels", name), describe_unknown_name(name, valid_labels, "label")
            )


def list_expected_labels(policy: Policy) -> tuple[str, ...]:
    """Return the names that `expect.labels` may have: labels, with several levers lever/label."""
    if len(policy.levers) == 1:
        return policy.levers[0].labels
    return tuple(f"{lever.id}/{label}" for lever in policy.levers for label in lever.labels)


_LABELS = ("levers.*.labels", "levers.*.labels.*")

NAME_CHECKS: tuple[PolicyCheck, ...] = (
    ((), _check_unique_ids),
    (("sites.*.was", "windows.*.was"), _check_former_ids),
    ((), _check_unique_labels),
    (("sites.*.id",), _check_site_names),
    (("windows.*.id",), _check_window_names),
    (("stages.*.id",), _check_stage_names),
    ((*_LABELS, "levers.*.actions.*"), _check_action_names),
    (_LABELS, _check_expected_labels),
)
