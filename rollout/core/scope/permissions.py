"""Who may do what where: the same answer for the API, the command line and the console.

A right is a role, in one rollout or all, at one site or all. Narrow roles give no wide ones: who
reviews reads no predictions, and who administers neither approves nor stops.
"""

from dataclasses import dataclass
from enum import Enum

from rollout.core.errors import NotAllowed, PersonRefused, UnknownRollout
from rollout.core.scope.commands import Person

VIEWER, REVIEWER, OPERATOR = "viewer", "reviewer", "operator"
APPROVER, INGEST, ADMIN = "approver", "ingest", "admin"
ROLES = (VIEWER, REVIEWER, OPERATOR, APPROVER, INGEST, ADMIN)
READERS = frozenset({VIEWER, OPERATOR, APPROVER, ADMIN})
OF_MACHINES = frozenset({INGEST, VIEWER})


class Act(Enum):
    """What somebody wants to do. Its value is what a refusal calls it."""

    READ = "read"
    EXPLAIN = "read cases"
    WATCH = "read the scope"
    ASK = "ask who decides"
    RECORD = "send records"
    REVIEW = "review"
    OPERATE = "narrow, stop, resume, acknowledge, retire or choose for training"
    APPROVE = "approve or reject"
    ADMINISTER = "administer"
    BE = "ask who they are"


MAY: dict[Act, frozenset[str]] = {
    Act.READ: READERS,
    Act.EXPLAIN: READERS | {INGEST},
    Act.WATCH: READERS | {INGEST},
    Act.ASK: frozenset({INGEST}),
    Act.RECORD: frozenset({INGEST}),
    Act.REVIEW: frozenset({REVIEWER}),
    Act.OPERATE: frozenset({OPERATOR}),
    Act.APPROVE: frozenset({OPERATOR, APPROVER}),
    Act.ADMINISTER: frozenset({ADMIN}),
    Act.BE: frozenset(ROLES),
}


@dataclass(frozen=True, slots=True)
class Right:
    """A role; "" for rollout or site means all of them. An approver's `group` is what gates ask."""

    role: str
    rollout: str = ""
    site: str = ""
    group: str = ""

    def __str__(self) -> str:
        """Return it as a person reads it: `approver of safety in ramps at ramp-a`."""
        group_text = f" of {self.group}" if self.group else ""
        rollout_text = f" in {self.rollout}" if self.rollout else " in all rollouts"
        return f"{self.role}{group_text}{rollout_text}" + (f" at {self.site}" if self.site else "")

    def reaches(self, rollout: str, site: str = "") -> bool:
        """Say whether it holds at a site of a rollout; "" asks for all sites."""
        return self.rollout in {"", rollout} and self.site in {"", site}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, with the rights that they have, judged at revision `house` of the house chain."""

    name: str
    machine: bool = False
    rights: tuple[Right, ...] = ()
    house: int | None = None

    def may(self, act: Act, rollout: str, site: str = "") -> bool:
        """Say whether they may do it at a site; "" asks for all sites at once.

        >>> ana = Caller("ana", rights=(Right("operator", "ramps", "ramp-a"),))
        >>> ana.may(Act.OPERATE, "ramps", "ramp-a"), ana.may(Act.OPERATE, "ramps")
        (True, False)
        """
        return any(
            assignment.role in MAY[act] and assignment.reaches(rollout, site)
            for assignment in self.rights
        )

    def may_somewhere(self, act: Act, rollout: str) -> bool:
        """Say whether they may do it at some site of a rollout at least."""
        return any(
            assignment.role in MAY[act] and assignment.rollout in {"", rollout}
            for assignment in self.rights
        )

    def sees(self, rollout: str) -> bool:
        """Say whether they have any right in the rollout: to others it is not there."""
        return any(assignment.rollout in {"", rollout} for assignment in self.rights)

    def person(self, rollout: str, sites: tuple[str, ...] = ()) -> Person:
        """Return them as a command's person, in the groups that they stand in at all `sites`."""
        needed_sites = sites or ("",)
        approving_assignments = [
            assignment for assignment in self.rights if assignment.role in {OPERATOR, APPROVER}
        ]
        group_names = {assignment.group or assignment.role for assignment in approving_assignments}
        groups = (
            group
            for group in sorted(group_names)
            if all(
                any(
                    (assignment.group or assignment.role) == group
                    and assignment.reaches(rollout, site)
                    for assignment in approving_assignments
                )
                for site in needed_sites
            )
        )
        return Person(self.name, tuple(groups), machine=self.machine)


def require(caller: Caller, act: Act, rollout: str, sites: tuple[str, ...] = ()) -> None:
    """Let the caller pass, or refuse.

    Args:
        caller: who asks.
        act: what they want to do.
        rollout: the rollout's name; "" for what no rollout owns, which asks for a right in all.
        sites: each must be within their right; () asks for the act somewhere in the rollout.

    Raises:
        UnknownRollout: they have no right in it, so to them it is not there.
        NotAllowed: they may not; the text says who could.
    """
    if rollout and not caller.sees(rollout):
        raise UnknownRollout(f"no rollout {rollout} that {caller.name} may see")
    if act is Act.BE:
        return  # whoever is known may ask who they are, also without any right
    if not sites and caller.may_somewhere(act, rollout):
        return
    missing_sites = [site for site in sites if not caller.may(act, rollout, site)]
    if sites and not missing_sites:
        return
    roles = " or ".join(sorted(MAY[act]))
    sites_text = f" at {', '.join(missing_sites)}" if missing_sites else ""
    raise NotAllowed(
        f"{caller.name} may not {act.value}{sites_text}; it needs the role {roles}: ask an admin"
    )


def require_sound(right: Right, *, machine: bool) -> None:
    """Go on only with a right that means something for whoever gets it.

    Raises:
        PersonRefused: the role is unknown or not for machines, the group or the site is missing
            or out of place; the text says what would be right.
    """
    if problem := _fault(right, machine=machine):
        raise PersonRefused(problem)


def _fault(right: Right, *, machine: bool) -> str:
    """Return what is wrong with a right, and what would be right; "" for nothing."""
    is_approver = right.role == APPROVER
    checks = (
        (right.role not in ROLES, f"there is no role {right.role}; roles: {', '.join(ROLES)}"),
        (
            machine and right.role not in OF_MACHINES,
            f"a service account can be ingest or viewer, not {right.role}",
        ),
        (
            is_approver != bool(right.group),
            "an approver needs the group that gates require, and no other role has one",
        ),
        (
            right.group in ROLES,
            f"{right.group} is a role; name the group otherwise, as safety or finance",
        ),
        (
            bool(right.site) and not right.rollout,
            "a role at a site needs the rollout of the site: name it too",
        ),
        (
            right.role == ADMIN and bool(right.site),
            "an admin can't be limited to a site: name a rollout, or none for all",
        ),
    )
    return next((text for is_wrong, text in checks if is_wrong), "")
