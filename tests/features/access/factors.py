"""Users with second factors, and the codes of their apps."""

import pyotp

from rollout.features.access.credentials import STEP_SECONDS, AuthenticatorCodes
from rollout.features.access.keys import SecretKey
from rollout.features.access.sign_in import SignIn
from tests.factories import NOON
from tests.features.houses import PASSWORD, chance


def build_signing(database, clock, folder, hasher):
    """Return a sign-in whose key file is in a folder."""
    key = SecretKey(str(folder / "secret.key"), chance)
    return SignIn(database, clock, chance, hasher, AuthenticatorCodes(database, key, chance))


def code_at(secret, at):
    """Return the code that an app shows at an instant."""
    return pyotp.TOTP(secret, interval=STEP_SECONDS).at(at)


def enrol(signing, caller, at=NOON):
    """Set up a second factor; return its secret and its recovery codes."""
    session = signing.sign_in_with_password(caller.name, PASSWORD, address="10.0.0.1", at=at)
    enrolment = signing.codes.begin_enrolment(caller, at=at)
    recovery_codes = signing.codes.confirm_enrolment(
        caller, code_at(enrolment.secret, at), session_token=session.token, at=at
    )
    return enrolment.secret, recovery_codes
