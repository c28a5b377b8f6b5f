"""Where decisions place their cases, for those that nobody has sent."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from rollout.data.database.session import Transaction
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import IncomingCases, Place
from rollout.engine.records.records import NAMED_BY_DECISION, UNTIMED, Case, is_registered
from rollout.engine.words.evidence_text import describe_registering
from rollout.kernel.calendar.instants import to_micros
from rollout.kernel.policy.evidence_sources import EvidenceSources
from rollout.live.evidence.unit_counting import WindowLookup
from rollout.live.rollout_state import RolloutState

if TYPE_CHECKING:
    from rollout.engine.files.parse import PlacedDecision


NO_PLACE: Final = (
    "no case of this key is stored: send the case first, or name the decision's `site`"
)


def describe_missing_case(sources: EvidenceSources) -> str:
    """Return why a decision is rejected whose case is not stored, or as if it were not.

    >>> describe_missing_case(EvidenceSources())
    "no case of this key is stored: send the case first, or name the decision's `site`"
    """
    if sources.cases is None:
        return NO_PLACE
    return f"{NO_PLACE}; {describe_registering(sources)}"


class DecisionPlaces:
    """The places that the decisions of a batch name; the first that names a case's place counts."""

    def __init__(self, transaction: Transaction, state: RolloutState, at: datetime) -> None:
        self._transaction, self._state, self._at = transaction, state, at

    def list_placed(self, keys: Collection[str]) -> set[str]:
        """Return the keys of stored cases, also those that only a decision places."""
        return {*self.load(ExternalKeys(self._transaction, self._state.rollout).find_ids(keys))}

    def load(
        self, case_ids: Mapping[str, int], sent_cases: Iterable[Case] = ()
    ) -> Mapping[str, Collection[Place]]:
        """Return by key where cases that are registered, or sent, occurred.

        Those that only a decision places are among them; to gates others are as if not stored.
        """
        incoming_cases = IncomingCases(self._transaction, self._state.rollout)
        stored = {
            case_id: counted
            for case_id, revisions in incoming_cases.load_places(case_ids.values()).items()
            if (
                counted := [
                    place
                    for place in revisions
                    if is_registered(place.revision) or place.revision == NAMED_BY_DECISION
                ]
            )
        }
        places = {key: stored[case_id] for key, case_id in case_ids.items() if case_id in stored}
        for case in sent_cases:
            place = Place(case.revision, case.site, case.window, to_micros(case.occurred_at))
            places[case.key] = [*places.get(case.key, ()), place]
        return places

    def find_fault(self, placed: "PlacedDecision") -> str:
        """Return why a decision's place can't count, or ""."""
        sites = self._state.policy.sites_by_id
        if placed.site in sites:
            return ""
        return f"its site is none of the policy's: {placed.site} instead of {', '.join(sites)}"

    def list_cases(
        self, decisions: "Iterable[PlacedDecision]", stored: Mapping[str, Collection[Place]]
    ) -> list[Case]:
        """Return the cases of decisions that are not stored, or at another place."""
        built_cases = map(self._build_case, decisions)
        return [case for case in built_cases if not self._is_stored(case, stored.get(case.key, ()))]

    def list_shown(self, case: Case, case_id: int) -> list[Case]:
        """Return the place that its page shows of a decided case, unless it is known otherwise."""
        if is_registered(case.revision) or self.load({case.key: case_id}):
            return []
        return [replace(case, episode=None, attributes={}, media={}, revision=NAMED_BY_DECISION)]

    def _is_stored(self, case: Case, places: Collection[Place]) -> bool:
        """Return whether a decision placed the case before, or each revision is at its place.

        The instant of the case is its place, too, whatever window the policy gives it by now.
        """
        if any(place.revision == NAMED_BY_DECISION for place in places):
            return True
        return bool(places) and all(
            place.site == case.site
            and (
                bool(case.attributes)
                or place.window == case.window
                or place.occurred == to_micros(case.occurred_at)
            )
            for place in places
        )

    def _build_case(self, placed: "PlacedDecision") -> Case:
        decision, occurred_at = placed.decision, placed.occurred_at
        attributes = {} if occurred_at is not None else dict(UNTIMED)
        if occurred_at is None:
            occurred_at = min(decision.submitted_at or self._at, self._at)
        window = WindowLookup(self._state.policy).find_window(placed.site, occurred_at, {})
        return Case(
            key=decision.key,
            site=placed.site,
            occurred_at=occurred_at,
            window=window,
            attributes=attributes,
            revision=NAMED_BY_DECISION,
        )
