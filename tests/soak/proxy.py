"""A TCP proxy that breaks what it carries, as a program: python proxy.py UPSTREAM_PORT SEED

Prints the port it listens on. Most connections pass unharmed; the others meet one fault, drawn from the
seed, at a moment drawn from it as well. Ends when its standard input does.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
from anyio.abc import SocketAttribute, SocketStream

HARM = 0.06
"""The chance of a fault, per message of the server."""

CHUNK = 65536
GONE = (OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


class BrokenError(Exception):
    """The connection is over."""


async def reset(client: SocketStream, data: bytes, chance: random.Random) -> None:
    raw = client.extra(SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise BrokenError


async def cut_off(client: SocketStream, data: bytes, chance: random.Random) -> None:
    await client.send(data[: chance.randrange(len(data) + 1)])
    raise BrokenError


async def stall(client: SocketStream, data: bytes, chance: random.Random) -> None:
    await anyio.sleep(chance.uniform(0.5, 8))
    await client.send(data)


async def drip(client: SocketStream, data: bytes, chance: random.Random) -> None:
    for start in range(min(len(data), 200)):
        await client.send(data[start : start + 1])
        await anyio.sleep(0.005)
    await client.send(data[200:])


async def garbage(client: SocketStream, data: bytes, chance: random.Random) -> None:
    await client.send(chance.randbytes(200))
    raise BrokenError


async def status(client: SocketStream, data: bytes, chance: random.Random) -> None:
    code = chance.choice((400, 401, 404, 429, 500, 502, 503))
    await client.send(b"HTTP/1.1 %d No\r\ncontent-length: 4\r\n\r\nsoak" % code)
    raise BrokenError


async def nonsense(client: SocketStream, data: bytes, chance: random.Random) -> None:
    body = chance.choice((b"", b"{}", b"[]", b'{"jsonrpc":"2.0","id":null,"result":{}}', b"\xff{"))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    await client.send(head % len(body) + body)
    raise BrokenError


Fault = Callable[[SocketStream, bytes, random.Random], Awaitable[None]]
FAULTS: tuple[Fault, ...] = (reset, cut_off, stall, drip, garbage, status, nonsense)


async def main(upstream_port: int, seed: int) -> None:
    chance = random.Random(seed)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)

    async def carry(client: SocketStream) -> None:
        with suppress(*GONE):
            async with client:
                server = await anyio.connect_tcp("127.0.0.1", upstream_port)
                async with server, anyio.create_task_group() as tg:
                    tg.start_soon(upwards, client, server, tg.cancel_scope)
                    with suppress(BrokenError, *GONE):
                        while True:
                            data = await server.receive(CHUNK)
                            if chance.random() < HARM:
                                await chance.choice(FAULTS)(client, data, chance)
                            else:
                                await client.send(data)
                    tg.cancel_scope.cancel()

    async def upwards(client: SocketStream, server: SocketStream, scope: anyio.CancelScope) -> None:
        with suppress(*GONE):
            while True:
                await server.send(await client.receive(CHUNK))
        scope.cancel()

    async def end_with_input(scope: anyio.CancelScope) -> None:
        await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        scope.cancel()

    async with anyio.create_task_group() as tg, listener:
        tg.start_soon(end_with_input, tg.cancel_scope)
        print(listener.extra(SocketAttribute.local_port), flush=True)
        await listener.serve(carry, tg)


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]), int(sys.argv[2]))
