"""The webhook listener and the web caller over real sockets: tokens, bounds, floods and slow senders."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from app.errors import ConfigError, LinkError, LinkReason, RemoteProtocolError
from app.model.interaction import Direction
from app.transports.webhook import WebCaller, WebhookEvent, WebhookListener
from tests.doubles.lem_double import CLOSE, HANG, Reply, http_double, make_certificate, ok

TOKEN = "a-long-random-webhook-token"
BEARER = f"Authorization: Bearer {TOKEN}\r\n"


@dataclass
class Post:
    """A raw client that keeps its connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(
        self, body: bytes = b"{}", *, head: str = BEARER, target: str = "/?event=up", method: str = "POST"
    ) -> int:
        self.write(body, head=head, target=target, method=method)
        return await self.status()

    def write(self, body: bytes, *, head: str = BEARER, target: str = "/?event=up", method: str = "POST") -> None:
        text = f"{method} {target} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n"
        self.writer.write(text.encode() + body)

    async def status(self) -> int:
        """The status of the next answer; its body is read away. 0: the connection ended."""
        async with asyncio.timeout(5):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return 0
            lines = head.decode().lower().split("\r\n")
            length = next((int(line.partition(":")[2]) for line in lines if line.startswith("content-length")), 0)
            await self.reader.readexactly(length)
        return int(lines[0].split()[1])

    async def ended(self) -> bool:
        async with asyncio.timeout(5):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True


@dataclass
class Ear:
    listener: WebhookListener
    events: list[WebhookEvent] = field(default_factory=list)

    @asynccontextmanager
    async def post(self) -> AsyncIterator[Post]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.port)
        try:
            yield Post(reader, writer)
        finally:
            writer.transport.abort()

    async def once(self, body: bytes = b"{}", **more: Any) -> int:
        async with self.post() as post:
            return await post.send(body, **more)


@asynccontextmanager
async def listening(*, takes: bool = True, **more: Any) -> AsyncIterator[Ear]:
    events: list[WebhookEvent] = []

    def take(event: WebhookEvent) -> bool:
        events.append(event)
        return takes

    listener = WebhookListener("127.0.0.1", 0, TOKEN, on_event=take, **more)
    async with listener.open():
        yield Ear(listener, events)
    assert listener.port == 0


# ---------------------------------------------------------------- who may speak


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("", 401),
        ("Authorization: Basic abc\r\n", 401),
        ("Authorization: Bearer\r\n", 401),
        ("Authorization: Bearer wrong\r\n", 403),
        ("X-Meterwright-Token: wrong\r\n", 403),
        (f"X-Meterwright-Token: {TOKEN}x\r\n", 403),
        (BEARER, 204),
        (f"authorization: bearer {TOKEN}\r\n", 204),
        (f"X-Meterwright-Token: {TOKEN}\r\n", 204),
    ],
)
async def test_only_a_sender_with_the_token_is_heard(head: str, status: int) -> None:
    async with listening() as ear:
        assert await ear.once(b'{"a": 1.5}', head=head) == status
        assert len(ear.events) == (1 if status == 204 else 0), "nothing of a stranger is recorded"


@pytest.mark.parametrize("head", ["", "X-Meterwright-Token: wrong\r\n"])
async def test_nothing_of_a_stranger_is_kept_or_logged(head: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with listening() as ear:
        body = b'{"words": "of a stranger"}' + b" " * (1 << 20)
        assert await ear.once(body, head=head) in (401, 403), "decided by the head, whatever the body"
        assert ear.events == []
        assert ear.listener.counts.total() == 1
    assert "stranger" not in caplog.text
    assert TOKEN not in caplog.text


async def test_one_right_token_does_not_outweigh_a_wrong_one() -> None:
    async with listening() as ear:
        assert await ear.once(head=f"X-Meterwright-Token: wrong\r\n{BEARER}") == 403
        assert await ear.once(head=f"Authorization: Bearer wrong\r\nX-Meterwright-Token: {TOKEN}\r\n") == 204


async def test_an_event_arrives_with_its_kind_its_exact_numbers_and_its_bytes() -> None:
    async with listening() as ear, ear.post() as post:
        assert await post.send(b'{"snr": 10.5}', target="/hook?event=txack&x=1") == 204
        assert await post.send(b"[1]", target="/") == 204, "one connection takes many events"
        first, second = ear.events
        assert (first.kind, first.body, first.data) == ("txack", {"snr": Decimal("10.5")}, b'{"snr": 10.5}')
        assert (second.kind, second.body) == ("", [1])
        assert "snr" not in repr(first)


async def test_a_listener_without_a_token_is_not_opened() -> None:
    with pytest.raises(ConfigError, match="webhook_token"):
        WebhookListener("127.0.0.1", 0, "", on_event=lambda _event: True)


async def test_a_port_in_use_is_said_in_words() -> None:
    async with listening() as ear:
        other = WebhookListener("127.0.0.1", ear.listener.port, TOKEN, on_event=lambda _event: True)
        with pytest.raises(LinkError, match="Choose another port") as caught:
            async with other.open():
                raise AssertionError
        assert caught.value.reason is LinkReason.BUSY


async def test_an_error_of_the_body_passes_the_listener_unwrapped() -> None:
    with pytest.raises(LinkError, match="broke"):
        async with listening():
            raise LinkError("it broke", LinkReason.BROKEN)


# ---------------------------------------------------------------- what may be said


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"NaN", b"[" * 100_000, b"1" * 10_000, b'{"a":1}{"a":1}'],
    ids=["empty", "cut", "no text", "nan", "deep", "long number", "two"],
)
async def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    async with listening() as ear:
        assert await ear.once(body) == 400
        assert ear.events == []


async def test_other_methods_are_refused() -> None:
    async with listening() as ear:
        assert await ear.once(b"", method="GET") == 405
        assert await ear.once(b"", method="HEAD") == 405
        assert await ear.once(b"{}") == 204, "the listener lives"


async def test_a_mebibyte_is_taken_and_one_byte_more_is_not() -> None:
    fits = b'"' + b"x" * ((1 << 20) - 2) + b'"'
    async with listening() as ear:
        assert await ear.once(fits) == 204
        assert await ear.once(fits + b" ") == 413
        assert len(ear.events) == 1


async def test_a_body_of_unknown_length_is_cut_at_the_bound() -> None:
    async with listening(max_body=1000) as ear, ear.post() as post:
        head = f"POST / HTTP/1.1\r\nHost: x\r\n{BEARER}Transfer-Encoding: chunked\r\n\r\n"
        post.writer.write(head.encode() + b"258\r\n" + b"x" * 600 + b"\r\n258\r\n" + b"x" * 600 + b"\r\n")
        assert await post.status() == 413
        assert ear.events == []


async def test_a_huge_head_and_garbage_end_the_connection() -> None:
    async with listening() as ear:
        async with ear.post() as post:
            post.writer.write(b"POST / HTTP/1.1\r\nX: " + b"a" * 40_000)
            assert await post.status() in (400, 431)
        async with ear.post() as post:
            post.writer.write(b"\x16\x03\x01 not http\r\n\r\n")
            assert await post.status() == 400
        assert await ear.once() == 204


async def test_the_sender_is_told_when_the_event_cannot_be_taken() -> None:
    async with listening(takes=False) as ear:
        assert await ear.once() == 503


async def test_a_sender_that_asks_first_is_told_to_go_on() -> None:
    async with listening() as ear, ear.post() as post:
        post.writer.write(
            f"POST / HTTP/1.1\r\nHost: x\r\n{BEARER}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n".encode()
        )
        assert await post.status() == 100
        post.writer.write(b"{}")
        assert await post.status() == 204


# ---------------------------------------------------------------- floods and slow senders


async def test_a_flood_stays_bounded() -> None:
    async with listening(max_per_s=100) as ear, ear.post() as post:
        begun = time.monotonic()
        answers = []
        for _batch in range(10):
            for _number in range(100):
                post.write(b'{"flood": true}')
            answers += [await post.status() for _number in range(100)]
        took = time.monotonic() - begun
        assert set(answers) == {204, 429}
        assert len(ear.events) == answers.count(204) <= 100 * (1 + took) + 1
        assert ear.listener.counts["too_fast"] == answers.count(429)
        assert ear.listener.most_connections == 1


async def test_a_thousand_events_in_a_second_are_bounded_and_the_next_second_is_normal() -> None:
    async with listening() as ear, ear.post() as post:
        begun = time.monotonic()
        for number in range(1000):
            post.write(b'{"number": %d}' % number)
        answers = [await post.status() for _number in range(1000)]
        took = time.monotonic() - begun
        assert set(answers) <= {204, 429}
        assert len(ear.events) == answers.count(204) <= 500 * (1 + took) + 1
        assert [event.body["number"] for event in ear.events[:500]] == list(range(500)), "the first ones, in order"
    async with listening(max_per_s=100) as ear, ear.post() as post:
        for _number in range(200):
            post.write(b"{}")
        assert 429 in [await post.status() for _number in range(200)]
        async with asyncio.timeout(2):
            while await post.send() != 204:
                pass


async def test_many_connections_push_out_strangers_and_never_a_known_sender() -> None:
    async with listening(max_connections=8) as ear, ear.post() as known:
        assert await known.send() == 204
        strangers = [await asyncio.open_connection("127.0.0.1", ear.listener.port) for _number in range(40)]
        try:
            assert await known.send() == 204, "the known sender keeps its place"
            assert await ear.once() == 204, "a newcomer finds one"
            assert ear.listener.most_connections <= 8 + 1
            assert ear.listener.counts["evicted"] >= 30
        finally:
            for _reader, writer in strangers:
                writer.transport.abort()


async def test_known_senders_alone_do_not_exceed_the_bound() -> None:
    async with listening(max_connections=2) as ear, ear.post() as first, ear.post() as second:
        assert [await first.send(), await second.send()] == [204, 204]
        async with ear.post() as third:
            assert await third.ended()
        assert ear.listener.counts["crowded"] == 1


@pytest.mark.parametrize(
    "part", [b"POST / HT", f"POST / HTTP/1.1\r\nHost: x\r\n{BEARER}Content-Length: 999\r\n\r\n{{".encode()]
)
async def test_a_slow_sender_is_cut_off_however_often_it_sends_a_byte(part: bytes) -> None:
    async with listening(request_s=0.3) as ear, ear.post() as post:
        begun = time.monotonic()
        post.writer.write(part)
        status: asyncio.Task[int] | None = None
        async with asyncio.TaskGroup() as group:
            status = group.create_task(post.status())
            while not status.done():
                post.writer.write(b" ")
                await asyncio.wait([status], timeout=0.02)
        assert status.result() == 408
        assert time.monotonic() - begun < 2
        assert ear.events == []


async def test_a_silent_connection_ends_by_itself() -> None:
    async with listening(request_s=0.1, idle_s=0.1) as ear:
        async with ear.post() as post:
            assert await post.ended()
        async with ear.post() as post:
            assert await post.send() == 204
            assert await post.ended()


async def test_closing_ends_open_connections_at_once() -> None:
    begun = time.monotonic()
    async with listening() as ear:
        reader, writer = await asyncio.open_connection("127.0.0.1", ear.listener.port)
        writer.write(b"POST / HTTP/1.1\r\n")
        await writer.drain()
    async with asyncio.timeout(2):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    writer.transport.abort()
    assert time.monotonic() - begun < 2


# ---------------------------------------------------------------- the caller


async def test_a_call_crosses_unchanged_and_is_shown_without_its_secrets() -> None:
    shown: list[bytes] = []

    def tap(direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        shown.append(data)

    async with http_double() as double:
        double.on("POST", "/base/api/x?y=1", ok({"echo": "pa55word"}, 201))
        web = WebCaller(f"http://127.0.0.1:{double.port}/base/")
        reply = await web.call(
            "POST", "/api/x?y=1", b'{"p":"pa55word"}', headers={"Authorization": "Bearer s3cret"}, tap=tap,
            hide=lambda text: text.replace("pa55word", "***"),
        )  # fmt: skip
        await web.close()
        assert (reply.status, json.loads(reply.body)) == (201, {"echo": "pa55word"})
        seen = double.requests[0]
        assert (seen.target, seen.json) == ("/base/api/x?y=1", {"p": "pa55word"})
        assert seen.headers["authorization"] == "Bearer s3cret"
        together = b"".join(shown)
        assert len(shown) == 2
        assert b"s3cret" not in together
        assert b"pa55word" not in together
        assert b"[redacted]" in together


async def test_calls_run_side_by_side() -> None:
    async with http_double() as double:
        double.on("GET", "/x", Reply(200, b"{}", delay_s=0.1))
        web = WebCaller(f"http://127.0.0.1:{double.port}")
        async with asyncio.TaskGroup() as group:
            for _number in range(5):
                group.create_task(web.call("GET", "/x"))
        await web.close()
        assert double.most_active == 5


async def test_failures_of_the_wire_have_their_classes() -> None:
    async with http_double() as double:
        double.on("GET", "/close", CLOSE)
        double.on("GET", "/hang", HANG)
        double.on("GET", "/big", Reply(200, b"x" * 2000))
        web = WebCaller(f"http://127.0.0.1:{double.port}", timeout_s=0.3, max_body=1000)
        with pytest.raises(LinkError) as broken:
            await web.call("GET", "/close")
        with pytest.raises(LinkError) as silent:
            await web.call("GET", "/hang")
        with pytest.raises(RemoteProtocolError, match="more than"):
            await web.call("GET", "/big")
        await web.close()
        assert (broken.value.reason, broken.value.may_have_arrived) == (LinkReason.CLOSED, True)
        assert (silent.value.reason, silent.value.may_have_arrived) == (LinkReason.SILENT, True)
        port = double.port
    web = WebCaller(f"http://127.0.0.1:{port}")
    with pytest.raises(LinkError) as refused:
        await web.call("GET", "/x")
    await web.close()
    assert (refused.value.reason, refused.value.may_have_arrived) == (LinkReason.REFUSED, False)
    with pytest.raises(LinkError) as closed:
        await web.call("GET", "/x")
    assert (closed.value.reason, closed.value.may_have_arrived) == (LinkReason.CLOSED, False)


async def test_closing_ends_a_call_at_once() -> None:
    async with http_double() as double:
        double.on("GET", "/hang", HANG)
        web = WebCaller(f"http://127.0.0.1:{double.port}", timeout_s=60)
        async with asyncio.TaskGroup() as group:
            call = group.create_task(_reason(web))
            await double.wait_for(lambda: bool(double.requests))
            begun = time.monotonic()
            await web.close()
        assert call.result() is LinkReason.CLOSED
        assert time.monotonic() - begun < 1


async def _reason(web: WebCaller) -> LinkReason | None:
    try:
        await web.call("GET", "/hang")
    except LinkError as exc:
        return exc.reason
    return None


async def test_a_server_with_an_unknown_certificate_is_not_trusted() -> None:
    certificate = make_certificate("web", bits=2048)
    async with http_double(certificate.context()) as double:
        web = WebCaller(f"https://127.0.0.1:{double.port}")
        with pytest.raises(LinkError) as caught:
            await web.call("GET", "/x")
        await web.close()
        assert (caught.value.reason, caught.value.may_have_arrived) == (LinkReason.TLS, False)
        assert double.requests == []


@pytest.mark.parametrize("text", ["", "ftp://x", "http://", "http://user:pw@host", "http://host?x=1", "no address"])
async def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        WebCaller(text)


async def test_a_name_that_nobody_knows_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_arguments: Any, **_more: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    web = WebCaller("http://nobody.invalid")
    with pytest.raises(LinkError, match=r"nobody\.invalid") as caught:
        await web.call("GET", "/x")
    await web.close()
    assert (caught.value.reason, caught.value.may_have_arrived) == (LinkReason.UNREACHABLE, False)
