"""An OpenID Connect provider, spoken with through Authlib: codes with PKCE, signed ID tokens."""

from threading import Lock
from typing import Any

import httpx2
from authlib.common.errors import AuthlibBaseError  # type: ignore[import-untyped]  # it has none
from authlib.integrations.httpx_client import OAuth2Client  # type: ignore[import-untyped]
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from api.oidc import Client, Identity, ProviderFailed, Secrets, secure
from rollout.core.errors import Unauthenticated

DISCOVERY = "/.well-known/openid-configuration"
SIGNED_BY = frozenset({"RS256", "PS256", "ES256"})
"""Signatures of the provider's own key; never `none`, and never our secret."""
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
SECONDS = 5.0
LEEWAY = 60  # seconds by which its clock may be off
NOT_OURS = "the identity provider's word can't be believed; begin again, or tell an admin"


class AuthlibProvider:
    """One provider: what it says of itself and its keys are read once and kept."""

    def __init__(self, client: Client, transport: httpx2.BaseTransport | None = None) -> None:
        """Ask nothing yet."""
        self._client, self._transport = client, transport
        self._about: dict[str, Any] | None = None
        self._keys: KeySet | None = None
        self._lock = Lock()

    def leave(self, secrets: Secrets) -> str:
        """Return where the browser goes to sign in."""
        with self._session() as session:
            url, _ = session.create_authorization_url(
                self._described()["authorization_endpoint"],
                state=secrets.state,
                nonce=secrets.nonce,
                code_verifier=secrets.verifier,
            )
        return str(url)

    def identity(self, code: str, secrets: Secrets, now: float) -> Identity:
        """Return for whom the provider gave the code.

        Args:
            code: as the browser brought it.
            secrets: those that it left with.
            now: seconds since 1970.

        Raises:
            Unauthenticated: it vouches for nobody, or not to us, not now, not for this browser.
            ProviderFailed: it can't be asked.
        """
        metadata = self._described()
        try:
            with self._session() as session:
                token_response = session.fetch_token(
                    metadata["token_endpoint"], code=code, code_verifier=secrets.verifier
                )
            token = self._read(str(token_response.get("id_token", "")))
            claims = CodeIDToken(
                token.claims,
                token.header,
                {
                    "iss": {"essential": True, "value": self._client.issuer},
                    "aud": {"essential": True, "value": self._client.id},
                },
                {
                    "nonce": secrets.nonce,
                    "client_id": self._client.id,
                    "access_token": token_response.get("access_token"),
                },
            )
            claims.validate(now=int(now), leeway=LEEWAY)
        except (AuthlibBaseError, JoseError, ValueError) as error:
            raise Unauthenticated(NOT_OURS) from error
        except httpx2.HTTPError as error:
            raise _failed(error) from error
        email = str(claims["email"]) if claims.get("email_verified") is True else ""
        return Identity(self._client.issuer, str(claims["sub"]), email)

    def _session(self) -> Any:
        return OAuth2Client(
            self._client.id,
            self._client.secret,
            scope="openid email",
            redirect_uri=self._client.comes_back_to,
            code_challenge_method="S256",
            transport=self._transport,
            timeout=SECONDS,
        )

    def _read(self, text: str) -> jwt.Token:
        """Return an ID token whose signature is one of the provider's keys; ask for new ones once.

        Raises:
            JoseError: it is none, or not signed by them.
        """
        try:
            return self._decoded(text, self._known_keys())
        except InvalidKeyIdError:
            return self._decoded(text, self._known_keys(anew=True))

    def _decoded(self, text: str, keys: KeySet) -> jwt.Token:
        algorithms = self._described().get("id_token_signing_alg_values_supported", ["RS256"])
        allowed = JWSRegistry(
            algorithms=sorted(SIGNED_BY & set(algorithms)), strict_check_header=False
        )
        return jwt.decode(text, keys, registry=allowed)

    def _known_keys(self, *, anew: bool = False) -> KeySet:
        with self._lock:
            if self._keys is None or anew:
                key_set: Any = self._asked((self._about or {})["jwks_uri"])
                self._keys = KeySet.import_key_set(key_set)
            return self._keys

    def _described(self) -> dict[str, Any]:
        """Return what the provider says of itself, if that is what it should say.

        Raises:
            ProviderFailed: it says something else.
        """
        with self._lock:
            if self._about is None:
                metadata = self._asked(self._client.issuer.rstrip("/") + DISCOVERY)
                insecure = [name for name in ENDPOINTS if not secure(str(metadata.get(name, "")))]
                if metadata.get("issuer") != self._client.issuer or insecure:
                    raise ProviderFailed(
                        f"{self._client.issuer} says it is {metadata.get('issuer')}, with no secure"
                        f" {' or '.join(insecure) or 'end'}; set ROLLOUT_OIDC_ISSUER as it"
                        " writes it"
                    )
                self._about = metadata
            return self._about

    def _asked(self, url: str) -> dict[str, Any]:
        try:
            with httpx2.Client(transport=self._transport, timeout=SECONDS) as client:
                answer = client.get(url)
                answer.raise_for_status()
                content: dict[str, Any] = answer.json()
        except (httpx2.HTTPError, ValueError) as error:
            raise _failed(error) from error
        return content


def _failed(error: Exception) -> ProviderFailed:
    return ProviderFailed(
        f"the identity provider can't be asked ({type(error).__name__}); try again, or sign in "
        "by password"
    )
