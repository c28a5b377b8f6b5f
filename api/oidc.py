"""OpenID Connect as an option: people sign in at their own provider, and come back known.

Off unless configured. Whom the provider names has to be here already: nobody is added and no
right is given. What has to be remembered between leaving and coming back is one random seed in a
cookie; state, nonce and PKCE's verifier follow from it, so nothing is stored.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from hmac import new as keyed
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Protocol
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from api import session_cookie
from api.deps import Now, Served
from rollout.core.errors import Refusal, Unauthenticated
from rollout.services.access.keys import SIZE, read_token, write_token
from rollout.settings import Settings

PATH = "/sign-in/openid"
BACK = f"{PATH}/callback"
AWAY = 600  # seconds that somebody may take at their provider
PACKAGES = ("authlib", "joserfc", "httpx2")
STALE = "this sign-in is not the one that this browser began, or took too long; begin again"
Word = Annotated[str, Query(max_length=4_000)]


class ProviderFailed(Refusal):
    """The identity provider did not answer as it should; nothing is known of who asks."""

    code = "identity-provider"


@dataclass(frozen=True, slots=True)
class Client:
    """This service as the provider knows it."""

    issuer: str
    id: str
    secret: str = field(repr=False)
    comes_back_to: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a provider vouches for; `email` only where it says that it has verified it."""

    issuer: str
    subject: str
    email: str


@dataclass(frozen=True, slots=True)
class Secrets:
    """What proves that who comes back is who left, all made of one seed."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def of(cls, seed: bytes) -> "Secrets":
        """Return the three of a seed."""
        return cls(*(_derived(seed, purpose) for purpose in (b"state", b"nonce", b"verifier")))


class Provider(Protocol):
    """An identity provider, as this service speaks with it."""

    def leave(self, secrets: Secrets) -> str:
        """Return where the browser goes to sign in."""
        ...

    def identity(self, code: str, secrets: Secrets, now: float) -> Identity:
        """Return for whom the provider gave the code.

        Raises:
            Unauthenticated: it vouches for nobody, or not to us.
            ProviderFailed: it can't be asked.
        """
        ...


def configured(settings: Settings, transport: object = None) -> Provider | None:
    """Return the provider that the settings name; None where they name none.

    Args:
        settings: `oidc_issuer`, `oidc_client_id`, `oidc_client_secret`, `public_url`.
        transport: an httpx2 transport; by default the network.

    Raises:
        Refusal: a setting or a package is missing; says which.
    """
    client_settings = (settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret)
    if not any(client_settings):
        return None
    if not all(client_settings):
        raise Refusal("OIDC takes ROLLOUT_OIDC_ISSUER, _CLIENT_ID and _CLIENT_SECRET: all or none")
    if not secure(settings.oidc_issuer):
        raise Refusal(f"ROLLOUT_OIDC_ISSUER={settings.oidc_issuer}: write it with https://")
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise Refusal(
            f"OpenID Connect needs {', '.join(missing)}: pip install 'rollout-controller[oidc]'"
        )
    redirect_uri = settings.public_url.rstrip("/") + BACK
    provider: Provider = import_module("api.oidc_provider").AuthlibProvider(
        Client(*client_settings, redirect_uri), transport
    )
    return provider


def secure(url: str) -> bool:
    """Say whether secrets may be sent there: over TLS, or on one's own machine.

    >>> secure("https://id.example.org"), secure("http://id.example.org"), secure("http://[::1]:9")
    (True, False, True)
    """
    parts = urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https"
        or (parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"})
    )


def router_of(provider: Provider) -> APIRouter:
    """Return the two pages by which people leave for their provider and come back."""
    router = APIRouter(include_in_schema=False)

    @router.get(PATH)
    def leave(request: Request, service: Served) -> Response:
        seed = service.entropy(SIZE)
        answer = RedirectResponse(provider.leave(Secrets.of(seed)), 303)
        session_cookie.lay(request, answer, write_token(seed), AWAY)
        return answer

    @router.get(BACK)
    def come_back(
        request: Request, service: Served, now: Now, code: Word = "", state: Word = ""
    ) -> Response:
        seed = read_token(session_cookie.laid(request))
        secrets = Secrets.of(seed)
        is_same_state = compare_digest(state.encode(), secrets.state.encode())
        if not code or not is_same_state or len(seed) != SIZE:
            raise Unauthenticated(STALE)
        identity = provider.identity(code, secrets, now.timestamp())
        signed_in = service.signing.by_identity(
            identity.issuer, identity.subject, identity.email, at=now
        )
        answer = RedirectResponse("/", 303)
        session_cookie.lay(request, answer, "", 0)
        session_cookie.give(request, answer, signed_in, now)
        return answer

    return router


def _derived(seed: bytes, use: bytes) -> str:
    return write_token(keyed(seed, b"openid " + use, sha256).digest())
