"""The setting of second factors, for commands that change accounts."""

import os

from rollout.settings import read_settings

FACTOR_VARIABLE = "ROLLOUT_REQUIRE_SECOND_FACTOR"


def is_second_factor_required() -> bool:
    """Return the setting of second factors in this process's environment.

    Other settings are not read: a faulty one must not keep an admin from removing a user.
    """
    variables = (
        {FACTOR_VARIABLE: os.environ[FACTOR_VARIABLE]} if FACTOR_VARIABLE in os.environ else {}
    )
    return read_settings(variables).require_second_factor
