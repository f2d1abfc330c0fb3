"""Clients that speak HTTP byte by byte, for what no library would send."""

import contextlib
import json
import socket
import time

import httpx

RESPONSE_BYTES = 2**20


def connect(port: int, *, receive_buffer: int = 0) -> socket.socket:
    client = socket.socket()
    client.settimeout(30)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", port))
    return client


def post(path: str, body: bytes | dict, *headers: str, framing: str | None = None) -> bytes:
    """A request. `framing`: in place of the Content-Length that is right."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    length = f"Content-Length: {len(data)}" if framing is None else framing
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers, *filter(None, [length])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def read_all(client: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while len(answer) < RESPONSE_BYTES and (data := client.recv(65536)):
            answer += data
    return answer


def ask(port: int, data: bytes, *, half_close: bool = False) -> bytes:
    """The bytes that answer these bytes, till the server closes the connection."""
    with connect(port) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(data)
            if half_close:
                client.shutdown(socket.SHUT_WR)
        return read_all(client)


def parsed(answer: bytes) -> httpx.Response:
    """The first response in it."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    return httpx.Response(int(status.split()[1]), headers=[tuple(line.split(b": ", 1)) for line in headers], content=body)


def closed_within(client: socket.socket, seconds: float) -> bytes | None:
    """What came until the server closed the connection; None where it did not in time."""
    give_up, answer = time.monotonic() + seconds, b""
    while (left := give_up - time.monotonic()) > 0:
        client.settimeout(left)
        try:
            data = client.recv(65536)
        except TimeoutError:
            return None
        except ConnectionResetError:
            return answer
        if not data:
            return answer
        answer += data
    return None
