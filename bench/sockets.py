"""A small WebSocket client for load: a thousand sockets in one process, cheap enough to hold them.

It takes text messages as they come, answers pings, and does nothing else of the protocol.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.load import Server

Told = Callable[[bytes, float], None]
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


class Socket(asyncio.Protocol):
    """One socket; `told` gets each text message and when it came (perf_counter)."""

    def __init__(self, told: Told) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: int | None = None
        self.messages = 0
        self._told = told
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, _exc: Exception | None) -> None:
        self.closed = self.closed or 1006
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("the socket was not opened"))

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._data += data
        if not self.opened.done():
            head, found, rest = self._data.partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head.split(b"\r\n", 1)[0]:
                self.opened.set_exception(ConnectionError(head[:80].decode()))
                return
            self._data = rest
            self.opened.set_result(None)
        while (frame := self._frame()) is not None:
            opcode, payload = frame
            if opcode == _TEXT:
                self.messages += 1
                self._told(payload, now)
            elif opcode == _PING:
                self._write(_PONG, payload)
            elif opcode == _CLOSE:
                self.closed = struct.unpack("!H", payload[:2])[0] if payload else 1005

    def _frame(self) -> tuple[int, bytes] | None:
        data = self._data
        if len(data) < 2:
            return None
        size, start = data[1] & 127, 2
        if size == 126:
            start = 4
            size = struct.unpack("!H", data[2:4])[0] if len(data) >= 4 else 1 << 62
        elif size == 127:
            start = 10
            size = struct.unpack("!Q", data[2:10])[0] if len(data) >= 10 else 1 << 62
        if len(data) < start + size:
            return None
        self._data = data[start + size :]
        return data[0] & 15, data[start : start + size]

    def say(self, message: object) -> None:
        """Send JSON."""
        self._write(_TEXT, json.dumps(message).encode())

    def _write(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)
        size = len(payload)
        length = bytes([128 | size]) if size < 126 else bytes([254]) + struct.pack("!H", size)
        masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
        assert self._transport is not None
        self._transport.write(bytes([128 | opcode]) + length + mask + masked)

    def leave(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()


async def open_socket(port: int, path: str, told: Told) -> Socket:
    """Open a socket on loopback."""
    loop = asyncio.get_running_loop()
    transport, socket = await loop.create_connection(lambda: Socket(told), "127.0.0.1", port)
    key = base64.b64encode(os.urandom(16)).decode()
    transport.write(
        f"GET {path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    await socket.opened
    return socket


async def open_live(
    server: Server, subscriptions: Sequence[object], told: Callable[[int], Told], at_once: int = 32
) -> list[Socket]:
    """Open a live socket for each subscription; returns when each has been answered."""
    gate = asyncio.Semaphore(at_once)

    async def open_one(number: int, subscribe: object) -> Socket:
        async with gate:
            ticket = await _ticket(server)
            answered = asyncio.Event()
            tell = told(number)

            def first(payload: bytes, at: float) -> None:
                answered.set()
                tell(payload, at)

            socket = await open_socket(server.port, "/v1/live", first)
            socket.say({"ticket": ticket, "subscribe": subscribe})
            await asyncio.wait_for(answered.wait(), 60)
            return socket

    return await asyncio.gather(*[open_one(n, one) for n, one in enumerate(subscriptions)])


async def _ticket(server: Server) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(server.post("/v1/live/tickets", b""))
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        body = json.loads(await reader.readexactly(size))
    finally:
        writer.close()
    ticket: str = body["ticket"]
    return ticket
