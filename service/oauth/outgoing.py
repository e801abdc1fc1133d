"""Calls to providers, bounded: 5 seconds, 256 KB, no redirects, no compression, nothing but JSON.

A provider is somebody else's machine. Whatever it does, slow, wrong or hostile, ends as `ProviderUnavailable` in time,
and has cost no more than a connection.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson
import structlog

from service.errors import ProviderUnavailable

log = structlog.get_logger("service.oauth")

WITHIN = 5.0  # seconds
LARGEST = 256 * 1024  # bytes


class Outgoing:
    """One pool of connections for all providers, with a few for each."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def json(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """The status below 500 and the JSON of an answer; raises `ProviderUnavailable` for anything else."""
        sent = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "gatepost",
            **(headers or {}),
        }
        try:
            async with (
                asyncio.timeout(WITHIN),
                self._open().request(method, url, data=form, headers=sent, allow_redirects=False) as response,
            ):
                return response.status, orjson.loads(await _read(response))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, Unusable) as error:
            # The address without its query: what is in there may be a code.
            told = url.partition("?")[0]
            log.warning("oauth.provider_failed", url=told, error=type(error).__name__, reason=str(error)[:200])
            raise ProviderUnavailable from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        """Made on first use: it belongs to the running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=64, limit_per_host=16, keepalive_timeout=15),
                timeout=aiohttp.ClientTimeout(total=WITHIN, sock_connect=2),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session


class Unusable(Exception):
    """An answer that is of no use, with its status where that is the reason."""

    def __init__(self, why: str, status: int | None = None) -> None:
        super().__init__(why)
        self.status = status


async def _read(response: aiohttp.ClientResponse) -> bytes:
    if response.status >= 500 or 300 <= response.status < 400:
        raise Unusable(f"status {response.status}", response.status)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Unusable("compressed")
    body = bytearray()
    async for chunk in response.content.iter_chunked(16 * 1024):
        body += chunk
        if len(body) > LARGEST:
            raise Unusable("too large")
    return bytes(body)
