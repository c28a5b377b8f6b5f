"""Recognize the encoding of a text file and convert it to UTF-8.

Every file is valid Latin-1, so it is only recognized by its letters: each byte above ASCII is a
Western European letter beside an ASCII letter, or a sign that is not inside a word. Bytes 80 to 9F
are letters in other encodings (Mac Roman, code page 850), so as letters they are not recognized.
"""

from __future__ import annotations

import codecs
import re

from rollout.core.records.row_remarks import RemarkReason
from rollout.formats.records.rejected_rows import RecordError

BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
ZERO_SHARE = 0.4
"""Share of zero bytes at even or odd positions from which a text is UTF-16."""
_SAMPLE_BYTES = 65536
_LETTERS = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüý"
_SIGNS = "°§€£µ²³ºª«»¿¡–—‘’“”\u00a0"
_WESTERN = re.compile(
    f"(?<![A-Za-z])[{_SIGNS}]|[{_SIGNS}](?![A-Za-z])"
    f"|(?<=[A-Za-z])[{_LETTERS}]{{1,2}}|[{_LETTERS}]{{1,2}}(?=[A-Za-z])"
)
SINGLE_BYTE = ("latin-1", "cp1252")
"""Encodings that are recognized by their letters; nothing in the file proves them."""


def recognize_encoding(content: bytes) -> str:
    """Return the codec of a text; `utf-8` also for damaged text that no codec explains."""
    for mark, encoding in BOMS.items():
        if content.startswith(mark):
            return encoding
    sample = content[:_SAMPLE_BYTES]
    if sample and b"\0" in sample:
        if sample[1::2].count(0) > ZERO_SHARE * len(sample) / 2:
            return "utf-16-le"
        if sample[::2].count(0) > ZERO_SHARE * len(sample) / 2:
            return "utf-16-be"
    return "utf-8" if _is_utf8(content) else _recognize_single_byte(content)


def _is_utf8(content: bytes) -> bool:
    try:
        return content.isascii() or content.decode() is not None
    except UnicodeDecodeError:
        return False


def _recognize_single_byte(content: bytes) -> str:
    if not content.decode(errors="ignore").isascii():  # UTF-8 with damaged rows
        return "utf-8"
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        return "utf-8"
    if not _WESTERN.sub("", text).isascii():
        return "utf-8"
    return "cp1252" if re.search(rb"[\x80-\x9f]", content) else "latin-1"


def convert_to_utf8(content: bytes, encoding: str | None, file: str) -> bytes:
    """Return a text in UTF-8 without byte order mark; bytes that are not UTF-8 stay.

    Raises:
        RecordError: the text is not in `encoding`.
    """
    if encoding is None or codecs.lookup(encoding).name == "utf-8":
        return content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode(encoding).removeprefix("\ufeff").encode()
    except UnicodeError as error:
        detail = f"the file is not {encoding}; name its encoding with --encoding"
        raise RecordError(file, None, None, RemarkReason.BAD_ENCODING, detail) from error
