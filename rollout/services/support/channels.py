"""Channels: the names that a policy sends reports to, and where each leads.

A policy names a channel; the address behind it, an Apprise URL, holds passwords and tokens. It
stands in a file of the machine alone: in no policy, table, log, page or error.
"""

import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

from rollout.core.policy.policy import Policy
from rollout.core.policy.policy_warnings import PolicyWarning

HIDDEN = "***"
NAMED = frozenset({"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos"})
"""Kinds of address whose host is a host; that of others may be a token."""
SHORTEST = 3  # letters: what is shorter is hidden nowhere, or ordinary words would be cut up
EXAMPLE = "write `ops: mailto://user:password@example.org`"


@dataclass(frozen=True, slots=True)
class Channels:
    """Where reports go.

    Attributes:
        urls: by name the address, an Apprise URL. It is secret.
        public_url: of this service; messages link back to it.
        readers: by name the people here who read it, () where nobody does who judges; a channel
            that is not in it may be read by anybody.
    """

    urls: Mapping[str, str] = field(default_factory=dict, repr=False)
    public_url: str = ""
    readers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names, in order."""
        return tuple(sorted(self.urls))

    def masked(self, name: str) -> str:
        """Return where a channel leads as anybody may read it, "" where it is not configured."""
        return masked(self.urls[name]) if name in self.urls else ""


NO_CHANNELS = Channels()


def masked(url: str) -> str:
    """Return the kind of an address, and its host where that is none of its secrets.

    >>> masked("mailto://bo:secret@example.org?to=ana@example.org")
    'mailto://***@example.org'
    >>> masked("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ")
    'slack://***'
    """
    scheme, _, rest = url.partition("://")
    if not rest:
        return HIDDEN
    host = _host(url) if scheme.casefold() in NAMED else ""
    user_part = f"{HIDDEN}@" if scheme.casefold().startswith("mailto") else ""
    return f"{scheme}://{user_part}{host or HIDDEN}"


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        return (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return ""


def without_secrets(text: str, url: str) -> str:
    """Return a text in which nothing stands that the address keeps secret.

    >>> without_secrets("401 for bo:topsecret", "json://bo:topsecret@example.org/hook/99887")
    '401 for bo:***'
    """
    for secret in sorted(set(_secrets(url)), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _secrets(url: str) -> Iterator[str]:
    """Yield every part of an address but its kind and a host that is one, also as it is read."""
    yield url
    scheme, _, rest = url.partition("://")
    visible_host = _host(url) if scheme.casefold() in NAMED else ""
    for part in re.split(r"[/:?&=,#@+]", rest):
        for spelling in (part, unquote(part)):
            if len(spelling) >= SHORTEST and spelling not in visible_host:
                yield spelling


def read_channels(path: Path, public_url: str = "") -> Channels:
    """Read a file of channels: YAML, `name: url` a line, or `name: {url: …, readers: [ana, bo]}`.

    Raises:
        ValueError: it is no such file; says the line, and nothing of what stands there.
        OSError: it can't be read.
    """
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
        text = f"{path.name} is no list of names; {EXAMPLE}"
        raise ValueError(text)  # noqa: TRY004 - what is wrong is the file, not a caller's type
    entries = {name: (url, readers) for name, url, readers in _entries(document, path.name)}
    return Channels(
        urls={name: url for name, (url, _) in entries.items()},
        public_url=public_url,
        readers={
            name: channel_readers
            for name, (_, channel_readers) in entries.items()
            if channel_readers is not None
        },
    )


Entry = tuple[str, str, tuple[str, ...] | None]


def _entries(found: Mapping[object, object], file: str) -> Iterator[Entry]:
    """Yield each channel's name and address, and who reads it; None where that is not said."""
    for number, (name, value) in enumerate(found.items(), start=1):
        if not (isinstance(name, str) and name.strip()):
            raise ValueError(f"{file}: name {number} is no name; {EXAMPLE}")
        channel: Mapping[object, object] = value if isinstance(value, dict) else {"url": value}
        url, readers = channel.get("url"), channel.get("readers")
        if not (isinstance(url, str) and "://" in url):
            raise ValueError(f"{file}: {name} leads to no address; {EXAMPLE}")
        if channel.keys() - {"url", "readers"}:
            raise ValueError(f"{file}: {name} has more than `url` and `readers`; {EXAMPLE}")
        yield name, url, None if readers is None else _people(readers, f"{file}: {name}")


def _people(readers: object, where: str) -> tuple[str, ...]:
    if not (
        isinstance(readers, list) and all(isinstance(reader, str) and reader for reader in readers)
    ):
        raise ValueError(f"{where}: write its readers as a list of people's names, `[ana, bo]`")
    return tuple(dict.fromkeys(readers))


def channels_of(path: str, public_url: str) -> Channels:
    """Return the channels of the file that a setting names; "" names none.

    Raises:
        ValueError: as for `read_channels`; or there is no such file.
    """
    if not path:
        return Channels({}, public_url)
    try:
        return read_channels(Path(path), public_url)
    except OSError as error:
        error_text = error.strerror or type(error).__name__
        raise ValueError(f"ROLLOUT_CHANNELS_FILE={path}: {error_text.casefold()}") from None


def readable_by_others(path: str) -> str:
    """Return a warning where others on this machine may read the file; "" where they may not."""
    if not path or os.name != "posix":
        return ""
    mode = stat.S_IMODE(Path(path).stat().st_mode)
    if not mode & 0o077:
        return ""
    return f"{path} can be read by others (mode {mode:o}): it holds secrets; run chmod 600 on it"


def channel_warnings(policy: Policy, known: Collection[str] | None) -> Iterator[PolicyWarning]:
    """Yield a warning for each channel of a policy that nobody configured.

    Args:
        policy: a loaded policy.
        known: the channels that are configured; None where that is not known.
    """
    if known is None:
        return
    for index, report in enumerate(policy.reports):
        for channel in dict.fromkeys(report.to):
            if channel not in known:
                text = f"nobody configured the channel {channel}: nothing reaches it until then"
                yield PolicyWarning(f"reports[{index}]", text)
