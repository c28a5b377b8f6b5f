"""Assignment of a case to the model or, in doubt, to a human; permits that sign the answer.

A permit signs the answer "the model decides". Answers are not stored. The permit carries what can't
be recomputed (revision, decider, instant, lease, key number) and a code over that with rollout,
case and version. The client returns it with the action.

A permit is bound to the answers of the prediction that came with the question, or unbound; its text
begins with a mark that says which.
"""

import hashlib
import hmac
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from rollout.engine.decide.scope import FIRST_ERA, Scope, find_acting_version, format_revision
from rollout.engine.decide.widening_steps import find_decided_floor
from rollout.kernel.calendar.instants import (
    MICROSECOND,
    OTHER_WINDOW,
    Cell,
    Site,
    Window,
    from_micros,
    to_instant_micros,
    to_micros,
)
from rollout.kernel.calendar.opening_hours import (
    find_next_change,
    follows_sun,
    is_open,
    uses_holidays,
)
from rollout.kernel.calendar.windows import select_window
from rollout.kernel.policy.cell_evidence import reaches_floor
from rollout.kernel.policy.familiarity import AttributeValue, format_value
from rollout.kernel.policy.policy import NEVER, Policy
from rollout.kernel.policy.stages import Stage
from rollout.kernel.statistics.sampling import SAMPLING_PURPOSE, compute_sampling_value
from rollout.kernel.units import CASELESS_UNIT

NO_WINDOW_FITS = "no window fits"
BELOW_FLOOR = "below the confidence floor"
NOT_DRAWN: Final = "the version's sample leaves the case out"
UNKNOWN_DRAW: Final = (
    "the version runs on a sample of the cases: send the case first, or `prediction` with the"
    " question"
)
SAMPLE: Final = "sample"
"""Purpose of the draws for versions that run on a part of the cases."""
MAX_CLOCK_SKEW = timedelta(minutes=5)  # a human decides cases of other times
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class CaseQuestion:
    """A case that needs an assignment.

    `is_drawn` is whether the version's sample has the case, None while nobody has drawn it.
    """

    site: str
    at: datetime | None
    version: str
    key: str
    episode: str = ""
    confidence: float | None = None
    attributes: Mapping[str, str] | None = None
    is_drawn: bool | None = None


@dataclass(frozen=True, slots=True)
class FallbackAction:
    """The `action` of a lever if no human answers within `after`."""

    lever: str
    action: str
    after: timedelta


class ActingStage(NamedTuple):
    """A stage above shadow, and the confidence from which it decides cases; None for any."""

    stage: Stage
    floor: float | None


@dataclass(frozen=True, slots=True)
class TableAnswer:
    """What a case gets; the fields are as in an assignment."""

    decider: str
    stage: str
    exposure: str
    share: float
    reason: str


@dataclass(frozen=True, slots=True)
class Assignment(TableAnswer):
    """The answer to "who decides this case?".

    Attributes:
        decider: `human` or `model`.
        stage: stage of the version in the cell.
        exposure: what a reviewer sees: `blind` or `assisted`; audits are `blind`.
        share: share of units with sampling values that lead to the same decider.
        revision: ledger revision of the answer.
        lease: how long the answer may be used, from the moment the question was sent.
        fallbacks: of each lever that defines one.
    """

    revision: int
    lease: timedelta
    fallbacks: tuple[FallbackAction, ...] = ()

    @property
    def answer_within(self) -> timedelta | None:
        """Return the time to the first fallback, or None."""
        return min((lever.after for lever in self.fallbacks), default=None)


def decide_assignment(
    scope: Scope,
    policy: Policy,
    salt: bytes,
    question: CaseQuestion,
    *,
    now: datetime,
    time_left: timedelta | None = None,
) -> Assignment:
    """Return who decides; the human if anything is missing, unknown or skewed.

    Args:
        salt: the rollout's secret; a case always gets the same sampling value.
        now: the client's time of asking, with timezone.
        time_left: remaining lease of a copied scope; None if the scope is no copy.
    """
    assignment = _decide(scope, policy, salt, question, now)
    if time_left is not None and time_left <= timedelta(0):
        return assign_human(scope, policy, timedelta(0), "the lease has ended")
    return (
        assignment
        if time_left is None or assignment.lease <= time_left
        else replace(assignment, lease=time_left)
    )


def _decide(
    scope: Scope, policy: Policy, salt: bytes, question: CaseQuestion, now: datetime
) -> Assignment:
    site = policy.sites_by_id.get(question.site)
    full_lease = get_full_lease(policy, site)
    cell, reason = _find_cell(policy, site, question, now)
    acting = None if cell is None else find_acting_stage(scope, policy, cell, question.version, now)
    if cell is None or acting is None:
        return assign_in_shadow(scope, policy, full_lease, cell, reason)
    since = now if scope.at is None else max(now, scope.at)
    end = compute_end(scope, policy, cell, scope.get_first_name(question.version), since)
    lease = min(full_lease, end - since)
    doubt = describe_sample(scope, policy, question.version, is_drawn=question.is_drawn)
    if not doubt:
        doubt = (
            describe_unfamiliar_case(scope, policy, cell, question.version, question.attributes)
            if reaches_floor(question.confidence, acting.floor)
            else BELOW_FLOOR
        )
    if doubt:
        return assign_human(scope, policy, lease, doubt, acting.stage.id)
    sampling_key = compute_unit_key(
        policy, question.key, question.site, question.at, question.episode
    )
    sampling_value = compute_sampling_value(salt, SAMPLING_PURPOSE, sampling_key)
    return assign_by_sampling(acting.stage, sampling_value, scope, policy, lease)


def describe_sample(
    scope: Scope, policy: Policy, version: str, *, is_drawn: bool | None = None
) -> str:
    """Return why a version with a sample does not decide a case, or ""."""
    first_name = scope.get_first_name(version)
    has_sample = any(first_name == scope.get_first_name(name) for name in policy.samples_by_version)
    if not has_sample or is_drawn:
        return ""
    return UNKNOWN_DRAW if is_drawn is None else NOT_DRAWN


def get_full_lease(policy: Policy, site: Site | None) -> timedelta:
    """Return the lease of a site, the policy's own without one."""
    return policy.lease if site is None or site.lease is None else site.lease


def find_acting_stage(
    scope: Scope, policy: Policy, cell: Cell, version: str, now: datetime
) -> ActingStage | None:
    """Return the stage above shadow of a version in a cell, or None."""
    acting = find_acting_version(scope, policy, cell, now)
    if acting is None or acting[0] != scope.get_first_name(version):
        return None
    holder, stage_level = acting
    floor = find_decided_floor(policy, scope.get_cell_state(cell, holder), stage_level)
    return ActingStage(policy.get_stage(stage_level), floor)


def assign_in_shadow(
    scope: Scope, policy: Policy, lease: timedelta, cell: Cell | None, reason: str = ""
) -> Assignment:
    """Return the assignment where the version does not act; `reason` is why no cell fits."""
    return assign_human(scope, policy, lease, reason or _explain_shadow(scope, policy, cell))


def describe_unfamiliar_case(
    scope: Scope,
    policy: Policy,
    cell: Cell,
    version: str,
    attributes: Mapping[str, str] | None,
) -> str:
    """Return why a case is unfamiliar to the version that acts, or ""."""
    values = find_unfamiliar_values(scope, policy, cell, version, attributes)
    return f"unfamiliar: {', '.join(map(format_value, values))}" if values else ""


def _explain_shadow(scope: Scope, policy: Policy, cell: Cell | None) -> str:
    """Return why no version acts in a cell: its stops, the guards that suspended it, or shadow."""
    stops = sorted(stop.id for stop in scope.stops.values() if cell in stop.cells)
    if stops:
        return f"stopped: {', '.join(stops)}"
    holder = None if cell is None else scope.get_holder(cell)
    if cell is None or holder is None:
        return "shadow: a human decides"
    guards = scope.get_cell_state(cell, holder).suspended_by
    return f"suspended: {policy.describe_guards(guards)}" if guards else "shadow: a human decides"


def find_unfamiliar_values(
    scope: Scope,
    policy: Policy,
    cell: Cell,
    version: str,
    attributes: Mapping[str, str] | None,
) -> tuple[AttributeValue, ...]:
    """Return a case's values that the version hardly met in the cell, or got wrong there."""
    rule = policy.evidence.familiar
    if rule is None:
        return ()
    values = scope.get_cell_values(cell, scope.get_first_name(version))
    return rule.find_unfamiliar(attributes, values.statuses)


def compute_unit_key(
    policy: Policy, key: str, site: str, at: datetime | None, episode: str | None
) -> str:
    """Return a case's sampling key.

    With `unit: case` it is the case's key. With `unit: episode` it is the episode's; without
    episode a case shares the key with the cases of its site in the same clock span, if the policy
    defines spans, or is alone, and no evidence.
    """
    if policy.evidence.unit == "case":
        return key
    span = policy.evidence.episode_span
    if episode or span is None or at is None:
        return episode or key
    return f"{site}@{to_instant_micros(at) // (span // MICROSECOND)}"


def describe_taken_name(policy: Policy, episode: str | None) -> str:
    """Return why an episode may not be called so: as units are that have none; else ""."""
    site, _, place = (episode or "").rpartition("@")
    is_span = policy.evidence.episode_span is not None and site in policy.sites_by_id
    owner = (
        f"a clock span at {site}"
        if is_span and place.removeprefix("-").isdecimal()
        else "a decision without a case"
        if (episode or "").endswith(CASELESS_UNIT.format(""))
        else ""
    )
    return owner and f"{episode} is what {owner} is called: name the episode otherwise"


def draw_case(
    policy: Policy, service_salt: bytes, key: str, site: str, occurred: int, episode: str | None
) -> dict[str, bool]:
    """Return by version with a sample whether it runs on a case.

    All cases of an episode share a draw. `occurred` is in microseconds.
    """
    if not policy.samples_by_version:
        return {}
    unit = compute_unit_key(policy, key, site, from_micros(occurred), episode)
    return {
        version: compute_sampling_value(service_salt, SAMPLE, version, unit) < share
        for version, share in policy.samples_by_version.items()
    }


def _find_cell(
    policy: Policy, site: Site | None, question: CaseQuestion, now: datetime
) -> tuple[Cell | None, str]:
    if site is None or not question.key or not question.version:
        return None, "unknown site, key or version"
    if question.at is None:
        return None, "the case has no time"
    if question.at.utcoffset() is None:
        return None, "the case's time has no zone"
    if abs(question.at - now) > MAX_CLOCK_SKEW:
        return None, "the case's time is more than 5 min from now"
    open_windows = find_open_span(site, policy.windows, question.at)[0]
    window = select_window(open_windows, question.attributes)
    return (None, NO_WINDOW_FITS) if window == OTHER_WINDOW else (Cell(site.id, window), "")


def assign_human(
    scope: Scope, policy: Policy, lease: timedelta, reason: str, stage: str = "shadow"
) -> Assignment:
    """Return the assignment of a case that a human decides, unaware of the model."""
    revision, fallbacks = scope.revision, list_fallbacks(policy)
    return Assignment("human", stage, "blind", 1.0, reason, revision, lease, fallbacks)


def assign_by_sampling(
    stage: Stage,
    sampling_value: float,
    scope: Scope,
    policy: Policy,
    lease: timedelta,
) -> Assignment:
    """Return the assignment that a stage gives a sampling value.

    It says nothing of audits: who could foretell them would answer other cases worse.
    """
    share = 1 - stage.blind
    if sampling_value < stage.blind:
        decider, exposure, share, reason = "human", "blind", stage.blind, "blind share"
    elif not stage.model_decides:
        decider, exposure, reason = "human", "assisted", "a human confirms"
    else:
        decider, exposure, reason = "model", "blind", "the model decides"
    revision, fallbacks = scope.revision, list_fallbacks(policy)
    return Assignment(decider, stage.id, exposure, share, reason, revision, lease, fallbacks)


def list_fallbacks(policy: Policy) -> tuple[FallbackAction, ...]:
    """Return the actions of levers whose cases no human answers in time."""
    return tuple(
        FallbackAction(lever.id, lever.unanswered, lever.answer_within)
        for lever in policy.levers
        if lever.unanswered is not None and lever.answer_within is not None
    )


def compute_end(
    scope: Scope,
    policy: Policy,
    cell: Cell,
    version: str,
    at: datetime,
    closes: datetime | None = None,
) -> datetime:
    """Return when a version's stage in a cell may change without an event.

    That is the next change of any window of the site, the end of a grant, or the end of the last
    day that a limit allows above shadow; the end of the calendar without any of them.

    `closes` is the end of the site's open span at that instant, if it was found before.
    """
    changes = closes or find_open_span(policy.sites_by_id[cell.site], policy.windows, at)[2]
    ends = [
        grant.until for grant in scope.get_cell_state(cell, version).grants if grant.is_valid(at)
    ]
    return min((changes, policy.compute_end(cell), *ends))


# Opening hours are slow (a third of a millisecond for four windows) and change a few times a
# day: the changes of each day are cached.


def find_open_span(
    site: Site, windows: tuple[Window, ...], at: datetime
) -> tuple[tuple[Window, ...], datetime, datetime]:
    """Return the open windows of a site, and a span of its UTC day in which they are.

    The span ends when they next change. The windows are returned without hours.
    """
    at = at.astimezone(UTC)
    edges, open_windows = _compute_day(site, windows, at.toordinal())
    position = bisect_right(edges, at)
    since = (
        edges[position - 1] if position else at.replace(hour=0, minute=0, second=0, microsecond=0)
    )
    return open_windows[position], since, edges[position]


WindowDay = tuple[tuple[datetime, ...], tuple[tuple[Window, ...], ...]]


@lru_cache(maxsize=2**15)
def _compute_day(site: Site, windows: tuple[Window, ...], day: int) -> WindowDay:
    """Return a site's window changes in a UTC day and the windows between.

    The last change is the first one after the day. The windows are returned without hours.
    """
    changes_by_window = [_compute_turns(w.hours, _reduce_site(site, w.hours), day) for w in windows]
    last = min(change_times[-1] for _, change_times in changes_by_window)
    edges = [
        *sorted({edge for _, change_times in changes_by_window for edge in change_times[:-1]}),
        last,
    ]
    starts = (datetime.fromordinal(day).replace(tzinfo=UTC), *edges[:-1])
    open_windows = (
        tuple(
            w
            for w, window_changes in zip(windows, changes_by_window, strict=True)
            if _is_open_at(window_changes, t)
        )
        for t in starts
    )
    return tuple(edges), tuple(
        tuple(Window(w.id, when=w.when) for w in windows_then) for windows_then in open_windows
    )


HourTurns = tuple[bool, tuple[datetime, ...]]


@lru_cache(maxsize=2**12)
def _compute_turns(hours: str | None, clock: Site, day: int) -> HourTurns:
    """Return whether hours are open as a UTC day begins, and their changes.

    The last change lies after the day.
    """
    start = datetime.fromordinal(day).replace(tzinfo=UTC)
    return is_open(hours, clock, start), tuple(_list_changes(hours, clock, start))


def _list_changes(hours: str | None, clock: Site, start: datetime) -> Iterator[datetime]:
    at, end = start, start + DAY
    while at < end:
        change = find_next_change(hours, clock, at)
        at = NEVER if change is None else change
        yield at


def _is_open_at(hour_turns: HourTurns, at: datetime) -> bool:
    """Return whether hours are open at an instant of their day."""
    is_open_first, changes = hour_turns
    return is_open_first ^ (bisect_right(changes, at) % 2 == 1)


def _reduce_site(site: Site, hours: str | None) -> Site:
    """Return the site's parts that its hours use, to share cached answers."""
    needs_sun = hours is not None and follows_sun(hours)
    country = site.country if hours is not None and uses_holidays(hours) else None
    return Site(
        site.id if needs_sun else "",
        site.timezone,
        country,
        site.coordinates if needs_sun else None,
    )


SHARE_TOLERANCE: Final = 1e-9  # shares are sums and products of the policy's


@dataclass(frozen=True, slots=True)
class AssignmentClaim:
    """An answer that a client gave itself by its snapshot; the fields are as in `Assignment`."""

    decider: str
    exposure: str
    share: float
    revision: int

    @property
    def needs_proof(self) -> bool:
        """Return whether it is more than that a human decides unaware, which clients may choose."""
        return (self.decider, self.exposure, self.share) != ("human", "blind", 1)


def find_claim_fault(claim: AssignmentClaim, expected: Assignment) -> str:
    """Return how a claim differs from the answer of its revision, or ""."""
    is_same_share = abs(claim.share - expected.share) < SHARE_TOLERANCE
    if is_same_share and (claim.decider, claim.exposure) == (expected.decider, expected.exposure):
        return ""
    return (
        f"the client says {_describe_answer(claim)}; revision {claim.revision} and the sampling"
        f" value give {_describe_answer(expected)}"
    )


def _describe_answer(answer: AssignmentClaim | Assignment) -> str:
    return f"{answer.decider} ({answer.exposure}, {answer.share * 100:.4g} % of units)"


BOUND: Final = "bound"
UNBOUND: Final = "unbound"
KIND_BY_MARK: Final[Mapping[str, str]] = {"b": BOUND, "u": UNBOUND}
MARK_BY_KIND: Final[Mapping[str, str]] = {kind: mark for mark, kind in KIND_BY_MARK.items()}
SIGNATURE_DOMAIN: Final = b"rollout-permit-1\x1f"
CODE_LENGTH = 32  # hexadecimal digits: 128 bits
PART_COUNT = 6  # of a permit without mark and digest
CLOCK_TOLERANCE: Final = timedelta(seconds=5)
"""How far the clock of who acts may differ from ours."""
_BLOCK_BYTES: Final = 64  # of SHA-256


@dataclass(frozen=True, slots=True)
class Permit:
    """A signed answer: decider, revision, time and lease.

    Attributes:
        kind: `bound` or `unbound`.
        answer_digest: of the answers to which a bound permit is bound.
        era: of the ledger; a permit is valid in its own era only.
    """

    decider: str
    revision: int
    issued_at: datetime
    lease: timedelta
    kind: str = UNBOUND
    answer_digest: str = ""
    era: int = FIRST_ERA

    @property
    def expires_at(self) -> datetime:
        """Return the instant from which it is invalid."""
        return self.issued_at + self.lease

    def allows(self, at: datetime) -> bool:
        """Return whether an action at an instant is within its lease, for a clock near ours."""
        return at <= self.expires_at + CLOCK_TOLERANCE


def compute_answer_digest(answers: Mapping[str, str | None]) -> str:
    """Return a digest of every lever's answer; a missing one equals None.

    >>> compute_answer_digest({"a": "x", "b": None}) == compute_answer_digest({"a": "x"})
    True
    """
    pairs = sorted((lever, answer) for lever, answer in answers.items() if answer is not None)
    content = _encode_parts(*(part for pair in pairs for part in pair))
    return hashlib.sha256(content).hexdigest()[:CODE_LENGTH]


def sign_permit(permit: Permit, secret: bytes, key_number: int, *subject: str) -> str:
    """Return the text of a permit.

    Args:
        key_number: finds the secret again.
        subject: rollout, case key and version; of a snapshot's permit rollout and site.

    >>> permit = Permit("model", 7, from_micros(0), timedelta(minutes=1))
    >>> text = sign_permit(permit, bytes(32), 1, "ramps", "case-1", "v1")
    >>> verify_permit(text, {1: bytes(32)}, "ramps", "case-1", "v1") == permit
    True
    """
    text = build_permit_text(permit, key_number)
    if permit.kind == BOUND:
        code = _compute_code(text, secret, (*subject, permit.answer_digest))
        return f"{text}.{permit.answer_digest}.{code}"
    return f"{text}.{_compute_code(text, secret, subject)}"


def build_permit_text(permit: Permit, key_number: int) -> str:
    """Return the unsigned text, equal for cases with the same answer.

    A bound permit's digest is no part of it: it comes with each case.
    """
    return (
        f"{MARK_BY_KIND[permit.kind]}.{key_number}.{permit.decider}"
        f".{format_revision(permit.era, permit.revision)}"
        f".{to_micros(permit.issued_at)}.{permit.lease // MICROSECOND}"
    )


def sign_permits(
    secret: bytes,
    rollout: str,
    texts: Sequence[str],
    keys: Sequence[str],
    versions: Sequence[str],
    answer_digests: Sequence[str],
) -> list[str]:
    """Return the signed permits of many cases, each as `sign_permit` returns it.

    What cases share is hashed once.

    Args:
        texts: of `build_permit_text`, mostly equal ones.
        answer_digests: "" for unbound permits.

    >>> permit = Permit("model", 7, from_micros(0), timedelta(minutes=1))
    >>> signed = sign_permit(permit, bytes(32), 1, "ramps", "case-1", "v1")
    >>> text = build_permit_text(permit, 1)
    >>> sign_permits(bytes(32), "ramps", [text], ["case-1"], ["v1"], [""]) == [signed]
    True
    """
    inner_hash, outer_hash = _start_hmac(secret, SIGNATURE_DOMAIN)
    copies_by_text = {}
    for text in set(texts):
        shared_hash = inner_hash.copy()
        shared_hash.update(_encode_parts(text, rollout))
        copies_by_text[text] = (shared_hash.copy, f"{text}.")
    version_parts = {version: f"{len(version)}:{version}" for version in set(versions)}
    copy_outer, permits = outer_hash.copy, []
    for text, key, version, digest in zip(texts, keys, versions, answer_digests, strict=True):
        copy_inner, prefix = copies_by_text[text]
        inner_copy, outer_copy = copy_inner(), copy_outer()
        case_parts = f"{len(key)}:{key}{version_parts[version]}"
        if digest:
            case_parts, prefix = f"{case_parts}{len(digest)}:{digest}", f"{prefix}{digest}."
        inner_copy.update(case_parts.encode("utf-8", "surrogatepass"))
        outer_copy.update(inner_copy.digest())
        permits.append(prefix + outer_copy.hexdigest()[:CODE_LENGTH])
    return permits


def verify_permit(text: str, secrets: Mapping[int, bytes], *subject: str) -> Permit | None:
    """Return the permit if its signature is valid for the subject, else None.

    `secrets` are the valid keys by number.
    """
    signed_text, _, code = text.rpartition(".")
    key_number, permit = _parse_text(signed_text)
    secret = secrets.get(key_number)
    if permit is None or secret is None or not code.isascii():
        return None
    if permit.kind == BOUND:
        signed_text = signed_text.rpartition(".")[0]
        subject = (*subject, permit.answer_digest)
    expected_code = _compute_code(signed_text, secret, subject)
    return permit if hmac.compare_digest(code, expected_code) else None


def _parse_text(text: str) -> tuple[int, Permit | None]:
    """Return key number and permit of a text without its code; None if malformed."""
    mark, _, rest = text.partition(".")
    kind, parts = KIND_BY_MARK.get(mark), rest.split(".")
    answer_digest = parts.pop() if kind == BOUND else ""
    if kind is None or len(parts) != PART_COUNT - 1:
        return 0, None
    key_number, decider, era_revision, issued_text, lease_text = parts
    era, _, revision = era_revision.rpartition("-")
    numbers = (key_number, era or str(FIRST_ERA), revision, issued_text, lease_text)
    if not all(n.isascii() and n.isdigit() and len(n) <= CODE_LENGTH // 2 for n in numbers):
        return 0, None
    return int(key_number), Permit(
        decider,
        int(revision),
        from_micros(int(issued_text)),
        int(lease_text) * MICROSECOND,
        kind,
        answer_digest,
        int(era or FIRST_ERA),
    )


def _compute_code(text: str, secret: bytes, subject: tuple[str, ...]) -> str:
    inner_hash, outer_hash = _start_hmac(secret, SIGNATURE_DOMAIN)
    inner_copy, outer_copy = inner_hash.copy(), outer_hash.copy()
    inner_copy.update(_encode_parts(text, *subject))
    outer_copy.update(inner_copy.digest())
    return outer_copy.hexdigest()[:CODE_LENGTH]


def _encode_parts(*parts: str) -> bytes:
    text = "".join([f"{len(part)}:{part}" for part in parts])  # lengths make the parts unambiguous
    return text.encode("utf-8", "surrogatepass")  # invalid text must fail the check, not raise


@lru_cache(maxsize=16)
def _start_hmac(secret: bytes, domain: bytes) -> tuple["hashlib._Hash", "hashlib._Hash"]:
    """Return HMAC-SHA-256's two passes up to the domain; reusing them halves the time."""
    key = secret if len(secret) <= _BLOCK_BYTES else hashlib.sha256(secret).digest()
    key = key.ljust(_BLOCK_BYTES, b"\0")
    inner_hash = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + domain)
    return inner_hash, hashlib.sha256(bytes(byte ^ 0x5C for byte in key))
