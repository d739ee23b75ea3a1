"""Strangers: large requests, other hosts, connections that say nothing."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import httpx
import pytest

from foveate.errors import FoveateError
from foveate.serve import listen, server
from foveate.serve.guard import Guard, room_for_body
from foveate.serve.reading import Reader
from serve.serving import byte_model, byte_tokenizer, make_engine, serving

JSON = {"Content-Type": "application/json"}


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["message"]


def test_ten_megabytes_are_refused_before_they_are_read(address: str) -> None:
    body = b'{"prompt":"' + b"x" * 10_000_000 + b'"}'
    status, message = refusal(httpx.post(f"{address}/v1/completions", content=body, headers=JSON))
    assert (status, message) == (413, "the request has 10,000,013 bytes or more; this server reads up to 1,048,576")


def test_so_are_those_that_come_in_pieces(address: str) -> None:
    def pieces() -> Any:
        yield b'{"prompt": "'
        for _ in range(40):
            yield b"x" * 100_000
        yield b'"}'

    try:
        answer = httpx.post(f"{address}/v1/completions", content=pieces(), headers=JSON)
        assert answer.status_code == 413
    except (httpx.WriteError, httpx.ReadError):  # the server has hung up on what is still being sent
        pass


def test_long_prompts_are_refused_by_their_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(byte_tokenizer(), vocabulary=258, context=64)
    monkeypatch.setattr("foveate.serve.reading.encode_prompt", lambda *given, **options: pytest.fail("it was encoded"))
    with pytest.raises(Exception, match="prompt has 100,000 characters; this server reads up to 64 tokens"):
        asyncio.run(reader.prompts("x" * 100_000))
    assert room_for_body(10) == 1 << 20
    assert room_for_body(1 << 30) == 1 << 25


def test_encoding_leaves_the_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a prompt is encoded, which waits here for the loop to go on, other requests are answered."""
    import threading

    answered = threading.Event()

    def encode(*given: Any, **options: Any) -> list[int]:
        assert answered.wait(20)
        return [1]

    monkeypatch.setattr("foveate.serve.reading.encode_prompt", encode)

    async def both(address: str) -> None:
        async with httpx.AsyncClient(base_url=address, timeout=30) as client:
            slow = asyncio.create_task(client.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}))
            while not slow.done() and (await client.get("/health")).status_code != 200:
                pass
            answered.set()
            assert (await slow).status_code == 200

    with serving(make_engine()) as address:
        asyncio.run(both(address))


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1", 200), ("127.0.0.1:99", 200), ("127.0.0.1.", 200), ("evil.example", 421), ("127.0.0.1.nip.io", 421)],
)
def test_other_hosts_are_refused(address: str, host: str, status: int) -> None:
    assert httpx.get(f"{address}/v1/models", headers={"Host": host}).status_code == status


def test_any_host_where_others_may_come() -> None:
    async def asked(headers: list[tuple[bytes, bytes]], hosts: tuple[str, ...]) -> int:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        guard = Guard(app, hosts=hosts, room=10)
        await guard({"type": "http", "method": "GET", "headers": headers}, None, send)
        return int(sent[0]["status"])

    assert asyncio.run(asked([(b"host", b"moon.example")], ())) == 200
    assert asyncio.run(asked([(b"host", b"[::1]:80")], ("::1",))) == 200
    assert asyncio.run(asked([], ("::1",))) == 421


def test_other_kinds_of_content_are_refused(address: str) -> None:
    """A page of another site can send text without being asked, and JSON not."""
    body = json.dumps({"prompt": "a"})
    answer = httpx.post(f"{address}/v1/completions", content=body, headers={"Content-Type": "text/plain"})
    assert refusal(answer) == (415, "the Content-Type is 'text/plain'; send application/json")


def raw(address: str, data: bytes) -> bytes:
    """What comes back until the server closes the connection."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(4096), b""))


@pytest.mark.parametrize("data", [b"", b"GET / HT", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET"])
def test_connections_that_say_nothing_are_closed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.05)
    with serving(make_engine(), keep_alive=1) as address:
        answer = raw(address, data)
    assert answer.startswith(b"HTTP/1.1 200") == (b"health" in data)


def test_requests_that_never_end_are_refused() -> None:
    with serving(make_engine(), seconds=0.05) as address:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        answer = raw(address, head + b"Content-Length: 50\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"was not whole after 0.05 s" in answer


def test_too_many_at_once_are_told_to_wait() -> None:
    engine = make_engine(byte_model(), batch=1, queue=1)
    engine.start = lambda: None  # type: ignore[method-assign]  # nobody is answered
    with serving(engine) as address:

        async def three() -> list[int]:
            async with httpx.AsyncClient(base_url=address, timeout=30) as client:
                asked = [asyncio.create_task(client.post("/v1/completions", json={"prompt": "a"})) for _ in range(3)]
                while sum(task.done() for task in asked) < 2:
                    await asyncio.wait([task for task in asked if not task.done()], return_when="FIRST_COMPLETED")
                for task in asked:
                    task.cancel()
                return [task.result().status_code for task in asked if task.done()]

        assert asyncio.run(three()) == [429, 429]


@pytest.mark.parametrize("port", [99999, -1, 65536])
def test_ports_that_are_none(port: int) -> None:
    with pytest.raises(FoveateError, match=f"--port: {port} is not a port"):
        listen("127.0.0.1", port)


def test_an_address_that_is_taken_is_a_line() -> None:
    with listen("127.0.0.1", 0) as bound:
        bound.listen()
        with pytest.raises(FoveateError, match=r"cannot listen on 127.0.0.1 port \d+: Address already in use"):
            listen("127.0.0.1", bound.getsockname()[1])
