"""A network between the service and Redis that can be cut, frozen, slowed down, or lose an answer.

`Proxy` lives in the event loop of a test, `Network` beside it, for as long as the processes that talk through it.
`sent` has what the service sent, one entry for each round trip; the library's own greetings are left out.
"""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.conftest import free_port

_GREETINGS = (b"CLIENT", b"HELLO", b"ROLE")


class Proxy:
    """Listens on 127.0.0.1 and passes everything on to a Redis, on a unix socket or on a port."""

    def __init__(self, redis: Path | int) -> None:
        self._redis = redis
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._word, self._skip, self._times, self._silently = b"", 0, 0, False
        self.port = 0
        self.delay = 0.0  # seconds that each answer is late
        self.sent: list[bytes] = []
        self.lost = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.port = self.port or free_port()  # kept over a stop: no client's connection may take it meanwhile
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Cut every connection and refuse new ones, until `start`."""
        if self._server:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def freeze(self) -> None:
        """Take what is sent and pass nothing on, as a network that drops packets."""
        self._flowing.clear()

    def lead_to(self, redis: Path | int) -> None:
        """Lead new connections to another Redis, as a name does that has moved."""
        self._redis = redis

    def thaw(self) -> None:
        self._flowing.set()

    def lose(self, word: bytes = b"", skip: int = 0, times: int = 1, silently: bool = False) -> None:
        """Lose the answers to the next requests with this word in them: Redis has done what it was told.

        The connection is cut then, or with `silently` just never answers again.
        """
        self._word, self._skip, self._times, self._silently = word, skip, times, silently
        self.lost = 0

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)  # before the task begins: `stop` may come first
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        redis: asyncio.StreamWriter | None = None
        answers: asyncio.Task[None] | None = None
        losing = asyncio.Event()
        try:
            back, redis = await self._connect()
            answers = asyncio.create_task(self._answers(back, writer, losing))
            while data := await reader.read(1 << 20):
                if not any(greeting in data for greeting in _GREETINGS):
                    self.sent.append(data)
                    if self._loses(data):
                        losing.set()
                await self._flowing.wait()
                redis.write(data)
        except OSError:
            pass
        finally:
            if answers:
                answers.cancel()
            self._writers.discard(writer)
            for end in filter(None, (writer, redis)):
                end.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._redis, int):
            return await asyncio.open_connection("127.0.0.1", self._redis)
        return await asyncio.open_unix_connection(self._redis)

    async def _answers(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event) -> None:
        with suppress(OSError):
            while data := await back.read(1 << 20):
                if losing.is_set():
                    self.lost += 1
                    if self._silently:
                        await asyncio.Event().wait()
                    break
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._flowing.wait()
                writer.write(data)
        writer.transport.abort()

    def _loses(self, data: bytes) -> bool:
        if self._word not in data or not self._times:
            return False
        if self._skip:
            self._skip -= 1
            return False
        self._times -= 1
        return True


class Network:
    """A proxy in a thread of its own."""

    def __init__(self, redis: Path | int) -> None:
        self.proxy = Proxy(redis)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self.proxy.start())

    @property
    def port(self) -> int:
        return self.proxy.port

    def cut(self) -> None:
        """Every connection is reset, and new ones are refused, until `mend`."""
        self._do(self.proxy.stop())

    def mend(self) -> None:
        self._do(self.proxy.start())

    def freeze(self) -> None:
        """What is sent arrives nowhere, until `thaw`."""
        self._loop.call_soon_threadsafe(self.proxy.freeze)

    def thaw(self) -> None:
        self._loop.call_soon_threadsafe(self.proxy.thaw)

    def lose(self, times: int, skip: int = 0) -> None:
        """Lose the answers to some of the next requests, which Redis carries out."""
        self._loop.call_soon_threadsafe(lambda: self.proxy.lose(skip=skip, times=times))

    def close(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
