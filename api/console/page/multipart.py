"""Read a form with files bit by bit, so that no file is ever whole in memory.

The fields come first, as the page has them: they are read, and the page token is checked, before
the first byte of a file is. The form is RFC 7578, of RFC 2046.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Final

from rollout.core.errors import RefusalError

MAX_HEAD_BYTES: Final = 8 * 2**10
MAX_PARTS: Final = 100  # fields before the first file; reading a head costs more than its bytes
MAX_FIELDS_BYTES: Final = 2 * 2**20  # of all fields together, files not counted
NO_FORM_TEXT: Final = "this is not a form of the console; go back and reload the page"
_HEAD_END: Final = b"\r\n\r\n"
_DISPOSITION: Final = "content-disposition"


@dataclass(frozen=True, slots=True)
class FormPart:
    """The head of a part: the field's name, and whether it is a file."""

    name: str
    is_file: bool


class MultipartReader:
    """Reads the parts of one form in turn."""

    def __init__(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        """Read `chunks`, the body of a request.

        Raises:
            RefusalError: the content type names no boundary.
        """
        message = Message()
        message["Content-Type"] = content_type
        boundary = _get_parameter(message, "content-type", "boundary")
        if not 0 < len(boundary) <= 70:
            raise RefusalError(NO_FORM_TEXT)
        self._delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
        self._chunks = chunks
        self._buffer = b"\r\n"  # so that the first delimiter is found as the others are
        self._part: FormPart | None = None

    async def read_fields(self) -> dict[str, list[str]]:
        """Return the fields before the first file.

        Raises:
            RefusalError: the body is no form, or a field is too long.
        """
        fields: dict[str, list[str]] = {}
        size = count = 0
        await self._skip_delimiter()
        while (part := await self._read_head()) is not None and not part.is_file:
            size += len(part.name)
            count += 1
            if count > MAX_PARTS:
                raise RefusalError(f"the form has more than {MAX_PARTS} fields")
            chunks = []
            async for chunk in self._iterate_content():
                chunks.append(chunk)
                size += len(chunk)
                if size > MAX_FIELDS_BYTES:
                    break
            if size > MAX_FIELDS_BYTES:
                raise RefusalError(f"the fields have more than {MAX_FIELDS_BYTES:,} bytes")
            try:
                fields.setdefault(part.name, []).append(b"".join(chunks).decode())
            except UnicodeDecodeError:
                raise RefusalError(NO_FORM_TEXT) from None
        self._part = part
        return fields

    async def iterate_files(self) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
        """Yield the name of each file field with the content, which has to be read.

        Raises:
            RefusalError: the body is no form, or has a field after a file.
        """
        while self._part is not None:
            if not self._part.is_file:
                raise RefusalError(NO_FORM_TEXT)
            yield self._part.name, self._iterate_content()
            self._part = await self._read_head()

    async def skip_rest(self, limit: int) -> None:
        """Read what is left of the body, so that its sender reads the response."""
        size = 0
        async for chunk in self._chunks:
            size += len(chunk)
            if size > limit:
                return

    async def _iterate_content(self) -> AsyncIterator[bytes]:
        """Yield the content of a part, and go beyond the delimiter after it."""
        while (end := self._buffer.find(self._delimiter)) < 0:
            safe = len(self._buffer) - len(self._delimiter) + 1  # the rest may begin a delimiter
            if safe > 0:
                content, self._buffer = self._buffer[:safe], self._buffer[safe:]
                yield content
            await self._receive()
        content = self._buffer[:end]
        self._buffer = self._buffer[end + len(self._delimiter) :]
        if content:
            yield content

    async def _skip_delimiter(self) -> None:
        """Go beyond the first delimiter; what browsers send begins with it."""
        while len(self._buffer) < len(self._delimiter):
            await self._receive()
        if not self._buffer.startswith(self._delimiter):
            raise RefusalError(NO_FORM_TEXT)
        self._buffer = self._buffer[len(self._delimiter) :]

    async def _read_head(self) -> FormPart | None:
        """Return the head of the next part; None at the end of the form."""
        while len(self._buffer) < 2:
            await self._receive()
        if self._buffer.startswith(b"--"):
            return None
        while (end := self._buffer.find(_HEAD_END)) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise RefusalError(NO_FORM_TEXT)
            await self._receive()
        head, self._buffer = self._buffer[:end], self._buffer[end + len(_HEAD_END) :]
        message = BytesHeaderParser().parsebytes(head.lstrip(b"\r\n"))
        name = _get_parameter(message, _DISPOSITION, "name")
        if not name:
            raise RefusalError(NO_FORM_TEXT)
        return FormPart(name, is_file=message.get_param("filename", None, _DISPOSITION) is not None)

    async def _receive(self) -> None:
        try:
            self._buffer += await anext(self._chunks)
        except StopAsyncIteration:
            raise RefusalError("the form did not arrive whole; send it again") from None


def _get_parameter(message: Message, header: str, name: str) -> str:
    """Return a parameter of a header, "" if missing."""
    parameter = message.get_param(name, "", header)
    return parameter if isinstance(parameter, str) else ""
