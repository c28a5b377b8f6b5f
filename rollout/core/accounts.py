"""Opaque ids that stand for account names in the ledger.

A row of form 2 holds ids. Names stand in a table beside the ledger, which an erasure can empty;
an id without a name stays an id.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rollout.core.scope import ENGINE

REPLAY: Final = "replay"
"""The actor that applies the policy in a replay."""
SIMULATED: Final = "simulated-"
"""What the names of a replay's approvers begin with."""
NOT_ACCOUNTS: Final = frozenset({"", ENGINE, REPLAY})
"""Actors that are no accounts; they stand in the ledger by name, as do simulated approvers."""
ACCOUNT_ID: Final = re.compile(r"u-[a-z2-7]{16}")


@dataclass(frozen=True, slots=True)
class AccountNames:
    """Names of some accounts by id, and ids by name; what is not among them stays as it is.

    >>> AccountNames.from_ids({"ana": "u-aaaaaaaaaaaaaaaa"}).find_name("u-aaaaaaaaaaaaaaaa")
    'ana'
    """

    names: Mapping[str, str] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_ids(cls, ids: Mapping[str, str]) -> "AccountNames":
        """Return both directions of ids by name."""
        return cls({account: name for name, account in ids.items()}, ids)

    def find_id(self, name: str) -> str:
        """Return the id of a name."""
        return self.ids.get(name, name)

    def find_name(self, account: str) -> str:
        """Return the name of an id."""
        return self.names.get(account, account)


NO_NAMES: Final = AccountNames()
"""Leaves every name and id as it is: of replays, and of files read without the service."""


def is_account_name(name: str) -> bool:
    """Return whether an actor's name can be that of an account.

    >>> is_account_name("ana"), is_account_name("policy"), is_account_name("simulated-1")
    (True, False, False)
    """
    return name not in NOT_ACCOUNTS and not name.startswith(SIMULATED)


def is_account_id(text: str) -> bool:
    """Return whether a text has the form of an account's id."""
    return ACCOUNT_ID.fullmatch(text) is not None
