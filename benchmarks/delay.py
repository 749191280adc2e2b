"""A network in between: a TCP door to a server's socket that lets every byte wait.

What arrives is handed on so many seconds later, in its order, however much follows: latency,
not bandwidth.  It runs in a separate process, so that only its own work is measured.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

__all__ = ["delayed"]

_BLOCK = 1 << 18


@contextmanager
def delayed(server: Path | tuple[str, int], seconds: float) -> Iterator[int]:
    """A port of this machine that leads to ``server``, ``seconds`` in each direction.

    The server is a socket, or a host and a port.
    """
    ours, theirs = multiprocessing.Pipe()
    door = multiprocessing.Process(target=_serve, args=(server, seconds, theirs), daemon=True)
    door.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        door.terminate()
        door.join()


def _serve(server: Path | tuple[str, int], seconds: float, parent: Connection) -> None:
    asyncio.run(_open(server, seconds, parent))


async def _open(server: Path | tuple[str, int], seconds: float, parent: Connection) -> None:
    async def meet(client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        server_in, server_out = (
            await asyncio.open_connection(*server)
            if isinstance(server, tuple)
            else await asyncio.open_unix_connection(os.fspath(server))
        )
        await asyncio.gather(
            _carry(client_in, server_out, seconds), _carry(server_in, client_out, seconds)
        )

    listener = await asyncio.start_server(meet, "127.0.0.1", 0)
    parent.send(listener.sockets[0].getsockname()[1])
    await listener.serve_forever()


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter, seconds: float) -> None:
    clock = asyncio.get_running_loop()
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def take() -> None:
        data = b"-"
        while data:
            try:
                data = await source.read(_BLOCK)
            except ConnectionError:
                data = b""
            await waiting.put((clock.time() + seconds, data))

    taking = asyncio.create_task(take())
    try:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(due - clock.time())
            if not data:
                break
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass  # whoever is left reads the end
    finally:
        sink.close()
        await taking
