"""What the environment says, read once at the edge into one frozen value.

Each setting is an environment variable `ROLLOUT_…`; what is not set has the default below.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

PREFIX = "ROLLOUT_"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one process.

    Attributes:
        database_url: an SQLite file or a PostgreSQL.
        public_url: where browsers reach the service; https makes its cookie secure.
        wake: seconds between two looks at which rollouts have a slot to do.
        oidc_issuer: of the OpenID Connect provider; empty: people sign in with passwords alone.
        oidc_client_id: by which the provider knows this service.
        oidc_client_secret: what proves it.
        channels: a file of the channels that reports go to, `name: url`; empty: none.
        server: the service that commands speak to; empty: the database itself.
        key: by which they come in.
    """

    database_url: str = "sqlite:///rollout.db"
    public_url: str = "http://127.0.0.1:8000"
    wake: float = 1.0
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_client_secret: str = field(default="", repr=False)
    channels: str = ""
    server: str = ""
    key: str = field(default="", repr=False)


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings that an environment holds.

    Raises:
        ValueError: a value is not of its form; says which and what would be right.

    >>> read_settings({"ROLLOUT_WAKE": "0.5"}).wake
    0.5
    """
    found: dict[str, str | float] = {}
    for known in fields(Settings):
        name = PREFIX + known.name.upper()
        if name in environment:
            text = environment[name]
            found[known.name] = _seconds(name, text) if known.name == "wake" else text
    return Settings(**found)  # type: ignore[arg-type]  # by name: each has its field's type


def _seconds(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 60:
        raise ValueError(f"{name}={text}: write seconds above 0, at most 60, as 0.5")
    return number
