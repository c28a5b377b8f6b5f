"""Sign-in by OpenID Connect, if configured.

Only users that already exist can sign in; no account or role is created. A cookie with one random
seed is the only state during the sign-in: OAuth state, nonce and PKCE verifier derive from it.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from hmac import new as keyed
from typing import Annotated, Protocol
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from api import auth
from api.auth import ServiceDependency, WallTime
from rollout.features.access.keys import TOKEN_BYTES, read_token, write_token
from rollout.kernel.errors import RefusalError, UnauthenticatedError

PATH = "/sign-in/openid"
CALLBACK_PATH = f"{PATH}/callback"
SIGN_IN_SECONDS = 600  # time limit at the provider
STALE_SIGN_IN = "this sign-in is not the one that this browser began, or took too long; begin again"
QueryText = Annotated[str, Query(max_length=4_000)]


class ProviderError(RefusalError):
    """The identity provider failed or returned an invalid response."""

    code = "identity-provider"


@dataclass(frozen=True, slots=True)
class OpenIdClient:
    """This service as a client of the identity provider."""

    issuer: str
    id: str
    secret: str = field(repr=False)
    redirect_uri: str
    acr_values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenIdIdentity:
    """A user as the provider identifies them; `email` only if it is verified.

    `has_second_factor` says whether the provider asked for one at this sign-in.
    """

    issuer: str
    subject: str
    email: str
    has_second_factor: bool = False


@dataclass(frozen=True, slots=True)
class SignInSecrets:
    """The secrets of one sign-in, derived from one seed."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def from_seed(cls, seed: bytes) -> "SignInSecrets":
        """Return the secrets of a seed."""
        return cls(
            *(
                write_token(keyed(seed, b"openid " + purpose, sha256).digest())
                for purpose in (b"state", b"nonce", b"verifier")
            )
        )


class IdentityProvider(Protocol):
    """An identity provider."""

    def build_sign_in_url(self, secrets: SignInSecrets) -> str:
        """Return the URL to which the browser goes to sign in."""

    def fetch_identity(self, code: str, secrets: SignInSecrets, now: float) -> OpenIdIdentity:
        """Return the user for whom the provider issued the code.

        Raises:
            UnauthenticatedError: the code or the ID token is invalid.
            ProviderError: the provider can't be reached.
        """


def is_secure(url: str) -> bool:
    """Return whether secrets may be sent to a URL: over TLS, or on this machine.

    >>> (
    ...     is_secure("https://id.example.org"),
    ...     is_secure("http://id.example.org"),
    ...     is_secure("http://[::1]:9"),
    ... )
    (True, False, True)
    """
    parts = urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https"
        or (parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"})
    )


def build_router(provider: IdentityProvider) -> APIRouter:
    """Return the routes that start and finish a sign-in."""
    router = APIRouter(include_in_schema=False)

    @router.get(PATH)
    def begin_sign_in(request: Request, service: ServiceDependency) -> Response:
        seed = service.entropy(TOKEN_BYTES)
        answer = RedirectResponse(provider.build_sign_in_url(SignInSecrets.from_seed(seed)), 303)
        auth.set_sign_in_seed(request, answer, write_token(seed), SIGN_IN_SECONDS)
        return answer

    @router.get(CALLBACK_PATH)
    def finish_sign_in(
        request: Request,
        service: ServiceDependency,
        now: WallTime,
        code: QueryText = "",
        state: QueryText = "",
    ) -> Response:
        seed = read_token(auth.get_sign_in_seed(request))
        secrets = SignInSecrets.from_seed(seed)
        is_same_state = compare_digest(state.encode(), secrets.state.encode())
        if not code or not is_same_state or len(seed) != TOKEN_BYTES:
            raise UnauthenticatedError(STALE_SIGN_IN)
        identity = provider.fetch_identity(code, secrets, now.timestamp())
        signed_in = service.sign_in.sign_in_with_identity(
            identity.issuer,
            identity.subject,
            identity.email,
            at=now,
            has_second_factor=identity.has_second_factor,
        )
        answer = RedirectResponse("/", 303)
        auth.set_sign_in_seed(request, answer, "", 0)
        auth.set_session(request, answer, service.sign_in, signed_in, now)
        return answer

    return router
