"""Opaque account ids that replace names in the ledger.

Rows hold ids. A separate table maps them to names; an erasure deletes its rows, and
an id without a name is shown as it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rollout.core.scope.events import ENGINE

REPLAY: Final = "replay"
"""Actor that applies the policy in a replay."""
SIMULATED: Final = "simulated-"
"""Prefix of the names of a replay's approvers."""
NOT_ACCOUNTS: Final = frozenset({"", ENGINE, REPLAY})
"""Actors without an account; the ledger holds their names, as those of simulated approvers."""
ACCOUNT_ID: Final = re.compile(r"u-[a-z2-7]{16}")


@dataclass(frozen=True, slots=True)
class AccountNames:
    """Names of some accounts by id, and ids by name.

    >>> AccountNames.from_ids({"ana": "u-aaaaaaaaaaaaaaaa"}).find_name("u-aaaaaaaaaaaaaaaa")
    'ana'
    """

    names: Mapping[str, str] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_ids(cls, ids: Mapping[str, str]) -> "AccountNames":
        """Build both directions from ids by name."""
        return cls({account: name for name, account in ids.items()}, ids)

    def find_id(self, name: str) -> str:
        """Return the id of a name, or the name itself if unknown."""
        return self.ids.get(name, name)

    def find_name(self, account: str) -> str:
        """Return the name of an id, or the id itself if unknown."""
        return self.names.get(account, account)


NO_NAMES: Final = AccountNames()
"""No names, for replays and for files read without the service."""


def is_account_name(name: str) -> bool:
    """Return whether an actor's name can be an account's; an id is none.

    >>> is_account_name("ana"), is_account_name("policy"), is_account_name("simulated-1")
    (True, False, False)
    """
    return name not in NOT_ACCOUNTS and not name.startswith(SIMULATED) and not is_account_id(name)


def is_account_id(text: str) -> bool:
    """Return whether a text has the form of an account id."""
    return ACCOUNT_ID.fullmatch(text) is not None
