"""Check the names in a policy: unique, not reserved, and defined where used."""

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches

from rollout.core.calendar.sites import ALWAYS_WINDOW, OTHER_WINDOW, SHADOW
from rollout.core.policy.policy import Freeze, GateBase, GuardBase, Limit, Policy, matches_pattern
from rollout.formats.policy.model import WrittenPolicy
from rollout.formats.policy.yaml_reader import DocumentFault, DocumentPath

RESERVED = frozenset({SHADOW, OTHER_WINDOW, ALWAYS_WINDOW})
SAME_STAGE = "same-stage"
SIMILARITY = 0.7  # "bear" is no misspelt "clear" (0.67)

Faults = Iterator[DocumentFault]
PolicyCheck = tuple[tuple[str, ...], Callable[[WrittenPolicy, Policy], Faults]]
Selection = GateBase | GuardBase | Limit | Freeze
Sections = Iterable[tuple[str, Iterable[Selection]]]


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


def _check_unique_ids(written: WrittenPolicy, _: Policy) -> Faults:
    yield from _check_unique("sites", [site.id for site in written.sites], "id")
    yield from _check_unique("windows", [window.id for window in written.windows], "id")
    yield from _check_unique("stages", [stage.id for stage in written.stages], "id")
    yield from _check_unique("levers", [lever.id for lever in written.levers], "id")
    yield from _check_unique("versions", [version.id for version in written.versions], "id")
    yield from _check_unique("reports", [report.name for report in written.reports], "name")
    yield from _check_unique("import", [row.records for row in written.imports], "records")


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


def _check_former_ids(written: WrittenPolicy, _: Policy) -> Faults:
    for section, rows in (("sites", written.sites), ("windows", written.windows)):
        ids, former_ids = [row.id for row in rows], [row.was for row in rows]
        for i, was in enumerate(former_ids):
            path: DocumentPath = (section, i, "was")
            if was in ids:
                yield DocumentFault(path, f"{was!r} is still one of the {section}; leave was out")
            elif was and was in former_ids[:i]:
                yield DocumentFault(path, f"{was!r} is repeated; only one of the {section} was it")


def _check_unique_labels(written: WrittenPolicy, _: Policy) -> Faults:
    for i, lever in enumerate(written.levers):
        labels = lever.labels
        for j, label in enumerate(labels):
            if label in labels[:j]:
                yield DocumentFault(
                    ("levers", i, "labels", j), f"{label!r} is repeated; remove one"
                )


def _check_site_names(written: WrittenPolicy, policy: Policy) -> Faults:
    site_ids = [site.id for site in policy.sites]
    sections: Sections = (
        ("gates", written.gates),
        ("guards", written.guards),
        ("limits", written.limits),
        ("freezes", written.freezes),
    )
    for path, row in _list_rows(sections):
        for j, pattern in enumerate(row.where.sites):
            if not any(matches_pattern(pattern, name) for name in site_ids):
                yield DocumentFault(
                    (*path, "sites", j), describe_unknown_name(pattern, site_ids, "site")
                )


def _check_window_names(written: WrittenPolicy, policy: Policy) -> Faults:
    window_ids = [window.id for window in policy.windows]
    sections: Sections = (
        ("gates", written.gates),
        ("limits", written.limits),
    )
    for path, row in _list_rows(sections):
        for j, pattern in enumerate(row.where.windows):
            if not any(matches_pattern(pattern, name) for name in window_ids):
                yield DocumentFault(
                    (*path, "windows", j), describe_unknown_name(pattern, window_ids, "window")
                )


def _list_rows(sections: Sections) -> Iterator[tuple[DocumentPath, Selection]]:
    for name, rows in sections:
        for i, row in enumerate(rows):
            yield (name, i), row


def _check_stage_names(written: WrittenPolicy, _: Policy) -> Faults:
    stages = [stage.id for stage in written.stages]
    for path, name, special_names in _list_named_stages(written):
        if name not in (*stages, *special_names):
            yield DocumentFault(
                path, describe_unknown_name(name, (*stages, *special_names), "stage")
            )


def _list_named_stages(
    written: WrittenPolicy,
) -> Iterator[tuple[DocumentPath, str, tuple[str, ...]]]:
    """Yield path, stage name and other allowed names of each reference to a stage."""
    for i, gate in enumerate(written.gates):
        yield ("gates", i, "to"), gate.to, ()
    for i, limit in enumerate(written.limits):
        if limit.never_above is not None:
            yield ("limits", i, "never_above"), limit.never_above, (SHADOW,)
    if written.waves is not None:
        yield ("waves", "stage"), written.waves.stage, ()
    yield ("takeover",), written.takeover, (SAME_STAGE, SHADOW)


def _check_action_names(_: WrittenPolicy, policy: Policy) -> Faults:
    for i, lever in enumerate(policy.levers):
        for label in lever.named_actions:
            if lever.labels and label not in lever.labels:
                text = describe_unknown_name(label, lever.labels, "label")
                yield DocumentFault(("levers", i, "actions", label), text)
        for j, cost in enumerate(lever.costs):
            for key, action in (("did", cost.did), ("right", cost.right)):
                if lever.labels and action is not None and action not in lever.actions:
                    text = describe_unknown_name(action, lever.actions, "action")
                    yield DocumentFault(("levers", i, "costs", j, key), text)


def _check_expected_labels(written: WrittenPolicy, policy: Policy) -> Faults:
    valid_labels = list_expected_labels(policy)
    for name in written.expect.labels:
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
