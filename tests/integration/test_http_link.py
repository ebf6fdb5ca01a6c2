"""The HTTP link over real sockets: TLS table, limits, deadlines (specs/lem-dcbm.md sections 1, 4 and 10)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from app.errors import ConfigError, LinkError, LinkReason, RemoteProtocolError
from app.model.interaction import Direction
from app.transports.http_link import HttpLink
from app.transports.tls_trust import PinnedTls, pinned_context
from tests.doubles.lem_double import (
    CLOSE,
    HANG,
    RESET,
    HttpDouble,
    Reply,
    ServerCertificate,
    http_double,
    make_certificate,
    ok,
    reset,
)


class Taps:
    """What the link showed."""

    def __init__(self) -> None:
        self.shown: list[tuple[Direction, bytes, str, str]] = []

    def __call__(self, direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        self.shown.append((direction, data, note, link))

    def of(self, direction: Direction) -> list[bytes]:
        return [data for way, data, _note, _link in self.shown if way is direction]


@asynccontextmanager
async def linked(
    double: HttpDouble,
    certificate: ServerCertificate | None = None,
    *,
    timeout_s: float = 5.0,
    taps: Taps | None = None,
    max_body: int = 1 << 20,
    local_address: str = "",
) -> AsyncIterator[HttpLink]:
    pin = PinnedTls.from_der(certificate.der) if certificate is not None else None
    link = HttpLink(
        "127.0.0.1",
        double.port,
        tls=pin,
        timeout_s=timeout_s,
        tap=taps,
        max_body=max_body,
        local_address=local_address,
    )
    try:
        yield link
    finally:
        await link.close()


# ---------------------------------------------------------------- requests as the meter wants them


async def test_request_and_answer_cross_unchanged_and_are_shown_to_the_tap() -> None:
    taps = Taps()
    async with http_double() as double, linked(double, taps=taps) as link:
        double.on("PUT", "/v1/legal", Reply(403, b'{"no": 1}', headers=(("X-Meter", "a"),)))
        reply = await link.request("PUT", "/v1/legal?transactionId=a%20b%2F%C3%A4", b'{"running":false}')
        assert (reply.status, reply.body) == (403, b'{"no": 1}')
        assert ("X-Meter", "a") in reply.headers
        seen = double.requests[0]
        assert seen.target == "/v1/legal?transactionId=a%20b%2F%C3%A4"
        assert seen.headers["content-type"] == "application/json"
        assert seen.headers["connection"] == "close"
        assert seen.headers["accept-encoding"] == "identity"
        (out,), (back,) = taps.of(Direction.OUT), taps.of(Direction.IN)
        assert out.startswith(b"PUT /v1/legal?transactionId=a%20b%2F%C3%A4 HTTP/1.1\r\nHost: 127.0.0.1")
        assert out.endswith(b'\r\n\r\n{"running":false}')
        assert back.startswith(b"HTTP/1.1 403")
        assert back.endswith(b'\r\n\r\n{"no": 1}')
        assert taps.shown[0][3] == f"http 127.0.0.1:{double.port}"


async def test_get_carries_the_json_type_and_each_request_its_own_connection() -> None:
    async with http_double() as double, linked(double) as link:
        double.on("GET", "/v1/status", ok({}))
        await link.request("GET", "/v1/status")
        await link.request("GET", "/v1/status")
        assert [seen.headers["content-type"] for seen in double.requests] == ["application/json"] * 2
        assert double.connections == 2


async def test_redirects_are_not_followed_and_cookies_not_kept() -> None:
    async with http_double() as double, linked(double) as link:
        double.on("GET", "/v1/status", Reply(302, b"", headers=(("Location", "/elsewhere"), ("Set-Cookie", "a=b"))))
        assert (await link.request("GET", "/v1/status")).status == 302
        await link.request("GET", "/v1/status")
        assert double.lines() == ["GET /v1/status"] * 2
        assert all("cookie" not in seen.headers for seen in double.requests)


async def test_environment_proxies_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with http_double() as double, linked(double) as link:
        double.on("GET", "/v1/status", ok({}))
        assert (await link.request("GET", "/v1/status")).status == 200


async def test_only_one_request_is_in_flight() -> None:
    async with http_double() as double, linked(double) as link:
        double.on("GET", "/v1/status", Reply(200, b"{}", delay_s=0.02))
        await asyncio.gather(*(link.request("GET", "/v1/status") for _ in range(5)))
        assert double.most_active == 1


async def test_nothing_is_logged_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    async with http_double() as double, linked(double) as link:
        with caplog.at_level("DEBUG"):
            await link.request("GET", "/v1/ocmf?transactionId=secret-tx")
        assert [record for record in caplog.records if record.levelname != "DEBUG"] == []


# ---------------------------------------------------------------- limits


async def test_large_announced_body_is_refused_without_reading() -> None:
    async def huge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
        await writer.drain()
        await reader.read()

    taps = Taps()
    async with http_double() as double, linked(double, taps=taps) as link:
        double.raw = huge
        with pytest.raises(RemoteProtocolError, match="more than 1024 KiB"):
            await link.request("GET", "/v1/status")
        assert taps.shown[-1][2] == "too large, not read"


async def test_100_mb_body_without_length_is_cut_at_the_bound() -> None:
    sent = 0

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while sent < 100 << 20:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    taps = Taps()
    async with http_double() as double, linked(double, taps=taps) as link:
        double.raw = stream
        with pytest.raises(RemoteProtocolError, match="the rest was not read") as caught:
            await link.request("GET", "/v1/livemeasure")
        assert len(caught.value.data) == 4096
        assert len(taps.of(Direction.IN)[0]) < (1 << 20) + 500
    assert sent < 20 << 20


async def test_bound_is_inclusive_and_may_be_raised_for_one_request() -> None:
    async with http_double() as double, linked(double, max_body=10) as link:
        double.on("GET", "/a", Reply(200, b"x" * 10))
        double.on("GET", "/b", Reply(200, b"x" * 11))
        assert len((await link.request("GET", "/a")).body) == 10
        with pytest.raises(RemoteProtocolError, match="more than 10 bytes"):
            await link.request("GET", "/b")
        assert len((await link.request("GET", "/b", max_body=11)).body) == 11


async def test_slow_loris_is_ended_by_the_deadline() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)  # the slowness under test

    taps = Taps()
    async with http_double() as double, linked(double, timeout_s=0.2, taps=taps) as link:
        double.raw = drip
        begun = time.monotonic()
        with pytest.raises(LinkError, match=r"did not finish its answer within 0\.2 s") as caught:
            await link.request("GET", "/v1/status")
        assert time.monotonic() - begun < 2
        assert caught.value.reason is LinkReason.SILENT
        assert caught.value.may_have_arrived
        assert taps.shown[-1][2] == "cut off"


async def test_slow_header_is_ended_by_the_deadline_too() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)  # the slowness under test

    async with http_double() as double, linked(double, timeout_s=0.2) as link:
        double.raw = drip
        with pytest.raises(LinkError, match=r"did not answer within 0\.2 s"):
            await link.request("GET", "/v1/status")


async def test_endless_header_is_refused() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with http_double() as double, linked(double) as link:
        double.raw = flood
        with pytest.raises(LinkError, match="does not speak proper HTTP") as caught:
            await link.request("GET", "/v1/status")
        assert caught.value.reason is LinkReason.BROKEN


# ---------------------------------------------------------------- failures of the transport


async def test_silence_ends_at_the_deadline() -> None:
    async with http_double() as double, linked(double, timeout_s=0.1) as link:
        double.on("POST", "/v1/legal", HANG)
        with pytest.raises(LinkError) as caught:
            await link.request("POST", "/v1/legal", b"{}")
        assert (caught.value.reason, caught.value.may_have_arrived) == (LinkReason.SILENT, True)


@pytest.mark.parametrize("how", [CLOSE, RESET], ids=["close", "reset"])
async def test_close_without_answer_may_have_arrived(how: Reply) -> None:
    async with http_double() as double, linked(double) as link:
        double.on("POST", "/v1/legal", how)
        with pytest.raises(LinkError, match="closed the connection without an answer") as caught:
            await link.request("POST", "/v1/legal", b"{}")
        assert (caught.value.reason, caught.value.may_have_arrived) == (LinkReason.CLOSED, True)


async def test_body_cut_short_is_a_transport_failure() -> None:
    async def short(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()

    async with http_double() as double, linked(double) as link:
        double.raw = short
        with pytest.raises(LinkError) as caught:
            await link.request("GET", "/v1/status")
        assert caught.value.may_have_arrived


async def test_no_server_is_refused_and_nothing_left() -> None:
    double = HttpDouble()
    await double.start()
    await double.stop()
    taps = Taps()
    async with linked(double, taps=taps) as link:
        with pytest.raises(LinkError, match="refuses the connection") as caught:
            await link.request("POST", "/v1/legal", b"{}")
        assert (caught.value.reason, caught.value.may_have_arrived) == (LinkReason.REFUSED, False)
        assert taps.shown == []


async def test_unknown_local_address_is_named() -> None:
    async with http_double() as double, linked(double, local_address="192.0.2.1") as link:
        with pytest.raises(LinkError, match=r"local address 192\.0\.2\.1") as caught:
            await link.request("GET", "/v1/status")
        assert caught.value.may_have_arrived is False


async def test_own_local_address_works() -> None:
    async with http_double() as double, linked(double, local_address="127.0.0.1") as link:
        assert (await link.request("GET", "/nowhere")).status == 404


async def test_wrong_host_is_a_setting() -> None:
    with pytest.raises(ConfigError, match="host"):
        HttpLink("a b", 80)


async def test_garbage_is_no_http() -> None:
    async def noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.0\r\n\r\n")
        await writer.drain()

    async with http_double() as double, linked(double) as link:
        double.raw = noise
        with pytest.raises(LinkError, match="does not speak proper HTTP") as caught:
            await link.request("GET", "/v1/status")
        assert caught.value.reason is LinkReason.BROKEN


async def test_close_ends_the_request_in_flight_at_once() -> None:
    async with http_double() as double, linked(double, timeout_s=60) as link:
        double.on("POST", "/v1/legal", HANG)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_failure(link, "POST"))
            await double.wait_for(lambda: bool(double.requests))
            begun = time.monotonic()
            await link.close()
            error = await task
        assert time.monotonic() - begun < 1
        assert (error.reason, error.may_have_arrived) == (LinkReason.CLOSED, True)
        with pytest.raises(LinkError) as caught:
            await link.request("GET", "/v1/status")
        assert caught.value.may_have_arrived is False


async def test_cancelling_is_not_turned_into_another_error() -> None:
    async with http_double() as double, linked(double, timeout_s=60) as link:
        double.on("GET", "/v1/status", HANG)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_failure(link, "GET"))
            await double.wait_for(lambda: bool(double.requests))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        double.on("GET", "/v1/status", ok({}))
        assert (await link.request("GET", "/v1/status")).status == 200


async def _failure(link: HttpLink, method: str) -> LinkError:
    with pytest.raises(LinkError) as caught:
        await link.request(method, "/v1/legal" if method == "POST" else "/v1/status")
    return caught.value


# ---------------------------------------------------------------- TLS (section 10)


@pytest.mark.parametrize("expired", [False, True], ids=["valid", "expired"])
@pytest.mark.parametrize("ca", [False, True], ids=["leaf", "ca"])
async def test_pinned_rsa_1024_works(ca: bool, expired: bool) -> None:
    certificate = make_certificate(ca=ca, expired=expired)
    async with http_double(certificate.context()) as double, linked(double, certificate) as link:
        double.on("GET", "/v1/status", ok({"a": 1}))
        reply = await link.request("GET", "/v1/status")
        assert reply.body == b'{"a": 1}'
        assert link.name.startswith("https ")


def test_an_expired_pin_has_a_warning_and_a_valid_one_none() -> None:
    now = datetime.now(UTC)
    assert "expired" in PinnedTls.from_der(make_certificate(expired=True).der).warning(now)
    assert PinnedTls.from_der(make_certificate().der).warning(now) == ""
    early = datetime(1990, 1, 1, tzinfo=UTC)
    assert "valid only from" in PinnedTls.from_der(make_certificate().der).warning(early)


async def test_wrong_certificate_is_refused_before_any_request_byte() -> None:
    other, shown = make_certificate("other"), make_certificate()
    taps = Taps()
    async with http_double(shown.context()) as double, linked(double, other, taps=taps) as link:
        with pytest.raises(LinkError, match="another certificate than the pinned one") as caught:
            await link.request("POST", "/v1/legal", b'{"evseId":"x"}')
        assert (caught.value.reason, caught.value.may_have_arrived) == (LinkReason.TLS, False)
        assert (double.requests, double.received, taps.shown) == ([], 0, [])


async def test_what_a_pinned_ca_signed_is_not_the_pin(tmp_path: object) -> None:
    """A certificate of the same name and key, newly issued: the chain verifies, the comparison refuses it."""
    pinned, renewed = make_certificate(), _same_key_again(make_certificate())
    async with http_double(renewed.context()) as double, linked(double, pinned) as link:
        with pytest.raises(LinkError, match="another certificate than the pinned one") as caught:
            await link.request("GET", "/v1/status")
        assert caught.value.may_have_arrived is False
        assert (double.requests, double.received) == ([], 0)


async def test_http_to_an_https_port() -> None:
    async with http_double(make_certificate().context()) as double, linked(double) as link:
        with pytest.raises(LinkError, match="If TLS is switched on in the meter"):
            await link.request("GET", "/v1/status")
        assert double.requests == []


async def test_https_to_an_http_port() -> None:
    async with http_double() as double, linked(double, make_certificate()) as link:
        with pytest.raises(LinkError) as caught:
            await link.request("GET", "/v1/status")
        assert (caught.value.reason, caught.value.may_have_arrived) == (LinkReason.TLS, False)


async def test_https_to_an_http_port_that_answers_in_http() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with http_double() as double, linked(double, make_certificate()) as link:
        double.raw = answer
        with pytest.raises(LinkError, match="answers in plain HTTP; nothing was sent") as caught:
            await link.request("GET", "/v1/status")
        assert (caught.value.reason, caught.value.may_have_arrived) == (LinkReason.TLS, False)


async def test_a_peer_that_never_shakes_hands_is_ended_by_the_deadline() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with http_double() as double, linked(double, make_certificate(), timeout_s=0.2) as link:
        double.raw = mute
        with pytest.raises(LinkError, match="TLS was not agreed") as caught:
            await link.request("GET", "/v1/status")
        assert (caught.value.reason, caught.value.may_have_arrived) == (LinkReason.TLS, False)


async def test_reset_during_the_handshake() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        reset(writer)

    async with http_double() as double, linked(double, make_certificate()) as link:
        double.raw = hang_up
        with pytest.raises(LinkError) as caught:
            await link.request("GET", "/v1/status")
        assert (caught.value.reason, caught.value.may_have_arrived) == (LinkReason.TLS, False)


def test_pin_must_be_a_certificate() -> None:
    with pytest.raises(ConfigError):
        PinnedTls.from_der(b"nothing of the kind")
    with pytest.raises(ConfigError):
        pinned_context(b"nothing of the kind")


def _same_key_again(certificate: ServerCertificate) -> ServerCertificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = serialization.load_pem_private_key(certificate.key_pem, None)
    assert isinstance(key, rsa.RSAPrivateKey)
    old = x509.load_der_x509_certificate(certificate.der)
    new = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "impostor")]))
        .issuer_name(old.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    return ServerCertificate(
        pem=new.public_bytes(serialization.Encoding.PEM).decode(),
        der=new.public_bytes(serialization.Encoding.DER),
        key_pem=certificate.key_pem,
    )
