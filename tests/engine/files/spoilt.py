"""Good bodies with some bytes put in, left out or said again: what no sender means to send."""

from hypothesis import strategies as st

PARTS = (
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r", b" ", b"\0", b"\x0b", b"\xff"),
    *(b"\xed\xa0\x80", b"\xc3\xa9", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"0", b"9", b".", b"-", b"e"),
    *(rb"\u0000", rb"\u002e", rb"\u0037", rb"\ud83d", rb"\n", rb"\u", b"1e400", b"-0.0", b"1.0"),
    *(
        b"10000000000000000",
        b"9" * 40,
        b"null",
        b"true",
        b"NaN",
        b"{}",
        b"[]",
        b'"a":1,',
        b'"a":"b",',
    ),
    *(b".1234567", b",5", b":60", b"24:00", b"Z", b"z", b"+02:00", b"-00:00", b"+24:00", b"9999"),
    *(b'"key":"b",', b'"at":null,', b'"kind":"heartbeat",', b'"seen":null,', b'"questions":[],'),
)
places = st.integers(0, 2_000)
put_in = st.tuples(places, st.integers(0, 4), st.lists(st.sampled_from(PARTS), max_size=2))
said_again = st.tuples(places, st.integers(0, 80), places)


def spoilt(*bodies):
    """Return a strategy of bodies, each with up to three such mistakes."""
    good = st.sampled_from([body.encode() for body in bodies])
    return st.builds(_spoilt, good, st.lists(said_again, max_size=1), st.lists(put_in, max_size=2))


def _spoilt(body, again, changes):
    for place, size, other in again:
        at, to = place % (len(body) + 1), other % (len(body) + 1)
        body = body[:to] + body[at : at + size] + body[to:]
    for place, size, parts in changes:
        at = place % (len(body) + 1)
        body = body[:at] + b"".join(parts) + body[at + size :]
    return body
