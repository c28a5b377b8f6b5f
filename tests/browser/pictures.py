"""Pictures that a camera in the town could have taken: small PNG, drawn point by point."""

import base64
import struct
import zlib
from functools import cache

WIDE, HIGH = 192, 120
NIGHT, DAY = (
    ((18, 26, 34), (27, 38, 32), (201, 210, 205)),
    (
        (176, 200, 214),
        (92, 112, 78),
        (62, 48, 38),
    ),
)


@cache
def picture(number, *, bear, day=False):
    """Return a picture as an address of `data:`; the same number gives the same picture."""
    sky, ground, fur = DAY if day else NIGHT
    rows = bytearray()
    for y in range(HIGH):
        rows.append(0)
        for x in range(WIDE):
            rows += bytes(_at(x, y, number, sky, ground, fur if bear else None))
    return "data:image/png;base64," + base64.b64encode(_png(bytes(rows))).decode()


def _at(x, y, number, sky, ground, fur):
    horizon = 62 + (number * 7) % 9
    shade = ((x * 31 + y * 17 + number * 13) % 7) - 3
    colour = sky if y < horizon else ground
    if any(
        abs(x - trunk) < 4 + (y > 20) * (y - 20) / 14 and y < horizon for trunk in _trees(number)
    ):
        colour = tuple(part // 2 for part in sky)
    if fur is not None and _on_bear(x - 70 - number * 11 % 50, y - horizon):
        colour = fur
    return [max(0, min(255, part + shade)) for part in colour]


def _trees(number):
    return (14 + number % 9, 48 + number % 13, 150 - number % 17, 178)


def _on_bear(x, y):
    body = (x / 30) ** 2 + ((y - 8) / 15) ** 2 < 1
    head = ((x - 32) / 12) ** 2 + ((y + 4) / 11) ** 2 < 1
    ear = ((x - 26) / 4) ** 2 + ((y + 15) / 4) ** 2 < 1
    legs = 12 < y < 32 and abs(abs(x) - 17) < 6
    return body or head or ear or legs


def _png(rows):
    def part(kind, body):
        whole = kind + body
        return struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", WIDE, HIGH, 8, 2, 0, 0, 0)
    packed = zlib.compress(rows, 9)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", packed) + part(b"IEND", b"")
