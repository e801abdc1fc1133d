"""What goes over the wire for an answer: head and body in one write, the head made of parts that are made once.

The framework would build a head of a dozen headers for each answer, ask three listeners about it, and serialize it. All
of ours say the same but for a few lines, so those are put between parts that are ready (`Heads`).
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Self

from aiohttp import ClientConnectionResetError, HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from multidict import CIMultiDict

HTML = "text/html; charset=utf-8"
_WITHOUT_BODY = frozenset({204, 304})
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")


class Answer(web.Response):
    """A whole answer. `Heads.complete` writes its head before the framework sends it.

    `lines` are headers that are ready to be written (`header_lines`), for what is answered again and again.
    """

    def __init__(
        self,
        body: bytes = b"",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        content_type: str = "",
        lines: str = "",
    ) -> None:
        # What `web.Response` would do besides is for bodies of other kinds than bytes, and takes longer than the rest.
        self._state = {}
        self._status = status
        self._reason = _phrase(status)
        self._headers = CIMultiDict(headers) if headers else CIMultiDict()
        self._body = body
        self.kind = content_type
        self.lines = lines
        self.head = b""

    @classmethod
    def of(cls, response: web.StreamResponse) -> Self:
        """What the framework or a library of it has answered."""
        assert isinstance(response, web.Response)
        body = response.body
        assert body is None or isinstance(body, bytes)
        headers = CIMultiDict(response.headers)
        answer = cls(body or b"", response.status, headers, headers.pop(hdrs.CONTENT_TYPE, ""))
        answer._cookies = response._cookies
        return answer

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        self._payload_writer = request.writer
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Write it all; raises `ConnectionError` where nobody is there any more."""
        assert not data
        assert self._payload_writer is not None
        transport = self._payload_writer.transport
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("The client has gone")
        transport.write(self.head)
        await self._payload_writer.drain()
        self._body_length = len(self.head)
        self._eof_sent = True


class Heads:
    """Writes the heads of answers: what every one says, what some say, and what only this one does."""

    def __init__(
        self,
        always: Mapping[str, str],
        origins: Mapping[str, Mapping[str, str]],
        pages: Mapping[str, str] | None = None,
    ) -> None:
        self._always = header_lines({**always, hdrs.VARY: hdrs.ORIGIN})
        self._pages = header_lines({**always, **(pages or {}), hdrs.VARY: hdrs.ORIGIN})  # what is HTML
        self._origins = {origin: header_lines(headers) for origin, headers in origins.items()}
        self._starts: dict[tuple[int, str], str] = {}

    def complete(self, request: web.BaseRequest, answer: Answer, request_id: str, last: bool) -> None:
        """Write the head, and the body behind it where there is to be one; the connection closes after the last."""
        status, headers, body = answer.status, answer.headers, answer.body
        assert isinstance(body, bytes)
        told = answer.lines if not headers and answer._cookies is None else self._told(answer)
        if hdrs.CACHE_CONTROL not in headers:
            told += "Cache-Control: no-store\r\n"
        if status not in _WITHOUT_BODY:
            told += f"Content-Length: {len(body)}\r\n"
        if (origin := request.headers.get(hdrs.ORIGIN)) and hdrs.ACCESS_CONTROL_ALLOW_ORIGIN not in headers:
            told += self._origins.get(origin, "")
        keep_alive = request.keep_alive and not last and answer.keep_alive is not False
        answer._keep_alive = keep_alive
        start = self._starts.get((status, answer.kind)) or self._start(status, answer.kind)
        if request.version != HttpVersion11:
            start = start.replace("HTTP/1.1", "HTTP/1.0", 1)
            told += f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n"
        elif not keep_alive:
            told += "Connection: close\r\n"
        head = f"{start}{told}X-Request-Id: {request_id}\r\nDate: {rfc822_formatted_time()}\r\n\r\n".encode()
        answer.head = head if request.method == hdrs.METH_HEAD or status in _WITHOUT_BODY else head + body

    def _start(self, status: int, kind: str) -> str:
        typed = header_lines({hdrs.CONTENT_TYPE: kind}) if kind else ""
        always = self._pages if kind == HTML else self._always
        start = self._starts[status, kind] = f"HTTP/1.1 {status} {_phrase(status)}\r\n{typed}{always}"
        return start

    def _told(self, answer: Answer) -> str:
        told = answer.lines + header_lines(answer.headers)
        if answer._cookies:
            told += "".join(f"{cookie.output()}\r\n" for cookie in answer.cookies.values())
        return told


def header_lines(headers: Mapping[str, str]) -> str:
    """Headers as they are written; raises `ValueError` where a value would begin a line of its own."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or _CONTROL.search(lines):
        raise ValueError("A header must not hold control characters")
    return lines


_PHRASES: dict[int, str] = {status.value: status.phrase for status in HTTPStatus}


def _phrase(status: int) -> str:
    return _PHRASES.get(status, "")
