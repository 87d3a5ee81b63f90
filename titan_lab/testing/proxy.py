"""A TCP proxy between a client and a server on this machine, which breaks connections on demand.

    client ──▶ Proxy ──▶ server      with Proxy(5432) as proxy: connect to 127.0.0.1:proxy.port

One thread moves the bytes of one connection in both directions and closes its sockets itself: a socket that
another thread closes while it is read from is not reset until the reader wakes up.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from typing import Literal

Side = Literal["client", "server"]

HERE = "127.0.0.1"
TICK = 0.01  # seconds until a change of mind is noticed
CHUNK = 65_536
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close sends RST instead of FIN


class Proxy:
    """Pass bytes to a port of this machine and back, or do not, as it is told while it runs."""

    def __init__(self, port: int) -> None:
        self._server = (HERE, port)
        self._listener = socket.create_server((HERE, 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0  # that were ever made
        self.cuts = 0  # connections that were reset after they had been let through
        self._closed = threading.Event()
        self._generation = 0  # `cut` ends the connections of earlier ones
        self._alive: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self.heal()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def heal(self) -> None:
        """Pass everything from now on; connections that live stay alive."""
        self._seconds = 0.0
        self._refusing = self._silent = False
        self._left: dict[Side, int] = {}
        self._text: bytes | None = None
        self._delivered = False

    def delay(self, seconds: float) -> None:
        """Hold every piece back for so long, both ways."""
        self._seconds = seconds

    def black_hole(self) -> None:
        """Pass nothing and close nothing: new connections are made, and then nothing is heard."""
        self._silent = True

    def refuse(self) -> None:
        """Reset every new connection; those that live stay alive."""
        self._refusing = True

    def cut(self) -> None:
        """Reset every connection that lives, at once; the next ones pass."""
        living = list(self._alive)
        self._generation += 1
        for thread in living:
            thread.join()

    def cut_after(self, size: int, of: Side = "server") -> None:
        """Let so many more bytes of one side pass, over all connections, and cut at the next one; once."""
        self._left = {of: size}

    def cut_at(self, text: bytes, *, delivered: bool) -> None:
        """Reset the connection on which a client sends this text in one piece; once.

        delivered: whether the server gets it, and acts on it, before the connection is cut: then only its
        answer is lost.
        """
        self._text, self._delivered = text, delivered

    def close(self) -> None:
        """Reset what lives and stop listening; a second time does nothing."""
        self._closed.set()
        self._accepting.join()
        for thread in list(self._alive):
            thread.join()
        self._listener.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ one thread accepts

    def _accept(self) -> None:
        while not self._closed.is_set():
            if not select.select([self._listener], [], [], TICK)[0]:
                continue
            client, _ = self._listener.accept()
            if self._refusing:
                _reset(client)
                continue
            self.connections += 1
            thread = threading.Thread(target=self._carry, args=(client, self._generation), daemon=True)
            self._alive.add(thread)
            thread.start()

    # ------------------------------------------------------------------ one thread for each connection

    def _carry(self, client: socket.socket, generation: int) -> None:
        gone = contextlib.suppress(OSError)  # where either side is gone, so is the other
        with client, gone, socket.create_connection(self._server, timeout=2) as server:
            server.settimeout(None)
            if self._pump(client, server, generation):
                with self._lock:
                    self.cuts += 1
                _reset(client)
                _reset(server)
        self._alive.discard(threading.current_thread())

    def _pump(self, client: socket.socket, server: socket.socket, generation: int) -> bool:
        """Move bytes until one side closes, or the connection is to be cut; tell whether it is."""
        other = {client: server, server: client}
        answer_is_lost = False
        while self._generation == generation and not self._closed.is_set():
            if self._silent:
                time.sleep(TICK)
                continue
            for one in select.select([client, server], [], [], TICK)[0]:
                data = one.recv(CHUNK)
                if not data:
                    return False
                time.sleep(self._seconds)
                if one is server and answer_is_lost:
                    return True
                if one is client and self._matches(data):
                    if not self._delivered:
                        return True
                    answer_is_lost = True
                allowed = self._allowed("client" if one is client else "server", len(data))
                other[one].sendall(data[:allowed])
                if allowed < len(data):
                    return True
        return True

    def _matches(self, data: bytes) -> bool:
        with self._lock:
            found = self._text is not None and self._text in data
            if found:
                self._text = None
        return found

    def _allowed(self, of: Side, size: int) -> int:
        with self._lock:
            if of not in self._left:
                return size
            allowed = min(size, self._left[of])
            self._left[of] -= allowed
            if allowed < size:
                del self._left[of]
        return allowed


def _reset(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    one.close()
