"""Channels: read from a file that is secret; nothing of it is in what anybody is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.kernel.channels import (
    Channels,
    list_channel_warnings,
    load_channels,
    mask_url,
    read_channels,
    remove_secrets,
    warn_if_readable_by_others,
)
from rollout.kernel.policy_files.reader import parse_policy
from tests.api.bears import POLICY

MARK = "hunter2-token"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "channels.yaml"

    def written(text, mode=0o600):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    return written


def test_a_file_names_channels_and_where_they_lead(file):
    found = read_channels(file(f"ops: json://{MARK}@a.example\nnight watch: slack://{MARK}\n"))
    assert found.names == ("night watch", "ops")
    assert found.urls["ops"] == f"json://{MARK}@a.example"
    assert MARK not in repr(found)


def test_a_channel_may_say_who_reads_it(file):
    lines = (
        f"ops: json://{MARK}",
        f"rangers: {{url: json://{MARK}, readers: [ana, bo, ana]}}",
        f"archive: {{url: json://{MARK}, readers: []}}",
        f"chat: {{url: json://{MARK}}}",
    )
    found = read_channels(file("\n".join(lines)))
    assert set(found.urls.values()) == {f"json://{MARK}"}
    assert found.readers == {"rangers": ("ana", "bo"), "archive": ()}


@pytest.mark.parametrize("text", ["", "# none yet\n"])
def test_an_empty_file_names_none_and_so_does_no_file(file, text):
    assert load_channels(str(file(text)), "https://here").names == ()
    assert load_channels("", "https://here") == Channels({}, "https://here")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"ops: json://{MARK}: x\n", "line 1"),
        (f"ops: [json://{MARK}\n", "line 2"),
        (f"- json://{MARK}\n", "no list of names"),
        (f"json://{MARK}\n", "no list of names"),
        (f"ops: {MARK}\n", "ops leads to no address"),
        (f"ops: {{readers: [{MARK}]}}\n", "ops leads to no address"),
        (f"ops: {{url: json://{MARK}, reader: [ana]}}\n", "ops has more than `url` and `readers`"),
        (f"ops: {{url: json://{MARK}, readers: ana}}\n", "ops: write its readers as a list"),
        (f"ops: {{url: json://{MARK}, readers: ['']}}\n", "ops: write its readers as a list"),
        (f"1: json://{MARK}\n", "name 1 is no name"),
        (f"ops: json://{MARK}\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_a_file_that_is_none_is_refused_with_nothing_of_what_stands_there(file, text, says):
    with pytest.raises(ValueError, match=says) as refused:
        load_channels(str(file(text)), "")
    assert MARK not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ROLLOUT_CHANNELS_FILE=.*no such file"):
        load_channels(str(tmp_path / "none.yaml"), "")


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_may_read_is_warned_of(file, mode, warned):
    says = warn_if_readable_by_others(str(file("", mode)))
    assert bool(says) == warned
    assert not warned or "chmod 600" in says


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            f"jsons://bo:{MARK}@hooks.example.org:8443/{MARK}?x={MARK}",
            "jsons://hooks.example.org:8443",
        ),
        (f"mailto://bo:{MARK}@example.org?to=ana@example.org", "mailto://***@example.org"),
        (f"slack://{MARK}/b/c", "slack://***"),
        (f"discord://{MARK}/{MARK}", "discord://***"),
        (f"json://[{MARK}", "json://***"),
        (MARK, "***"),
    ],
)
def test_where_a_channel_leads_is_shown_without_what_is_secret(url, shown):
    assert mask_url(url) == shown
    assert Channels({"a": url}).mask_url("a") == shown
    assert Channels().mask_url("a") == ""


PARTS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=3, max_size=12)


@given(PARTS.filter(lambda part: not set(part) & set("/:?&=,#@+%*[]")), st.sampled_from("/:@?"))
def test_no_part_of_an_address_survives_in_an_error(part, between):
    url = f"tgram://{part}{between}other"
    assert part not in remove_secrets(f"refused: {url}; {part}", url).replace("refused", "")


def test_an_encoded_password_is_hidden_as_it_is_read_too():
    url = "mailto://bo:s%3Ecret@example.org"
    assert remove_secrets("bad s>cret, bad s%3Ecret", url) == "bad ***, bad ***"


def test_a_policy_is_warned_of_each_channel_that_nobody_configured():
    text = POLICY + "reports: [{name: a, to: [ops, x]}, {name: b, to: [x, y, x]}]\n"
    policy = parse_policy(text)
    found = [one.location for one in list_channel_warnings(policy, {"ops"})]
    assert found == ["reports[0]", "reports[1]", "reports[1]"]
    assert list(list_channel_warnings(policy, None)) == []
    assert list(list_channel_warnings(policy, ("ops", "x", "y"))) == []


@pytest.mark.parametrize(
    "url",
    ["json://{address}/hook", "json://{address}.example.org/hook", "mailto://a:b@{address}?to=c"],
)
def test_no_channel_lets_users_choose_the_server(file, url):
    with pytest.raises(ValueError, match="users would choose the server"):
        read_channels(file(f"hook: {url}\n"))


def test_a_channel_of_users_takes_no_reports(file):
    found = read_channels(file("mail: mailto://a.example?to={address}\nops: json://a.example\n"))
    assert (found.personal_names, found.shared_names) == (("mail",), ("ops",))
