"""Instances as they run in production: a process each, reached over TCP and by signals."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.settings import ROOT
from tests.conftest import WIDE
from tests.log_watch import WATCH

STRONG = "Zk3pV9xQ2mT7wR4yB8nL1cF6hJ5sD0gA-u_e"


@dataclass
class Reply:
    """An answer, as bytes tell it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


class Wire:
    """A connection on which every byte is ours."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, sent: bytes) -> None:
        self.writer.write(sent)

    async def reply(self, within: float = 20) -> Reply:
        """The next answer; raises `IncompleteReadError` where the connection ends instead."""
        async with asyncio.timeout(within):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
            return Reply(int(first.split()[1]), headers, body)

    async def ended(self, within: float = 20) -> bool:
        """Wait for the other side to close; say whether nothing more had come."""
        async with asyncio.timeout(within):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    def close(self) -> None:
        self.writer.close()

    async def drop(self) -> None:
        """End it without a word."""
        self.writer.transport.abort()
        with suppress(OSError):
            await self.writer.wait_closed()


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def post(path: str, body: dict, *lines: str) -> bytes:
    data = json.dumps(body).encode()
    head = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *lines]
    return "\r\n".join([*head, f"Content-Length: {len(data)}", "", ""]).encode() + data


def _any_port() -> int:
    """By chance, below those that the system gives to clients: other runs on this machine look for ports, too."""
    while True:
        port = random.randrange(10_000, 20_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Instance:
    """One process of the service, in production, on a Redis that is there already."""

    def __init__(
        self, home: Path, redis_url: str, before: Callable[[], object] | None = None, port: int = 0, **changes: str
    ) -> None:
        self.port = port or _any_port()
        self._wires: list[Wire] = []
        self._output = home / f"output.{self.port}.{time.monotonic_ns()}"
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "ENVIRONMENT": "production",
            "AUTH_SECRET": STRONG,
            "REDIS_URL": redis_url,
            "REDIS_ALLOW_UNSAFE": "on",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "PUBLIC_URL": "http://localhost:8080",  # as many instances as there are, one address
            "DRAIN_SECONDS": "0",
            "RATE_LIMITS": WIDE,
            "LOG_LEVEL": "warning",
            **changes,
        }
        WATCH.follow(self._output)
        with self._output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service"],
                cwd=home,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                preexec_fn=before,
            )

    @property
    def said(self) -> str:
        return self._output.read_text()

    async def ready(self) -> "Instance":
        async with asyncio.timeout(30):
            while self.process.poll() is None:
                try:
                    wire = await self.connect()
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                wire.send(get("/ready", "Connection: close"))
                reply = await wire.reply()
                wire.close()
                if reply.status == 200:
                    return self
                await asyncio.sleep(0.05)
        raise AssertionError(self.said)

    async def connect(self, *, source: str = "127.0.0.1", receive_buffer: int = 0) -> Wire:
        loop, ours = asyncio.get_running_loop(), socket.socket()
        ours.setblocking(False)
        if receive_buffer:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            ours.bind((source, 0))
            await loop.sock_connect(ours, ("127.0.0.1", self.port))
        except BaseException:
            ours.close()
            raise
        wire = Wire(*await asyncio.open_connection(sock=ours))
        self._wires.append(wire)
        return wire

    async def ask(self, sent: bytes, within: float = 20) -> Reply:
        """One request on a connection of its own."""
        wire = await self.connect()
        try:
            wire.send(sent)
            return await wire.reply(within)
        finally:
            wire.close()

    def signal(self, sign: int) -> None:
        self.process.send_signal(sign)

    async def ended(self, within: float = 20) -> int:
        """The exit status, once there is one."""
        return await asyncio.to_thread(self.process.wait, within)

    async def clean_up(self) -> None:
        """End the process and every connection to it."""
        if self.process.poll() is None:
            self.process.kill()
        await self.ended()
        for wire in self._wires:
            await wire.drop()

    async def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return await self.ended()

    def memory(self) -> int:
        """Resident memory in bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def processor_time(self) -> float:
        """Seconds of a core that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))
