"""Forms with files, read bit by bit: whatever the bits, the same form or a refusal."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.web_kit.page_context import MAX_FIELDS_BYTES, MAX_PARTS, NO_FORM_TEXT, MultipartReader
from rollout.kernel.errors import RefusalError

KIND = "multipart/form-data; boundary=xYz"


def form(*parts, end="--xYz--\r\n"):
    """Return the bytes of a form; a part is a field's name, its file name or None, its bytes."""
    body = b""
    for name, file, content in parts:
        named = f'; filename="{file}"' if file is not None else ""
        head = f'--xYz\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + end.encode()


def read(body, sizes=(7,), kind=KIND):
    """Return the fields and files of a body that arrives in chunks of these sizes, in turn."""

    async def chunks():
        at = number = 0
        while at < len(body):
            size = sizes[number % len(sizes)]
            yield body[at : at + size]
            at, number = at + size, number + 1

    async def read_all():
        reader = MultipartReader(kind, chunks())
        fields = await reader.read_fields()
        files = []
        async for name, content in reader.iterate_files():
            files.append((name, b"".join([chunk async for chunk in content])))
        return fields, files

    return asyncio.run(read_all())


PARTS = [
    ("token", None, b"abc"),
    ("keep", None, b""),
    ("predictions", "p.csv", b"a,b\r\n1,2\r\n\r\n--xY\r\n--xYy"),
    ("decisions", "d.csv", b"--not the end"),
]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_a_form_is_the_same_however_it_arrives(sizes):
    fields, files = read(form(*PARTS), sizes)
    assert fields == {"token": ["abc"], "keep": [""]}
    assert files == [("predictions", PARTS[2][2]), ("decisions", PARTS[3][2])]


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_of_a_file_arrive_as_they_were_sent(content, size):
    if b"\r\n--xYz" not in content:
        assert read(form(("f", "f.csv", content)), (size,))[1] == [("f", content)]


def test_a_form_without_files_and_one_with_an_empty_choice():
    assert read(form(("a", None, b"1"), ("a", None, b"2"))) == ({"a": ["1", "2"]}, [])
    assert read(form(("f", "", b""))) == ({}, [("f", b"")])


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"page_token=abc", NO_FORM_TEXT),
        (b"{" * 100, NO_FORM_TEXT),
        (form(PARTS[0], end=""), "did not arrive whole"),
        (form(PARTS[0])[:-9], "did not arrive whole"),
        (b"--xYz\r\nContent-Type: text/plain\r\n\r\nx\r\n--xYz--", NO_FORM_TEXT),
        (b"--xYz\r\nX: " + b"x" * 9_000 + b"\r\n\r\nx\r\n--xYz--", NO_FORM_TEXT),
        (form(("a", None, b"\xff\xfe")), NO_FORM_TEXT),
        (form(PARTS[2], PARTS[0]), NO_FORM_TEXT),
        (form(("a", None, b"x" * (MAX_FIELDS_BYTES + 1))), "more than 2,097,152 bytes"),
        (form(*[("n" * 4_000, None, b"")] * 600), "more than 100 fields"),
    ],
    ids=["form", "json", "no end", "cut", "nameless", "head", "bytes", "late field", "big", "many"],
)
def test_what_is_no_form_is_refused_with_a_sentence(body, text):
    with pytest.raises(RefusalError, match=text):
        read(body, (64,))


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=" + "x" * 71]
)
def test_a_form_without_a_boundary_is_refused(kind):
    with pytest.raises(RefusalError, match="go back and reload"):
        read(form(*PARTS), kind=kind)


def test_a_form_of_very_many_small_fields_is_refused():
    fields = [(f"f{number}", None, b"x") for number in range(MAX_PARTS)]
    assert len(read(form(*fields))[0]) == MAX_PARTS
    with pytest.raises(RefusalError, match=f"more than {MAX_PARTS} fields"):
        read(form(*fields, ("one", None, b"x")))
