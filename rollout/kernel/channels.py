"""Channels: the names to which policies send reports, and their addresses.

The address of a channel, an Apprise URL, holds passwords and tokens. It is only in a file on the
machine: in no policy, table, log, page or error.

A personal channel has `{address}` in its URL: each user fills in an address of their own. Server
and secrets stay those of the file, so that no user chooses where this service connects to.
"""

import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy.policy_warnings import PolicyWarning

MASK = "***"
SCHEMES_WITH_HOST = frozenset(
    {"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos"}
)
"""Schemes whose host is public; in other addresses it may be a token."""
MIN_SECRET_LENGTH = 3  # masking shorter texts would damage ordinary words
EXAMPLE = "write `ops: mailto://user:password@example.org`"
ADDRESS_FIELD = "{address}"
"""What a user's address takes the place of, in the URL of a personal channel."""
MAIL_SCHEMES = frozenset({"mailto", "mailtos"})
MAIL_ADDRESS = re.compile(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
PLAIN_ADDRESS = re.compile(r"[@#+-]?[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
"""No slash, colon, comma or pair of dots: it is one part of a path, and one receiver."""
MAX_ADDRESS_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Channels:
    """The configured channels.

    Attributes:
        urls: by name the address, an Apprise URL, which is secret.
        public_url: of this service; messages and one-time links start with it.
        readers: by name the users who read it, () if no reviewer does; a channel that is missing
            here may be read by anyone.
    """

    urls: Mapping[str, str] = field(default_factory=dict, repr=False)
    public_url: str = "http://localhost:8000"
    readers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names, sorted."""
        return tuple(sorted(self.urls))

    @property
    def personal_names(self) -> tuple[str, ...]:
        """Return the names of personal channels, sorted."""
        return tuple(name for name in self.names if ADDRESS_FIELD in self.urls[name])

    @property
    def shared_names(self) -> tuple[str, ...]:
        """Return the names of the channels that take reports, sorted."""
        return tuple(name for name in self.names if ADDRESS_FIELD not in self.urls[name])

    def is_mail(self, name: str) -> bool:
        """Return whether a channel sends mail."""
        return self.urls[name].partition("://")[0].casefold() in MAIL_SCHEMES

    def find_address_fault(self, name: str, address: str) -> str:
        """Return why an address does not fit a personal channel, or "".

        >>> channels = Channels({"mail": "mailto://example.org?to={address}"})
        >>> channels.find_address_fault("mail", "ana@example.org")
        ''
        """
        if self.is_mail(name):
            pattern, example = MAIL_ADDRESS, "one mail address, such as ana@example.org"
        else:
            pattern, example = PLAIN_ADDRESS, "one name of the receiver, such as @ana or team-bears"
        if len(address) <= MAX_ADDRESS_LENGTH and pattern.fullmatch(address):
            return ""
        return f"{name} takes {example}; letters, digits and . _ - only"

    def build_personal_url(self, name: str, address: str) -> str:
        """Return the URL of a personal channel for an address that fits."""
        return self.urls[name].replace(ADDRESS_FIELD, quote(address, safe=""))

    def mask_url(self, name: str) -> str:
        """Return a channel's address without secrets, or "" if not configured."""
        return mask_url(self.urls[name]) if name in self.urls else ""


NO_CHANNELS = Channels()


def mask_url(url: str) -> str:
    """Return an address's scheme, and its host unless that is secret.

    >>> mask_url("mailto://bo:secret@example.org?to=ana@example.org")
    'mailto://***@example.org'
    >>> mask_url("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ")
    'slack://***'
    """
    scheme, _, rest = url.partition("://")
    if not rest:
        return MASK
    host = _find_host(url) if scheme.casefold() in SCHEMES_WITH_HOST else ""
    user_part = f"{MASK}@" if scheme.casefold().startswith("mailto") else ""
    return f"{scheme}://{user_part}{host or MASK}"


def _find_host(url: str) -> str:
    try:
        parts = urlsplit(url)
        return (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return ""


def remove_secrets(text: str, url: str) -> str:
    """Return a text with all secret parts of an address masked.

    >>> remove_secrets("401 for bo:topsecret", "json://bo:topsecret@example.org/hook/99887")
    '401 for bo:***'
    """
    for secret in sorted(set(_iterate_secrets(url)), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def _iterate_secrets(url: str) -> Iterator[str]:
    """Yield all parts of an address but scheme and host, also decoded."""
    yield url
    scheme, _, rest = url.partition("://")
    visible_host = _find_host(url) if scheme.casefold() in SCHEMES_WITH_HOST else ""
    for part in re.split(r"[/:?&=,#@+]", rest):
        for spelling in (part, unquote(part)):
            if len(spelling) >= MIN_SECRET_LENGTH and spelling not in visible_host:
                yield spelling


def read_channels(path: Path, public_url: str = "") -> Channels:
    """Read a YAML file of channels.

    Each line is `name: url` or `name: {url: …, readers: [ana, bo]}`.

    Raises:
        ValueError: the file is invalid; the text has the line, but none of its content.
        OSError: the file can't be read.
    """
    import yaml  # noqa: PLC0415 - a command that names no channel does without

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is not UTF-8; save it as UTF-8") from None
    except yaml.YAMLError as error:
        problem_mark = getattr(error, "problem_mark", None)
        line_text = f", line {problem_mark.line + 1}," if problem_mark else ""
        raise ValueError(f"{path.name}{line_text} is no YAML; {EXAMPLE}") from None
    if document is None:
        return Channels({}, public_url)
    if not isinstance(document, dict):
        raise ValueError(  # noqa: TRY004 - the file is wrong, not a caller's type
            f"{path.name} is no list of names; {EXAMPLE}"
        )
    entries = {name: (url, readers) for name, url, readers in _parse_entries(document, path.name)}
    return Channels(
        urls={name: url for name, (url, _) in entries.items()},
        public_url=public_url,
        readers={
            name: channel_readers
            for name, (_, channel_readers) in entries.items()
            if channel_readers is not None
        },
    )


ChannelEntry = tuple[str, str, tuple[str, ...] | None]


def _parse_entries(document: Mapping[object, object], file_name: str) -> Iterator[ChannelEntry]:
    """Yield each channel's name, address and readers, if any are given."""
    for number, (name, value) in enumerate(document.items(), start=1):
        if not (isinstance(name, str) and name.strip()):
            raise ValueError(f"{file_name}: name {number} is no name; {EXAMPLE}")
        channel: Mapping[object, object] = value if isinstance(value, dict) else {"url": value}
        url, readers = channel.get("url"), channel.get("readers")
        if not (isinstance(url, str) and "://" in url):
            raise ValueError(f"{file_name}: {name} leads to no address; {EXAMPLE}")
        server, *_ = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)
        if ADDRESS_FIELD in server:
            raise ValueError(
                f"{file_name}: {name} has {ADDRESS_FIELD} in the server's name, so that users would"
                " choose the server; put it into the path or the query"
            )
        if channel.keys() - {"url", "readers"}:
            raise ValueError(f"{file_name}: {name} has more than `url` and `readers`; {EXAMPLE}")
        yield (
            name,
            url,
            None if readers is None else _parse_readers(readers, f"{file_name}: {name}"),
        )


def _parse_readers(readers: object, location: str) -> tuple[str, ...]:
    if not (
        isinstance(readers, list) and all(isinstance(reader, str) and reader for reader in readers)
    ):
        raise ValueError(f"{location}: write its readers as a list of user names, `[ana, bo]`")
    return tuple(dict.fromkeys(readers))


def load_channels(path: str, public_url: str) -> Channels:
    """Return the channels of the configured file; none without a path.

    Raises:
        ValueError: the file is missing or invalid.
    """
    if not path:
        return Channels({}, public_url)
    try:
        return read_channels(Path(path), public_url)
    except OSError as error:
        error_text = error.strerror or type(error).__name__
        raise ValueError(f"ROLLOUT_CHANNELS_FILE={path}: {error_text.casefold()}") from None


def warn_if_readable_by_others(path: str) -> str:
    """Return a warning if other accounts may read the file, or ""."""
    if not path or os.name != "posix":
        return ""
    mode = stat.S_IMODE(Path(path).stat().st_mode)
    if not mode & 0o077:
        return ""
    return f"{path} can be read by others (mode {mode:o}): it holds secrets; run chmod 600 on it"


def list_channel_warnings(
    policy: Policy, configured_channels: Collection[str] | None
) -> Iterator[PolicyWarning]:
    """Yield a warning for each channel of a policy without configuration.

    If `configured_channels` is None, they are unknown and there are no warnings.
    """
    if configured_channels is None:
        return
    for index, report in enumerate(policy.reports):
        for channel in dict.fromkeys(report.to):
            if channel not in configured_channels:
                text = f"the channel {channel} is not configured, so it gets no reports"
                yield PolicyWarning(f"reports[{index}]", text)
