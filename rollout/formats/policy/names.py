"""Names in a policy file: given once, not taken by the engine, and each one used exists."""

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches

from rollout.core.calendar.sites import ALWAYS, OTHER, SHADOW
from rollout.core.policy.policy import Policy, matches
from rollout.formats.policy.model import PolicyShape, Selecting
from rollout.formats.policy.yaml_reader import Fault, Place

RESERVED = frozenset({SHADOW, OTHER, ALWAYS})
SAME_STAGE = "same-stage"

Checked = Iterator[Fault]
Check = tuple[tuple[str, ...], Callable[[PolicyShape, Policy], Checked]]


def unknown_name(name: str, known: Iterable[str], what: str) -> str:
    """Say that a name fits nothing, with the nearest that would.

    >>> unknown_name("crek", ["creek", "meadow"], "site")
    "'crek' fits no site; did you mean creek?"
    """
    unique_names = list(dict.fromkeys(known))
    close_names = get_close_matches(name, unique_names, n=1)
    sample = ", ".join(unique_names[:8]) + (", …" if len(unique_names) > 8 else "")
    hint = f"did you mean {close_names[0]}?" if close_names else f"known: {sample}"
    return f"{name!r} fits no {what}; {hint if unique_names else 'there are none'}"


def _ids_given_once(shape: PolicyShape, _: Policy) -> Checked:
    yield from _once("sites", [site.id for site in shape.sites], "id")
    yield from _once("windows", [window.id for window in shape.windows or ()], "id")
    yield from _once("stages", [stage.id for stage in shape.stages], "id")
    yield from _once("levers", [lever.id for lever in shape.levers], "id")
    yield from _once("reports", [report.name for report in shape.reports], "name")


def _once(section: str, ids: list[str], key: str) -> Checked:
    for i, name in enumerate(ids):
        path: Place = (section, i, key)
        if name in RESERVED:
            yield Fault(path, f"{name!r} is a name that the engine uses itself; choose another")
        elif name in ids[:i]:
            first = f"{section}[{ids.index(name)}]"
            yield Fault(path, f"{name!r} stands twice, first as {first}; rename or remove one")


def _labels_given_once(shape: PolicyShape, _: Policy) -> Checked:
    for i, lever in enumerate(shape.levers):
        labels = lever.labels or []
        for j, label in enumerate(labels):
            if label in labels[:j]:
                yield Fault(("levers", i, "labels", j), f"{label!r} stands twice; remove one")


def _known_sites(shape: PolicyShape, policy: Policy) -> Checked:
    site_ids = [site.id for site in policy.sites]
    for path, row in _selecting(shape):
        for j, pattern in enumerate(row.sites or ()):
            if not any(matches(pattern, name) for name in site_ids):
                yield Fault((*path, "sites", j), unknown_name(pattern, site_ids, "site"))


def _known_windows(shape: PolicyShape, policy: Policy) -> Checked:
    window_ids = [window.id for window in policy.windows]
    for path, row in _selecting(shape):
        for j, pattern in enumerate(row.windows or ()):
            if not any(matches(pattern, name) for name in window_ids):
                yield Fault((*path, "windows", j), unknown_name(pattern, window_ids, "window"))


def _selecting(shape: PolicyShape) -> Iterator[tuple[Place, Selecting]]:
    sections: tuple[tuple[str, Iterable[Selecting]], ...] = (
        ("gates", shape.gates),
        ("guards", shape.guards),
        ("limits", shape.limits),
        ("freezes", shape.freezes),
    )
    for name, rows in sections:
        for i, row in enumerate(rows):
            yield (name, i), row


def _known_stages(shape: PolicyShape, _: Policy) -> Checked:
    stages = [stage.id for stage in shape.stages]
    for path, name, special_names in _stages_named(shape):
        if name not in (*stages, *special_names):
            yield Fault(path, unknown_name(name, (*stages, *special_names), "stage"))


def _stages_named(shape: PolicyShape) -> Iterator[tuple[Place, str, tuple[str, ...]]]:
    """Every stage that the file names, with what may stand there beside a stage."""
    for i, gate in enumerate(shape.gates):
        yield ("gates", i, "to"), gate.to, ()
    for i, limit in enumerate(shape.limits):
        if limit.never_above is not None:
            yield ("limits", i, "never_above"), limit.never_above, (SHADOW,)
    if shape.waves is not None:
        yield ("waves", "stage"), shape.waves.stage, ()
    yield ("takeover",), shape.takeover, (SAME_STAGE, SHADOW)


def _known_actions(shape: PolicyShape, policy: Policy) -> Checked:
    for i, (row, lever) in enumerate(zip(shape.levers, policy.levers, strict=True)):
        for label in row.actions or {}:
            if lever.labels and label not in lever.labels:
                text = unknown_name(label, lever.labels, "label")
                yield Fault(("levers", i, "actions", label), text)
        for j, cost in enumerate(row.costs or ()):
            for key, action in (("did", cost.did), ("right", cost.right)):
                if lever.labels and action is not None and action not in lever.actions:
                    text = unknown_name(action, lever.actions, "action")
                    yield Fault(("levers", i, "costs", j, key), text)


def _known_expected_labels(shape: PolicyShape, policy: Policy) -> Checked:
    valid_labels = expected_labels(policy)
    for name in shape.expect.labels or {}:
        if name not in valid_labels:
            yield Fault(("expect", "labels", name), unknown_name(name, valid_labels, "label"))


def expected_labels(policy: Policy) -> tuple[str, ...]:
    """Return the names that `expect.labels` may have: labels, with several levers lever/label."""
    if len(policy.levers) == 1:
        return policy.levers[0].labels
    return tuple(f"{lever.id}/{label}" for lever in policy.levers for label in lever.labels)


_LABELS = ("levers.*.labels", "levers.*.labels.*")

NAME_CHECKS: tuple[Check, ...] = (
    ((), _ids_given_once),
    ((), _labels_given_once),
    (("sites.*.id",), _known_sites),
    (("windows.*.id",), _known_windows),
    (("stages.*.id",), _known_stages),
    ((*_LABELS, "levers.*.actions.*"), _known_actions),
    (_LABELS, _known_expected_labels),
)
