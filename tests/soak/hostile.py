"""Peers that no client would be: what they send is wrong, or stops, or is not read."""

from __future__ import annotations

import random
import select
import socket
import struct
import time

BIG = b"9" * 26


def connect(port: int, source: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(source, 0))


def head(method: str, path: str, token: str, size: object, kind: str = "application/json") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {size}\r\n\r\n"
    ).encode()


def drain(peer: socket.socket, seconds: float = 1.0) -> bytes:
    """What comes until the other side closes, or for a while."""
    got, end = b"", time.monotonic() + seconds
    while time.monotonic() < end and len(got) < 1 << 20:
        if not select.select([peer], [], [], 0.1)[0]:
            continue
        part = peer.recv(65536)
        if not part:
            break
        got += part
    return got


def garbage(peer: socket.socket, chance: random.Random, token: str, path: str, body: bytes) -> None:
    peer.sendall(chance.randbytes(chance.randint(1, 4000)))
    drain(peer)


def two_lengths(peer: socket.socket, chance: random.Random, token: str, path: str, body: bytes) -> None:
    whole = head("POST", path, token, len(body)) + body
    odd = chance.choice((b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Host: other", b"\x01: x")) + b"\r\n"
    peer.sendall(whole.replace(b"Host:", odd + b"Host:", 1))
    got = drain(peer)
    if got and not got.startswith(b"HTTP/1.1 4"):
        raise AssertionError(f"a head with {odd!r} was answered {got[:100]!r}")


def half_a_body(peer: socket.socket, chance: random.Random, token: str, path: str, body: bytes) -> None:
    peer.sendall(head("POST", path, token, len(body)) + body[: chance.randrange(len(body) + 1)])
    time.sleep(chance.random() * 0.05)


def half_a_head(peer: socket.socket, chance: random.Random, token: str, path: str, body: bytes) -> None:
    text = head("POST", path, token, len(body))
    peer.sendall(text[: chance.randrange(len(text))])
    time.sleep(chance.random() * 0.2)


def giant(peer: socket.socket, chance: random.Random, token: str, path: str, body: bytes) -> None:
    size = chance.choice((b"9223372036854775807", b"-1", b"0x10", b"1e3", b"1000000000", BIG)).decode()
    peer.sendall(head("POST", path, token, size) + body)
    got = drain(peer)
    if got and not got.startswith(b"HTTP/1.1 4") and not got.startswith(b"HTTP/1.1 503"):
        raise AssertionError(f"a length of {size} was answered {got[:100]!r}")


def deep(peer: socket.socket, chance: random.Random, token: str, path: str, body: bytes) -> None:
    text = chance.choice((b"[", b'{"a":', b'{"inputs":{"x":')) * chance.randint(10, 50000)
    peer.sendall(head("POST", path, token, len(text)) + text)
    drain(peer)


def unread(peer: socket.socket, chance: random.Random, token: str, path: str, body: bytes) -> None:
    """Many requests in one piece, and a reset in the place of reading their answers."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.sendall((head("POST", path, token, len(body)) + body) * chance.randint(1, 6))
    time.sleep(chance.random() * 0.02)


def half_closed(peer: socket.socket, chance: random.Random, token: str, path: str, body: bytes) -> None:
    peer.sendall(head("POST", path, token, len(body)) + body)
    peer.shutdown(socket.SHUT_WR)
    drain(peer)


def dripped(peer: socket.socket, chance: random.Random, token: str, path: str, body: bytes) -> None:
    whole = head("POST", path, token, len(body)) + body
    for i in range(min(len(whole), chance.randint(1, 60))):
        peer.sendall(whole[i : i + 1])
        time.sleep(0.02)


def chunked(peer: socket.socket, chance: random.Random, token: str, path: str, body: bytes) -> None:
    begin = head("POST", path, token, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    parts = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[i : i + 97] for i in range(0, len(body), 97)))
    cut = chance.choice((0, 0, chance.randrange(len(parts) + 1)))
    peer.sendall(begin + (parts[:cut] if cut else parts + b"0\r\n\r\n"))
    drain(peer, 0.5)


def mutated(peer: socket.socket, chance: random.Random, token: str, path: str, body: bytes) -> None:
    text = bytearray(body)
    for _ in range(chance.randint(1, 8)):
        if not text:
            break
        at = chance.randrange(len(text))
        way = chance.randrange(3)
        if way == 0:
            text[at] ^= 1 << chance.randrange(8)
        elif way == 1:
            del text[at : at + chance.randint(1, 20)]
        else:
            text[at:at] = text[at : at + chance.randint(1, 20)]
    kind = chance.choice(("application/json", "application/safetensors"))
    peer.sendall(head("POST", path, token, len(text), kind) + bytes(text))
    got = drain(peer, 0.3)
    if got[9:12] == b"500":
        raise AssertionError(f"{bytes(text)!r} to {path} was answered {got[:400]!r}")


def silent(peer: socket.socket, chance: random.Random, token: str, path: str, body: bytes) -> None:
    time.sleep(chance.random())


WAYS = (
    garbage, two_lengths, half_a_body, half_a_body, half_a_head, giant, deep, unread, unread, half_closed, dripped,
    chunked, mutated, mutated, mutated, mutated, silent,
)  # fmt: skip
