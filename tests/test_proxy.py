"""The proxy that breaks connections, against a server that echoes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from titan_lab.testing.proxy import HERE, Proxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Stand before a server that sends back what it gets, and keeps it."""
    with socket.create_server((HERE, 0)) as listener:
        threading.Thread(target=_serve, args=(listener,), daemon=True).start()
        with Proxy(listener.getsockname()[1]) as made:
            yield made
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts


heard: list[bytes] = []


def _serve(listener: socket.socket) -> None:
    heard.clear()
    while True:
        try:
            one, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(one,), daemon=True).start()


def _echo(one: socket.socket) -> None:
    with one:
        try:
            while data := one.recv(65_536):
                heard.append(data)
                one.sendall(data)
        except OSError:
            return


def client(proxy: Proxy) -> socket.socket:
    return socket.create_connection((HERE, proxy.port), timeout=5)


def said(one: socket.socket, text: bytes) -> bytes:
    one.sendall(text)
    return one.recv(100)


def test_bytes_pass_both_ways(proxy: Proxy) -> None:
    """Unless it is told otherwise; a client that closes is no cut."""
    with client(proxy) as one:
        assert said(one, b"hello") == b"hello"
    with client(proxy) as one:
        assert said(one, b"again") == b"again"
    assert (proxy.connections, proxy.cuts) == (2, 0)


def test_a_delay_holds_bytes_back(proxy: Proxy) -> None:
    """Both ways, so that an answer takes twice as long."""
    proxy.delay(0.05)
    with client(proxy) as one:
        before = time.monotonic()
        assert said(one, b"hello") == b"hello"
        assert time.monotonic() - before >= 0.1


def test_a_black_hole_says_nothing_and_closes_nothing(proxy: Proxy) -> None:
    """A client finds out only by its own patience; what it sent arrives once the proxy heals."""
    with client(proxy) as one:
        assert said(one, b"hello") == b"hello"
        proxy.black_hole()
        one.settimeout(0.1)
        with pytest.raises(TimeoutError):
            said(one, b"anybody?")
        proxy.heal()
        one.settimeout(5)
        assert one.recv(100) == b"anybody?"


def test_a_connection_that_is_refused_is_reset(proxy: Proxy) -> None:
    """New ones only."""
    with client(proxy) as old:
        assert said(old, b"hello") == b"hello"
        proxy.refuse()
        with pytest.raises(ConnectionResetError), client(proxy) as new:
            new.recv(100)
        assert said(old, b"still here") == b"still here"


def test_a_cut_resets_what_lives_and_lets_the_next_one_in(proxy: Proxy) -> None:
    """As a switch that restarts would."""
    with client(proxy) as one:
        assert said(one, b"hello") == b"hello"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            one.recv(100)
    with client(proxy) as one:
        assert said(one, b"hello") == b"hello"
    assert proxy.cuts == 1


def test_a_cut_after_so_many_bytes_lets_exactly_these_through(proxy: Proxy) -> None:
    """Of what the server sends; the connection after it passes."""
    proxy.cut_after(7)
    with client(proxy) as one:
        assert said(one, b"hello") == b"hello"
        assert said(one, b"hello") == b"he"
        with pytest.raises(ConnectionResetError):
            one.recv(100)
    with client(proxy) as one:
        assert said(one, b"hello again") == b"hello again"


def test_a_cut_after_bytes_of_the_client_loses_the_rest_of_its_text(proxy: Proxy) -> None:
    """The server gets the beginning."""
    proxy.cut_after(7, of="client")
    with client(proxy) as one:
        assert said(one, b"hello") == b"hello"
        with pytest.raises(ConnectionResetError):
            said(one, b"hello")
    deadline = time.monotonic() + 5
    while b"".join(heard) != b"hellohe":
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("delivered", [False, True])
def test_a_cut_at_a_text_loses_the_text_or_only_its_answer(proxy: Proxy, delivered: bool) -> None:
    """Which is the difference between an append that did not happen and one that nobody heard of."""
    proxy.cut_at(b"COMMIT", delivered=delivered)
    with client(proxy) as one:
        assert said(one, b"INSERT") == b"INSERT"
        with pytest.raises(ConnectionResetError):
            said(one, b"COMMIT")
    assert heard == [b"INSERT", b"COMMIT"][: 1 + delivered]


def test_a_server_that_is_down_closes_the_client(proxy: Proxy) -> None:
    """Nothing is left open behind it."""
    with socket.socket() as free:
        free.bind((HERE, 0))
        nobody = free.getsockname()[1]
    with Proxy(nobody) as other, client(other) as one:
        assert one.recv(100) == b""
