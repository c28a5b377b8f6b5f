"""Cases and signs of life of sites, in memory, extended by new records."""

import numpy as np
import polars as pl

from rollout.tally.site_signs import NO_SIGNS, InstantArray, SiteSigns, build_case_signs


class LiveSiteSigns:
    """The signs of a rollout's sites."""

    def __init__(self) -> None:
        self._cases: dict[str, pl.DataFrame] = {}
        self._pings: dict[str, InstantArray] = {}
        self._first_cases: dict[str, int] = {}
        self._signs: dict[str, SiteSigns] = {}

    def read(self, site: str) -> SiteSigns:
        """Return what is known of a site."""
        if site not in self._signs:
            self._signs[site] = self._build(site)
        return self._signs[site]

    def _build(self, site: str) -> SiteSigns:
        cases, pings = self._cases.get(site), self._pings.get(site, NO_SIGNS.pings)
        if cases is None:
            return SiteSigns(NO_SIGNS.cases, NO_SIGNS.units, pings, self._first_cases.get(site))
        signs = build_case_signs(
            cases["at"].to_numpy(), cases["unit"].to_numpy(), self._first_cases.get(site)
        )
        return SiteSigns(signs.cases, signs.units, pings, signs.known_since)

    def add_first_case(self, site: str, at: int) -> None:
        """Add when a site's first case occurred, which may be too old to be read."""
        self._first_cases[site] = at

    def add_cases(self, instants: pl.DataFrame) -> None:
        """Add rows of `HistoryFeeds.list_case_instants`; known ones change nothing."""
        new_cases = instants.with_columns(pl.col("unit").hash()).unique()
        for (site,), part in new_cases.partition_by("site", as_dict=True).items():
            earlier_cases = self._cases.get(str(site))
            joined = part if earlier_cases is None else pl.concat([earlier_cases, part]).unique()
            self._cases[str(site)] = joined
            self._signs.pop(str(site), None)

    def add_pings(self, site: str, instants: list[int]) -> None:
        """Add signs of life of a site."""
        earlier_pings = self._pings.get(site, NO_SIGNS.pings)
        self._pings[site] = np.union1d(earlier_pings, np.array(instants, dtype=np.int64))
        self._signs.pop(site, None)
