"""An OpenID Connect provider through Authlib: codes with PKCE, signed ID tokens."""

from collections.abc import Collection, Mapping
from threading import Lock
from typing import Any

import httpx2
from authlib.common.errors import AuthlibBaseError  # type: ignore[import-untyped]  # no types
from authlib.integrations.httpx_client import OAuth2Client  # type: ignore[import-untyped]
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from api.oidc import OpenIdClient, OpenIdIdentity, ProviderError, SignInSecrets, is_secure
from rollout.kernel.errors import UnauthenticatedError

DISCOVERY = "/.well-known/openid-configuration"
SIGNATURE_ALGORITHMS = frozenset({"RS256", "PS256", "ES256"})
"""Asymmetric algorithms only: never `none`, and never our client secret as a key."""
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
TIMEOUT_SECONDS = 5.0
CLOCK_LEEWAY = 60  # seconds between the provider's clock and ours
UNBELIEVED_ANSWER = "the identity provider's word can't be believed; begin again, or tell an admin"


class AuthlibProvider:
    """One provider; its metadata and keys are fetched once and cached."""

    def __init__(self, client: OpenIdClient, transport: httpx2.BaseTransport | None = None) -> None:
        """Fetch nothing yet."""
        self._client, self._transport = client, transport
        self._metadata: dict[str, Any] | None = None
        self._keys: KeySet | None = None
        self._lock = Lock()

    def build_sign_in_url(self, secrets: SignInSecrets) -> str:
        """Return the URL to which the browser goes to sign in."""
        acr_values = self._client.acr_values
        with self._open_session() as session:
            url, _ = session.create_authorization_url(
                self._load_metadata()["authorization_endpoint"],
                state=secrets.state,
                nonce=secrets.nonce,
                code_verifier=secrets.verifier,
                **({"acr_values": " ".join(acr_values)} if acr_values else {}),
            )
        return str(url)

    def fetch_identity(self, code: str, secrets: SignInSecrets, now: float) -> OpenIdIdentity:
        """Return the user for whom the provider issued the code.

        Args:
            code: the `code` parameter of the callback.
            secrets: those of this sign-in.
            now: seconds since 1970.

        Raises:
            UnauthenticatedError: the code or ID token is invalid, expired or for another client.
            ProviderError: the provider can't be reached.
        """
        metadata = self._load_metadata()
        try:
            with self._open_session() as session:
                token_response = session.fetch_token(
                    metadata["token_endpoint"], code=code, code_verifier=secrets.verifier
                )
            token = self._decode_token(str(token_response.get("id_token", "")))
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
            claims.validate(now=int(now), leeway=CLOCK_LEEWAY)
        except (AuthlibBaseError, JoseError, ValueError) as error:
            raise UnauthenticatedError(UNBELIEVED_ANSWER) from error
        except httpx2.HTTPError as error:
            raise _build_provider_error(error) from error
        email = str(claims["email"]) if claims.get("email_verified") is True else ""
        return OpenIdIdentity(
            self._client.issuer,
            str(claims["sub"]),
            email,
            has_second_factor=has_provider_factor(claims, self._client.acr_values),
        )

    def _open_session(self) -> Any:
        return OAuth2Client(
            self._client.id,
            self._client.secret,
            scope="openid email",
            redirect_uri=self._client.redirect_uri,
            code_challenge_method="S256",
            transport=self._transport,
            timeout=TIMEOUT_SECONDS,
        )

    def _decode_token(self, text: str) -> jwt.Token:
        """Return an ID token with a valid signature; reload the keys once if needed.

        Raises:
            JoseError: the token is malformed, or not signed by the provider's keys.
        """
        try:
            return self._decode(text, self._load_keys())
        except InvalidKeyIdError:
            return self._decode(text, self._load_keys(refresh=True))

    def _decode(self, text: str, keys: KeySet) -> jwt.Token:
        algorithms = self._load_metadata().get("id_token_signing_alg_values_supported", ["RS256"])
        allowed = JWSRegistry(
            algorithms=sorted(SIGNATURE_ALGORITHMS & set(algorithms)), strict_check_header=False
        )
        return jwt.decode(text, keys, registry=allowed)

    def _load_keys(self, *, refresh: bool = False) -> KeySet:
        with self._lock:
            if self._keys is None or refresh:
                key_set: Any = self._fetch((self._metadata or {})["jwks_uri"])
                self._keys = KeySet.import_key_set(key_set)
            return self._keys

    def _load_metadata(self) -> dict[str, Any]:
        """Return the provider's metadata, checked.

        Raises:
            ProviderError: the issuer differs, or an endpoint is not secure.
        """
        with self._lock:
            if self._metadata is None:
                metadata = self._fetch(self._client.issuer.rstrip("/") + DISCOVERY)
                insecure = [
                    name for name in ENDPOINTS if not is_secure(str(metadata.get(name, "")))
                ]
                if metadata.get("issuer") != self._client.issuer or insecure:
                    raise ProviderError(
                        f"{self._client.issuer} says it is {metadata.get('issuer')}, with no secure"
                        f" {' or '.join(insecure) or 'end'}; set ROLLOUT_OIDC_ISSUER as it"
                        " writes it"
                    )
                self._metadata = metadata
            return self._metadata

    def _fetch(self, url: str) -> dict[str, Any]:
        try:
            with httpx2.Client(transport=self._transport, timeout=TIMEOUT_SECONDS) as client:
                answer = client.get(url)
                answer.raise_for_status()
                content: dict[str, Any] = answer.json()
        except (httpx2.HTTPError, ValueError) as error:
            raise _build_provider_error(error) from error
        return content


def has_provider_factor(claims: Mapping[str, Any], acr_values: Collection[str]) -> bool:
    """Return whether an ID token says that its user gave a second factor.

    `mfa` in `amr` is RFC 8176's word for it; what an `acr` means is the provider's choice.

    >>> has_provider_factor({"amr": ["pwd", "mfa"]}, ()), has_provider_factor({"amr": "mfa"}, ())
    (True, False)
    """
    methods = claims.get("amr")
    return (isinstance(methods, list) and "mfa" in methods) or claims.get("acr") in acr_values


def _build_provider_error(error: Exception) -> ProviderError:
    return ProviderError(
        f"the identity provider can't be asked ({type(error).__name__}); try again, or sign in "
        "by password"
    )
