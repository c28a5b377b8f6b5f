"""Permissions that roles grant, for API, commands and console.

A role applies to one rollout or all, at one site or all. Narrow roles don't include each other: a
reviewer reads no predictions, and an admin neither approves nor stops.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from rollout.engine.decide.commands import NO_LIMITS, Actor, ApprovalLimits
from rollout.kernel.errors import (
    InvalidAccountError,
    NotAllowedError,
    SecondFactorRequiredError,
    UnknownRolloutError,
)

VIEWER, REVIEWER, OPERATOR = "viewer", "reviewer", "operator"
APPROVER, INGEST, ADMIN = "approver", "ingest", "admin"
INGEST_PREDICTIONS, INGEST_DECISIONS = "ingest-predictions", "ingest-decisions"
INGEST_OUTCOMES = "ingest-outcomes"
INGEST_ROLES = (INGEST, INGEST_PREDICTIONS, INGEST_DECISIONS, INGEST_OUTCOMES)
ROLES = (VIEWER, REVIEWER, OPERATOR, APPROVER, *INGEST_ROLES, ADMIN)
READ_ROLES = frozenset({VIEWER, OPERATOR, APPROVER, ADMIN})
SERVICE_ACCOUNT_ROLES = frozenset({*INGEST_ROLES, VIEWER})


_SERVICE_ACCOUNT_TEXT = f"{', '.join(INGEST_ROLES)} or {VIEWER}"


class Permission(Enum):
    """A permission; its value is the verb in error texts."""

    READ = "read"
    READ_CASES = "read cases"
    READ_SCOPE = "read the scope"
    REQUEST_ASSIGNMENT = "ask who decides"
    SEND_RECORDS = "send records"
    SEND_CASES = "send cases, actions and heartbeats"
    SEND_PREDICTIONS = "send predictions"
    STATE_TRAINING = "say until when a version was trained"
    SEND_DECISIONS = "send decisions"
    SEND_OUTCOMES = "send outcomes"
    REVIEW = "review"
    OPERATE = "narrow, stop, acknowledge, retire or choose for training"
    PROPOSE = "propose a widening or a resume"
    APPROVE = "approve or reject"
    REJECT = "reject"
    ADMINISTER = "administer"
    UPLOAD_FILES = "upload recorded files"
    IDENTIFY = "ask who they are"


ROLES_BY_PERMISSION: dict[Permission, frozenset[str]] = {
    Permission.READ: READ_ROLES,
    Permission.READ_CASES: READ_ROLES | frozenset(INGEST_ROLES),
    Permission.READ_SCOPE: READ_ROLES | frozenset(INGEST_ROLES),
    Permission.REQUEST_ASSIGNMENT: frozenset({INGEST, INGEST_PREDICTIONS}),
    Permission.SEND_RECORDS: frozenset(INGEST_ROLES),
    Permission.SEND_CASES: frozenset({INGEST, INGEST_PREDICTIONS, INGEST_DECISIONS}),
    Permission.SEND_PREDICTIONS: frozenset({INGEST, INGEST_PREDICTIONS}),
    Permission.STATE_TRAINING: frozenset({INGEST, INGEST_PREDICTIONS, ADMIN}),
    Permission.SEND_DECISIONS: frozenset({INGEST, INGEST_DECISIONS}),
    Permission.SEND_OUTCOMES: frozenset({INGEST, INGEST_OUTCOMES}),
    Permission.REVIEW: frozenset({REVIEWER}),
    Permission.OPERATE: frozenset({OPERATOR}),
    Permission.PROPOSE: frozenset({OPERATOR}),
    Permission.APPROVE: frozenset({OPERATOR, APPROVER}),
    Permission.REJECT: frozenset({OPERATOR, APPROVER}),
    Permission.ADMINISTER: frozenset({ADMIN}),
    Permission.UPLOAD_FILES: frozenset({OPERATOR, INGEST, INGEST_PREDICTIONS, ADMIN}),
    Permission.IDENTIFY: frozenset(ROLES),
}
FACTOR_PERMISSIONS = frozenset({Permission.PROPOSE, Permission.APPROVE, Permission.ADMINISTER})
"""Permissions that need a second factor where the service requires one.

Without it an account may look, stop and narrow.
"""
FACTOR_ROLES = frozenset(
    role
    for permission in (Permission.APPROVE, Permission.ADMINISTER)
    for role in ROLES_BY_PERMISSION[permission]
)
"""Roles whose users need a second factor where the service requires one."""
NO_SECOND_FACTOR = (
    "this needs a second factor: sign in with one, or set one up in the console under Settings;"
    " until then you may look, stop and narrow"
)


@dataclass(frozen=True, slots=True)
class AssignedRole:
    """An account's role; "" for rollout or site means all.

    Gates require the `group` of an approver.
    """

    role: str
    rollout: str = ""
    site: str = ""
    group: str = ""

    def __str__(self) -> str:
        """Return the role as text: `approver of safety in ramps at ramp-a`."""
        group_text = f" of {self.group}" if self.group else ""
        rollout_text = f" in {self.rollout}" if self.rollout else " in all rollouts"
        return f"{self.role}{group_text}{rollout_text}" + (f" at {self.site}" if self.site else "")

    def covers(self, rollout: str, site: str = "") -> bool:
        """Return whether it applies at a site; "" means all sites."""
        return self.rollout in {"", rollout} and self.site in {"", site}

    def overlaps(self, other: "AssignedRole") -> bool:
        """Return whether both apply at some site."""
        has_rollout = "" in {self.rollout, other.rollout} or self.rollout == other.rollout
        return has_rollout and ("" in {self.site, other.site} or self.site == other.site)


def is_broad(role_assignments: Iterable[AssignedRole]) -> bool:
    """Return whether an account may send predictions and what judges them at the same site.

    These are decisions and outcomes.

    >>> at_ramp_a = AssignedRole("ingest-predictions", "ramps", "ramp-a")
    >>> at_ramp_b = AssignedRole("ingest-decisions", "ramps", "ramp-b")
    >>> (
    ...     is_broad([at_ramp_a, at_ramp_b]),
    ...     is_broad([at_ramp_a, AssignedRole("ingest-decisions")]),
    ...     is_broad([AssignedRole("ingest", "ramps", "ramp-a")]),
    ... )
    (False, True, True)
    >>> is_broad([at_ramp_a, AssignedRole("ingest-outcomes")])
    True
    """
    judging = (Permission.SEND_DECISIONS, Permission.SEND_OUTCOMES)
    judging_roles = frozenset().union(*(ROLES_BY_PERMISSION[each] for each in judging))
    prediction_roles = ROLES_BY_PERMISSION[Permission.SEND_PREDICTIONS]
    return _has_overlap(tuple(role_assignments), prediction_roles, judging_roles)


def reads_what_it_judges(role_assignments: Iterable[AssignedRole]) -> bool:
    """Return whether an account that sends what judges predictions may read figures of them.

    One that also sends the predictions knows them.

    >>> desk = AssignedRole("ingest-decisions", "ramps", "ramp-a")
    >>> (
    ...     reads_what_it_judges([desk, AssignedRole("viewer", "ramps")]),
    ...     reads_what_it_judges([desk, AssignedRole("viewer", "ramps", "ramp-b")]),
    ...     reads_what_it_judges([AssignedRole("ingest"), AssignedRole("viewer")]),
    ... )
    (True, False, False)
    """
    judging_roles = frozenset({INGEST_DECISIONS, INGEST_OUTCOMES})
    return _has_overlap(tuple(role_assignments), READ_ROLES, judging_roles)


def _has_overlap(
    assignments: Sequence[AssignedRole], first_roles: frozenset[str], second_roles: frozenset[str]
) -> bool:
    """Return whether an account has roles of both kinds at some site."""
    return any(
        first.role in first_roles and second.role in second_roles and first.overlaps(second)
        for first in assignments
        for second in assignments
    )


@dataclass(frozen=True, slots=True)
class Caller:
    """An account with its roles as of access ledger revision `access_head`.

    Attributes:
        name: the account.
        is_service_account: whether it is a program's.
        role_assignments: its roles.
        access_head: revision of the access ledger.
        second_factor: kind that was given in the session or for the key, "" for none.
        lacks_second_factor: whether the service requires one for its roles and none was given.
        limits: of its approvals.
    """

    name: str
    is_service_account: bool = False
    role_assignments: tuple[AssignedRole, ...] = ()
    access_head: int | None = None
    second_factor: str = ""
    lacks_second_factor: bool = False
    limits: ApprovalLimits = NO_LIMITS

    @property
    def has_factor_role(self) -> bool:
        """Return whether a role of a user may need a second factor."""
        return not self.is_service_account and any(
            assignment.role in FACTOR_ROLES for assignment in self.role_assignments
        )

    def has_permission(self, permission: Permission, rollout: str, site: str = "") -> bool:
        """Return whether a role grants it at a site; "" means all sites.

        >>> ana = Caller("ana", role_assignments=(AssignedRole("operator", "ramps", "ramp-a"),))
        >>> (
        ...     ana.has_permission(Permission.OPERATE, "ramps", "ramp-a"),
        ...     ana.has_permission(Permission.OPERATE, "ramps"),
        ... )
        (True, False)
        """
        return not self._is_withheld(permission) and any(
            assignment.role in ROLES_BY_PERMISSION[permission] and assignment.covers(rollout, site)
            for assignment in self.role_assignments
        )

    def has_permission_somewhere(self, permission: Permission, rollout: str) -> bool:
        """Return whether a role grants it at some site of a rollout."""
        return not self._is_withheld(permission) and any(
            assignment.role in ROLES_BY_PERMISSION[permission]
            and assignment.rollout in {"", rollout}
            for assignment in self.role_assignments
        )

    def _is_withheld(self, permission: Permission) -> bool:
        return self.lacks_second_factor and permission in FACTOR_PERMISSIONS

    def can_see(self, rollout: str) -> bool:
        """Return whether the caller has any role in the rollout."""
        return any(assignment.rollout in {"", rollout} for assignment in self.role_assignments)

    def as_actor(self, rollout: str, sites: tuple[str, ...] = ()) -> Actor:
        """Return the actor of a command, with the groups held at all `sites`."""
        needed_sites = sites or ("",)
        approving_assignments = [
            assignment
            for assignment in self.role_assignments
            if assignment.role in {OPERATOR, APPROVER}
        ]
        group_names = {assignment.group or assignment.role for assignment in approving_assignments}
        groups = (
            group
            for group in sorted(group_names)
            if all(
                any(
                    (assignment.group or assignment.role) == group
                    and assignment.covers(rollout, site)
                    for assignment in approving_assignments
                )
                for site in needed_sites
            )
        )
        return Actor(
            self.name,
            tuple(groups),
            is_service_account=self.is_service_account,
            limits=self.limits,
        )


def may_be_asked_blind(caller: Caller, rollout_name: str, sites: Sequence[str]) -> bool:
    """Return whether a user may be asked for a blind review at one of the sites.

    Then a message shows no figures, nor what a guard measured, and figures of evidence move in
    batches. Without sites, any site counts.
    """
    if not sites:
        return caller.has_permission_somewhere(Permission.REVIEW, rollout_name)
    return any(caller.has_permission(Permission.REVIEW, rollout_name, site) for site in sites)


def may_upload(caller: Caller) -> bool:
    """Return whether a user may upload recorded files.

    Files are no rollout's, so a role in any rollout is enough. A service account has no pages.

    >>> may_upload(Caller("ana", role_assignments=(AssignedRole("operator", "ramps", "ramp-a"),)))
    True
    """
    return not caller.is_service_account and any(
        assignment.role in ROLES_BY_PERMISSION[Permission.UPLOAD_FILES]
        for assignment in caller.role_assignments
    )


def require_permission(
    caller: Caller, permission: Permission, rollout: str, sites: tuple[str, ...] = ()
) -> None:
    """Raise an error unless the caller has the permission.

    Args:
        rollout: name of the rollout; "" for what no rollout owns, which needs a role in all.
        sites: all must be covered; () needs the permission at some site of the rollout.

    Raises:
        UnknownRolloutError: the caller has no role in it, so it must not become visible.
        NotAllowedError: the text names the roles that have the permission.
        SecondFactorRequiredError: the role has it, but no second factor was given.
    """
    if rollout and not caller.can_see(rollout):
        raise UnknownRolloutError(f"no rollout {rollout} that {caller.name} may see")
    if permission is Permission.IDENTIFY:
        return  # every account may, even without any role
    if caller.lacks_second_factor and permission in FACTOR_PERMISSIONS:
        require_permission(replace(caller, lacks_second_factor=False), permission, rollout, sites)
        raise SecondFactorRequiredError(NO_SECOND_FACTOR)
    if not sites and caller.has_permission_somewhere(permission, rollout):
        return
    missing_sites = [site for site in sites if not caller.has_permission(permission, rollout, site)]
    if sites and not missing_sites:
        return
    roles = " or ".join(sorted(ROLES_BY_PERMISSION[permission]))
    sites_text = f" at {', '.join(missing_sites)}" if missing_sites else ""
    raise NotAllowedError(
        f"{caller.name} may not {permission.value}{sites_text}; it needs the role {roles}: ask an"
        " admin"
    )


def check_role_assignment(assignment: AssignedRole, *, is_service_account: bool) -> None:
    """Raise an error unless the role fits the account.

    Raises:
        InvalidAccountError: the role is unknown or not for service accounts, or group or site is
            missing or out of place.
    """
    if problem := _find_assignment_error(assignment, is_service_account=is_service_account):
        raise InvalidAccountError(problem)


def _find_assignment_error(assignment: AssignedRole, *, is_service_account: bool) -> str:
    """Return what is wrong with a role, or ""."""
    is_approver = assignment.role == APPROVER
    checks = (
        (
            assignment.role not in ROLES,
            f"there is no role {assignment.role}; roles: {', '.join(ROLES)}",
        ),
        (
            is_service_account and assignment.role not in SERVICE_ACCOUNT_ROLES,
            f"a service account can be {_SERVICE_ACCOUNT_TEXT}, not {assignment.role}",
        ),
        (
            is_approver != bool(assignment.group),
            "an approver needs the group that gates require, and no other role has one",
        ),
        (
            assignment.group in ROLES,
            f"{assignment.group} is a role; name the group otherwise, as safety or finance",
        ),
        (
            bool(assignment.site) and not assignment.rollout,
            "a role at a site needs the rollout of the site: name it too",
        ),
        (
            assignment.role == ADMIN and bool(assignment.site),
            "an admin can't be limited to a site: name a rollout, or none for all",
        ),
    )
    return next((text for is_wrong, text in checks if is_wrong), "")
