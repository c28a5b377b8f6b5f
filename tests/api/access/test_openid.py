"""Sign-in at an identity provider: a fake one, asked through an httpx2 transport, no network."""

from base64 import urlsafe_b64encode
from dataclasses import replace
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from starlette.testclient import TestClient

from api import oidc, serve
from api.app import create_app
from api.serve import build_provider
from rollout.features.access.authentication import Authenticator
from rollout.features.access.sign_in import SignIn
from rollout.features.access.users import AccountUpdate, load_accounts, update_account
from rollout.kernel.errors import RefusalError
from rollout.live.service import build_service
from rollout.settings import Settings
from tests.factories import DAY, NOON
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import ADA, chance, furnish, kinds

ISSUER = "https://id.example.org"
SETTINGS = Settings(
    public_url="https://rollout.example.org",
    oidc_issuer=ISSUER,
    oidc_client_id="rollout",
    oidc_client_secret="s" * 40,
)
KEY = RSAKey.generate_key(2048, {"kid": "one"})
NEXT_KEY = RSAKey.generate_key(2048, {"kid": "two"})


class FakeProvider:
    """A provider that vouches for whom a test names, unless a test makes it lie."""

    def __init__(self):
        self.claims, self.key, self.alg = {"sub": "7"}, KEY, "RS256"
        self.published = [KEY]
        self.about = {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": f"{ISSUER}/keys",
            "id_token_signing_alg_values_supported": ["RS256", "HS256"],
        }
        self.begun, self.asked, self.down = {}, [], False

    def authorize(self, url):
        """Take a browser in, and return the query that it comes back with."""
        self.begun = {name: value[0] for name, value in parse_qs(urlsplit(url).query).items()}
        return f"code=c0de&state={self.begun['state']}"

    def __call__(self, request):
        if self.down:
            raise httpx2.ConnectError("down")
        self.asked.append(request.url.path)
        match request.url.path:
            case "/.well-known/openid-configuration":
                return httpx2.Response(200, json=self.about)
            case "/keys":
                keys = [key.as_dict(private=False) for key in self.published]
                return httpx2.Response(200, json={"keys": keys})
            case "/token":
                return self._token({k: v[0] for k, v in parse_qs(request.content.decode()).items()})
        return httpx2.Response(404)

    def _token(self, form):
        hashed = sha256(form["code_verifier"].encode()).digest()
        challenge = urlsafe_b64encode(hashed).decode().rstrip("=")
        if form["code"] != "c0de" or challenge != self.begun["code_challenge"]:
            return httpx2.Response(400, json={"error": "invalid_grant"})
        at = int(NOON.timestamp())
        claims = {
            "iss": ISSUER,
            "aud": "rollout",
            "iat": at,
            "exp": at + 300,
            "nonce": self.begun["nonce"],
            **self.claims,
        }
        signed = jwt.encode(
            {"alg": self.alg, "kid": self.key.kid or ""}, claims, self.key, algorithms=[self.alg]
        )
        return httpx2.Response(
            200, json={"access_token": "a", "token_type": "Bearer", "id_token": signed}
        )


@pytest.fixture
def provider():
    return FakeProvider()


@pytest.fixture
def house(database):
    furnish(database)
    update_account(database, ADA, "bo", AccountUpdate(email="bo@example.org"), at=NOON)
    return database


@pytest.fixture
def browser(house, clock, provider):
    service = build_service(house, Authenticator(house, clock), clock, chance)
    service = replace(service, sign_in=SignIn(house, clock, chance, QUICK))
    app = create_app(service, build_provider(SETTINGS, httpx2.MockTransport(provider)))
    with TestClient(app, base_url=SETTINGS.public_url, follow_redirects=False) as made:
        yield made


VERIFIED = {"sub": "7", "email": "bo@example.org", "email_verified": True}


def leave(browser, provider):
    left = browser.get("/sign-in/openid")
    assert left.status_code == 303
    return provider.authorize(left.headers["location"])


def sign_in(browser, provider):
    return browser.get(f"/sign-in/openid/callback?{leave(browser, provider)}")


def refused(browser, answer):
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert browser.get("/v1/me").status_code == 401
    return answer.json()["detail"]


def test_who_is_known_comes_in_and_is_linked(browser, provider, house):
    provider.claims = VERIFIED
    answer = sign_in(browser, provider)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert browser.get("/v1/me").json()["name"] == "bo"
    assert kinds(house)[-1] == ("IdentityLinked", "bo")
    provider.claims = {"sub": "7"}
    assert sign_in(browser, provider).status_code == 303
    assert provider.asked.count("/keys") == 1


@pytest.mark.parametrize(
    ("claims", "has_factor"),
    [
        ({}, False),
        ({"amr": ["pwd"]}, False),
        ({"acr": "urn:plain"}, False),
        ({"acr": ["urn:two"]}, False),
        ({"amr": ["pwd", "mfa"]}, True),
        ({"acr": "urn:two"}, True),
    ],
)
def test_a_provider_that_asked_for_no_second_factor_lets_nobody_approve(
    house, clock, provider, claims, has_factor
):
    door = Authenticator(house, clock, requires_second_factor=True)
    service = replace(
        build_service(house, door, clock, chance), sign_in=SignIn(house, clock, chance, QUICK)
    )
    settings = replace(SETTINGS, oidc_acr_values="urn:two urn:three")
    app = create_app(service, build_provider(settings, httpx2.MockTransport(provider)))
    provider.claims = VERIFIED | claims
    with TestClient(app, base_url=SETTINGS.public_url, follow_redirects=False) as browser:
        sign_in(browser, provider)
        assert provider.begun["acr_values"] == "urn:two urn:three"
        session = browser.cookies["__Host-rollout"]
    assert door.authenticate_session(session, NOON).lacks_second_factor is not has_factor


def test_the_provider_is_asked_with_a_challenge_a_state_and_a_nonce(browser, provider):
    leave(browser, provider)
    asked = provider.begun
    assert asked["redirect_uri"] == "https://rollout.example.org/sign-in/openid/callback"
    assert (asked["response_type"], asked["scope"]) == ("code", "openid email")
    assert asked["code_challenge_method"] == "S256"
    assert len({asked[name] for name in ("state", "nonce", "code_challenge")}) == 3
    first = asked["state"]
    leave(browser, provider)
    assert provider.begun["state"] != first


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "7"},
        {"sub": "7", "email": "bo@example.org"},
        {"sub": "7", "email": "bo@example.org", "email_verified": "true"},
        {"sub": "7", "email": "eve@example.org", "email_verified": True},
    ],
)
def test_an_address_that_is_not_verified_or_not_known_is_nobody(browser, provider, house, claims):
    before = load_accounts(house, ADA)
    provider.claims = claims
    assert "ask an admin to add you" in refused(browser, sign_in(browser, provider))
    assert load_accounts(house, ADA) == before


@pytest.mark.parametrize(
    "lie",
    [
        {"iss": "https://evil.example.org"},
        {"aud": "another"},
        {"aud": ["rollout", "another"], "azp": "another"},
        {"nonce": "replayed"},
        {"exp": int((NOON - DAY).timestamp())},
        {"iat": int((NOON + DAY).timestamp())},
    ],
    ids=str,
)
def test_a_word_that_was_not_given_to_us_now_is_not_believed(browser, provider, lie):
    provider.claims = {**VERIFIED, **lie}
    assert "can't be believed" in refused(browser, sign_in(browser, provider))


def test_a_word_signed_by_another_key_or_by_our_secret_is_not_believed(browser, provider):
    provider.claims = VERIFIED
    provider.key = RSAKey.generate_key(2048, {"kid": "one"})
    refused(browser, sign_in(browser, provider))
    provider.key, provider.alg = OctKey.import_key(SETTINGS.oidc_client_secret), "HS256"
    refused(browser, sign_in(browser, provider))


def test_new_keys_of_the_provider_are_asked_for(browser, provider):
    provider.claims = VERIFIED
    sign_in(browser, provider)
    provider.key, provider.published = NEXT_KEY, [NEXT_KEY]
    assert sign_in(browser, provider).status_code == 303


def test_only_the_browser_that_left_comes_back(browser, provider):
    provider.claims = VERIFIED
    query = leave(browser, provider)
    for wrong in (query.replace("code=c0de", "code="), "code=c0de", "code=c0de&state=x", ""):
        assert "begin again" in refused(browser, browser.get(f"/sign-in/openid/callback?{wrong}"))
    browser.cookies.clear()
    assert "begin again" in refused(browser, browser.get(f"/sign-in/openid/callback?{query}"))


def test_without_a_cookie_there_is_no_state_that_fits(browser, provider):
    provider.claims = VERIFIED
    state = oidc.SignInSecrets.from_seed(b"").state
    refused(browser, browser.get(f"/sign-in/openid/callback?code=c0de&state={state}"))


def test_a_code_that_the_provider_does_not_take_is_nobody(browser, provider):
    query = leave(browser, provider).replace("c0de", "stolen")
    refused(browser, browser.get(f"/sign-in/openid/callback?{query}"))


def test_a_provider_that_is_down_is_said_to_be(browser, provider):
    provider.down = True
    answer = browser.get("/sign-in/openid")
    assert (answer.status_code, answer.json()["code"]) == (502, "identity-provider")
    assert "sign in by password" in answer.json()["detail"]
    provider.down = False
    leave(browser, provider)


@pytest.mark.parametrize(
    "said", [{"issuer": "https://other.example.org"}, {"token_endpoint": "http://id.example.org"}]
)
def test_a_provider_that_says_it_is_another_is_refused(browser, provider, said):
    provider.about |= said
    assert browser.get("/sign-in/openid").json()["code"] == "identity-provider"


def test_it_is_off_unless_it_is_configured(house, clock):
    assert build_provider(Settings()) is None
    app = create_app(build_service(house, Authenticator(house, clock), clock, chance))
    with TestClient(app) as plain:
        assert plain.get("/sign-in/openid").status_code == 404


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (replace(SETTINGS, oidc_client_secret=""), "all or none"),
        (replace(SETTINGS, oidc_issuer="http://id.example.org"), "https://"),
    ],
    ids=["half", "no TLS"],
)
def test_half_a_configuration_is_refused(settings, says):
    with pytest.raises(RefusalError, match=says):
        build_provider(settings)


def test_without_its_packages_the_refusal_says_what_to_install(monkeypatch):
    monkeypatch.setattr(serve, "find_spec", {}.get)
    with pytest.raises(RefusalError, match=r"pip install '\.\[oidc\]' in the project"):
        build_provider(SETTINGS)


def test_no_secret_is_told():
    assert SETTINGS.oidc_client_secret not in repr(
        oidc.OpenIdClient(ISSUER, "rollout", "s" * 40, "")
    )
