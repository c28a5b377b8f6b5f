"""A second reading of a ledger, written without the engine: rows of text in, dictionaries out.

It is slow and plain on purpose. What it says of a stage is an upper bound: limits in time
(`ends`), freezes and waves only ever narrow, and are left to the engine.
"""

import json
from fnmatch import fnmatchcase
from hashlib import sha256
from itertools import permutations
from typing import NamedTuple

APPLIES = {"Widened": "widening", "Renewed": "renewal", "TakenOver": "takeover"}


class FoldedRow(NamedTuple):
    """One row of a ledger, its body read from JSON."""

    revision: int
    at: int
    kind: str
    actor: str
    body: dict


class SlowFold:
    """The rows of one rollout's ledger, read one by one; `faults` says what should not be.

    Args:
        policies: each policy by its hash, for the names of stages and who has to approve.
    """

    def __init__(self, policies):
        self.policies = policies
        self.policy = None
        self.last = 0
        self.grants = {}  # (site, window, version) → [[stage, since, until], …], lowest first
        self.suspended = {}
        self.retired = set()
        self.stops = {}
        self.proposals = {}
        self.faults = []

    def read(self, rows):
        """Read rows (revision, at, kind, actor, body) and return what was found."""
        for raw_row in rows:
            row = FoldedRow(*raw_row)
            self.last = max(self.last, row.at)
            handle = getattr(self, f"on_{row.kind.lower()}", None)
            if handle is not None:
                handle(row)
        return self

    @property
    def rungs(self):
        """Return the names of the stages in force, shadow first."""
        return ["shadow", *(stage.id for stage in self.policy.stages)]

    def stage(self, site, window, version, at):
        """Return the highest stage that a version can hold in a cell at an instant."""
        at = max(at, self.last)
        key = (site, window, version)
        if version in self.retired or self.suspended.get(key):
            return 0
        if any((site, window) in cells for cells in self.stops.values()):
            return 0
        rung = 0
        for place, (stage, since, until) in enumerate(self.grants.get(key, ()), start=1):
            if self.rungs[place : place + 1] != [stage] or not since <= at < until:
                break
            rung = place
        return min([rung, *self._ceilings(site, window)])

    def _ceilings(self, site, window):
        for limit in self.policy.limits:
            if limit.never_above is not None and _fits(limit.where, site, window):
                yield self.rungs.index(limit.never_above)

    def _says(self, row, fault):
        self.faults.append(f"O3 revision {row.revision}: {fault}")

    def on_policyapplied(self, row):
        if row.body["proposal"]:
            proposal = self._applied(row, row.body["proposal"], "policy")
            if proposal and proposal["about"] != row.body["policy_hash"]:
                self._says(row, "another policy than the one approved")
        elif row.body["loosens"]:
            self._says(row, "a policy that loosens holds without a proposal")
        self.policy = self.policies[row.body["policy_hash"]]
        for cell in row.body["cleared"]:
            for key in self.grants:
                if key[:2] == (cell["site"], cell["window"]):
                    self.grants[key], self.suspended[key] = [], set()

    def on_versionretired(self, row):
        self.retired.add(row.body["version"])

    def on_proposalraised(self, row):
        if (
            sha256("\n".join(_list_evidence_lines(row.body)).encode()).hexdigest()
            != row.body["evidence_hash"]
        ):
            self._says(row, "its evidence is not the hash of what it says")
        if row.body["proposal"] in self.proposals:
            self._says(row, f"{row.body['proposal']} is raised twice")
        asks = sorted(row.body["needs"])
        if row.body["kind"] in APPLIES.values() and asks != self._gate(row.body):
            self._says(row, f"it asks {asks}, the gate {self._gate(row.body)}")
        proposal = {"by": row.actor, "open": True, "yes": []}
        self.proposals[row.body["proposal"]] = {**row.body, **proposal}

    def _gate(self, body):
        fits = [
            gate
            for gate in self.policy.gates
            if gate.to == body["to_stage"] and _fits(gate.where, body["site"], body["window"])
        ]
        return sorted(fits[0].approvals) if fits else []

    def on_approved(self, row):
        proposal = self.proposals.get(row.body["proposal"])
        if proposal is None or not proposal["open"]:
            self._says(row, f"{row.actor} approves {row.body['proposal']}, which is not open")
            return
        if row.actor == proposal["by"]:
            self._says(row, f"{row.actor} approves what {row.actor} raised")
        if row.actor in [by for by, _ in proposal["yes"]]:
            self._says(row, f"{row.actor} approves {row.body['proposal']} twice")
        if row.body["evidence_hash"] != proposal["evidence_hash"]:
            self._says(row, f"{row.actor} approves other evidence than was raised")
        proposal["yes"].append((row.actor, row.body["groups"]))

    def _applied(self, row, name, kind):
        """Close an approved proposal and return it."""
        proposal = self.proposals.get(name)
        if proposal is None or proposal["kind"] != kind or not proposal["open"]:
            self._says(row, f"{kind} by {name}, which is none or not open")
            return None
        if row.at >= proposal["expires_at"]:
            self._says(row, f"{name} had expired")
        if not _filled(proposal["needs"], proposal["yes"]):
            self._says(row, f"{name} asks {proposal['needs']}, has {proposal['yes']}")
        proposal["open"] = False
        return proposal

    def _close(self, row):
        proposal = self.proposals.get(row.body["proposal"])
        if proposal is None or not proposal["open"]:
            self._says(row, f"{row.body['proposal']} is closed again")
        else:
            proposal["open"] = False

    on_proposalrejected = on_proposalvoided = on_proposalexpired = _close

    def _of_cell(self, row):
        proposal = self._applied(row, row.body["proposal"], APPLIES[row.kind])
        if proposal is None:
            return
        of = ("site", "window", "version")
        if any(proposal[name] != row.body[name] for name in of):
            self._says(row, f"{row.kind} elsewhere than {row.body['proposal']} says")
        if proposal["to_stage"] != row.body.get("to_stage", row.body.get("stage")):
            self._says(row, f"{row.kind} to another stage than {row.body['proposal']} says")

    def on_widened(self, row):
        self._of_cell(row)
        grants = self.grants.setdefault(_key(row.body), [])
        if len(grants) + 1 != self.rungs.index(row.body["to_stage"]):
            self._says(row, f"{row.body['to_stage']} is not one rung above {grants}")
        if any(grant for key, grant in self.grants.items() if _rival(key, row.body)):
            self._says(row, "another version holds the cell")
        grants.append([row.body["to_stage"], row.at, row.body["until"]])

    def on_renewed(self, row):
        self._of_cell(row)
        for grant in self.grants.get(_key(row.body), ()):
            if grant[0] == row.body["stage"]:
                grant[1:] = [row.at, row.body["until"]]

    def on_takenover(self, row):
        self._of_cell(row)
        self.grants[*_key(row.body)[:2], row.body["replaced_version"]] = []
        ends = zip(row.body["stages"], row.body["grant_ends"], strict=True)
        self.grants[_key(row.body)] = [[stage, row.at, until] for stage, until in ends]

    def on_narrowed(self, row):
        grants = self.grants.get(_key(row.body), [])
        keep = self.rungs.index(row.body["to_stage"])
        self.grants[_key(row.body)] = grants[:keep]
        if not keep:
            self.suspended[_key(row.body)] = set()

    def on_grantexpired(self, row):
        grants = self.grants.get(_key(row.body), [])
        stages = [grant[0] for grant in grants]
        if row.body["stage"] in stages:
            self.grants[_key(row.body)] = grants[: stages.index(row.body["stage"])]

    def on_suspended(self, row):
        self.suspended.setdefault(_key(row.body), set()).add(row.body["guard"])

    def on_suspensioncleared(self, row):
        self.suspended.setdefault(_key(row.body), set()).discard(row.body["guard"])

    def on_stopped(self, row):
        if row.body["stop"] in self.stops:
            self._says(row, f"{row.body['stop']} stands twice")
        self.stops[row.body["stop"]] = {(c["site"], c["window"]) for c in row.body["cells"]}

    def on_clockcorrected(self, row):
        self.last = row.at

    def on_resumed(self, row):
        proposal = self._applied(row, row.body["proposal"], "resume")
        if proposal and proposal["about"] != row.body["stop"]:
            self._says(row, "another stop than the one approved")
        if self.stops.pop(row.body["stop"], None) is None:
            self._says(row, f"{row.body['stop']} does not stand")


def _list_evidence_lines(body):
    """Return the lines that a person was shown, of which the evidence is the hash."""
    form = {"sort_keys": True, "separators": (",", ":"), "ensure_ascii": False}
    if body["kind"] not in APPLIES.values():
        cells = [f"{cell['site']} · {cell['window']}" for cell in body.get("cells", [])]
        loosens = [json.dumps(looser, **form) for looser in body.get("loosens", [])]
        return [f"{body['kind']} {body['about']}", *loosens, *cells]
    cell = f"{body['site']} · {body['window']}"
    what = f"{body['kind']} {cell} {body['version']} {body['to_stage']}"
    floor = [body["confidence_floor"]] if "confidence_floor" in body else []
    return [what, *floor, *(json.dumps(reading, **form) for reading in body["readings"])]


def _key(body):
    return body["site"], body["window"], body["version"]


def _rival(key, body):
    return key[:2] == _key(body)[:2] and key[2] != body["version"]


def _fits(where, site, window):
    def fits(patterns, name):
        return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)

    return fits(where.sites, site) and fits(where.windows, window)


def _filled(needs, yes):
    """Say whether different people fill all places: every way to seat them is tried."""
    ways = permutations(yes, len(needs))
    return any(
        all(need in groups for need, (_, groups) in zip(needs, way, strict=True)) for way in ways
    )
