"""ChirpStack by gRPC: the caller against a server of bare bytes, and the adapter against the simulator's gRPC side."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from app.adapters import calin_lorawan
from app.composition import open_session, running
from app.errors import ConfigError, LinkError, LinkReason, LocalProtocolError, RemoteProtocolError
from app.interaction_log.verify import verify
from app.model.device import Device, NodeKind
from app.model.interaction import Direction, Frame
from app.model.reading import Finding, LinkState
from app.protocols import calin_lorawan as lora
from app.secrets import SessionSecrets
from app.simulators import catalog
from app.simulators._http import SimClock
from app.simulators.calin_meters import MeterField, calin_serial, demo_field
from app.simulators.chirpstack import GATEWAYS, ChirpStackConfig, ChirpStackSimulator
from app.simulators.chirpstack_grpc import grpc_side
from app.transports import chirpstack_grpc
from app.transports.chirpstack_grpc import GrpcCaller
from tests.doubles.lem_double import ServerCertificate, make_certificate
from tests.integration.test_calin_live import HOOK_TOKEN, CalinHeld, QuickLorawan, free_port

needs_grpc = pytest.mark.skipif(
    find_spec("grpc") is None or find_spec("chirpstack_api") is None,
    reason="gRPC is not installed; get it with: uv sync --extra chirpstack",
)
DEADLINE_S = 10.0
TOKEN = "network-server-api-token"
APP_KEY = "00112233445566778899aabbccddeeff"
EUI = "0000047003333771"
FRAME = bytes.fromhex("6871373303700468010254179016")
SERIAL = calin_serial(1)
HEADERS = lora.auth_headers(TOKEN)
#: calin-lorawan.md 5.2, recorded: READ_CREDIT to 0000047003333771.
RECORDED = bytes.fromhex("0a26121030303030303437303033333333373731180120012a0e6871373303700468010254179016")

# ---------------------------------------------------------------- a server of bare bytes

Function = Callable[[bytes, Any], bytes]


class Server:
    """Takes any call; ``functions`` by path answer with bytes. Nothing of our own tables is used."""

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self.calls: list[tuple[str, bytes, dict[str, str]]] = []
        self.came = threading.Event()
        self.port = 0
        self.running: Any = None

    def stop(self) -> None:
        self.running.stop(None).wait()

    def service(self, details: Any) -> Any:
        import grpc

        def answer(data: bytes, context: Any) -> bytes:
            self.calls.append((details.method, data, {entry.key: entry.value for entry in details.invocation_metadata}))
            self.came.set()
            return self.functions[details.method](data, context)

        return grpc.unary_unary_rpc_method_handler(answer) if details.method in self.functions else None

    async def until_called(self) -> None:
        assert await asyncio.to_thread(self.came.wait, DEADLINE_S)


@contextmanager
def server_of(
    functions: dict[str, Function], certificate: ServerCertificate | None = None, port: int = 0
) -> Iterator[Server]:
    import grpc

    held = Server()
    held.functions = functions
    with ThreadPoolExecutor(4) as threads:
        held.running = running = grpc.server(threads, handlers=(held,), options=(("grpc.so_reuseport", 0),))
        if certificate is None:
            held.port = running.add_insecure_port(f"127.0.0.1:{port}")
        else:
            pair = (certificate.key_pem, certificate.pem.encode())
            held.port = running.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([pair]))
        running.start()
        try:
            yield held
        finally:
            held.stop()


@asynccontextmanager
async def caller_of(
    port: int, *, scheme: str = "grpc", host: str = "127.0.0.1", **more: Any
) -> AsyncIterator[GrpcCaller]:
    caller = GrpcCaller(f"{scheme}://{host}:{port}", **{"timeout_s": DEADLINE_S, **more})
    try:
        yield caller
    finally:
        await caller.close()


class Ear:
    def __init__(self) -> None:
        self.shown: list[tuple[Direction, str, str]] = []

    def __call__(self, direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        self.shown.append((direction, data.decode(), note))


async def ask(caller: GrpcCaller, call: lora.RestCall, **more: Any) -> tuple[int, bytes]:
    body = json.dumps(call.body).encode() if call.body is not None else b""
    reply = await caller.call(call.method, call.path, body, headers=HEADERS, **more)
    return reply.status, reply.body


def says(data: bytes) -> Function:
    return lambda _data, _context: data


def refuses(code: int, text: str) -> Function:
    def function(_data: bytes, context: Any) -> bytes:
        import grpc

        status = next(status for status in grpc.StatusCode if status.value[0] == code)
        context.abort(status, text)
        raise AssertionError

    return function


def until_gone(_data: bytes, context: Any) -> bytes:
    """Never answers; returns when the caller has gone or the server stops."""
    gone = threading.Event()
    if context.add_callback(gone.set):
        gone.wait(DEADLINE_S)
    return b""


ENQUEUE = "/api.DeviceService/Enqueue"


def enqueued(item: str) -> bytes:
    return b"\x0a" + bytes((len(item),)) + item.encode()


@needs_grpc
async def test_enqueue_sends_the_recorded_bytes_and_the_token() -> None:
    with server_of({ENQUEUE: says(enqueued("q-1"))}) as server:
        async with caller_of(server.port) as caller:
            assert lora.judge_enqueued(*await ask(caller, lora.enqueue_call(EUI, FRAME))) == "q-1"
    ((path, data, metadata),) = server.calls
    assert (path, data) == (ENQUEUE, RECORDED)
    assert metadata["authorization"] == f"Bearer {TOKEN}"


@needs_grpc
async def test_the_other_calls_are_the_right_messages() -> None:
    item = b"\x0a\x03q-9"
    gateway = b"\x12\x10" + GATEWAYS[0].encode() + b"\x50\x01"  # gateway_id, state ONLINE
    functions = {
        "/api.DeviceService/GetQueue": says(b"\x08\x01\x12" + bytes((len(item),)) + item),
        "/api.DeviceService/FlushQueue": says(b""),
        "/api.DeviceService/Create": says(b""),
        "/api.DeviceService/CreateKeys": says(b""),
        "/api.GatewayService/List": says(b"\x08\x01\x12" + bytes((len(gateway),)) + gateway),
    }
    uuid, key = "0e1a2b3c-0001-4000-8000-000000000001", "00112233445566778899aabbccddeeff"
    with server_of(functions) as server:
        async with caller_of(server.port) as caller:
            assert lora.judge_queue(*await ask(caller, lora.queue_call(EUI))) == {"q-9"}
            assert (await ask(caller, lora.flush_call(EUI)))[0] == 200
            assert lora.judge_created(*await ask(caller, lora.create_device_call("47003333771", uuid, uuid)))
            assert lora.judge_created(*await ask(caller, lora.create_keys_call(EUI, key)))
            listed = await ask(caller, lora.RestCall("GET", f"/api/gateways?limit=7&offset=2&tenantId={uuid}"))
    assert json.loads(listed[1])["result"] == [{"gatewayId": GATEWAYS[0], "state": "ONLINE"}]
    eui, name, ident = b"\x10" + EUI.encode(), b"\x12\x0b47003333771", b"\x24" + uuid.encode()
    device = b"\x0a" + eui + name + b"\x22" + ident + b"\x2a" + ident
    keys = b"\x0a" + eui + b"\x12\x20" + key.encode()
    assert [data for _path, data, _metadata in server.calls] == [
        b"\x0a" + eui,
        b"\x0a" + eui,
        b"\x0a" + bytes((len(device),)) + device,
        b"\x0a" + bytes((len(keys),)) + keys,
        b"\x08\x07\x10\x02\x22" + ident,
    ]


@needs_grpc
@pytest.mark.parametrize(
    ("code", "text", "fault", "status"),
    [
        (13, 'violates "device_queue_item_dev_eui_fkey"', lora.SendFault.DEVICE_NOT_REGISTERED, 500),
        (5, "Object does not exist", lora.SendFault.DEVICE_NOT_REGISTERED, 404),
        (14, "upstream is away", lora.SendFault.ENQUEUE_FAILED, 503),
        (16, "authentication failed", lora.SendFault.ENQUEUE_FAILED, 401),
        (4, "the database was slow", lora.SendFault.ENQUEUE_FAILED, 504),
        (2, "", lora.SendFault.ENQUEUE_FAILED, 500),
    ],
)
async def test_a_refusal_is_that_of_the_proxy(code: int, text: str, fault: lora.SendFault, status: int) -> None:
    with server_of({ENQUEUE: refuses(code, text)}) as server:
        async with caller_of(server.port) as caller:
            answer = await ask(caller, lora.enqueue_call(EUI, FRAME))
    assert answer[0] == status
    with pytest.raises(lora.SendError) as caught:
        lora.judge_enqueued(*answer)
    assert (caught.value.fault, caught.value.grpc_code) == (fault, code)


@needs_grpc
async def test_an_existing_device_an_empty_id_and_a_call_the_server_has_not() -> None:
    uuid = "0e1a2b3c-0001-4000-8000-000000000001"
    functions = {"/api.DeviceService/Create": refuses(6, "Object already exists"), ENQUEUE: says(b"")}
    with server_of(functions) as server:
        async with caller_of(server.port) as caller:
            assert not lora.judge_created(*await ask(caller, lora.create_device_call("47003333771", uuid, uuid)))
            with pytest.raises(lora.SendError) as caught:
                lora.judge_enqueued(*await ask(caller, lora.enqueue_call(EUI, FRAME)))
            assert caught.value.fault is lora.SendFault.EMPTY_QUEUE_ID
            status, body = await ask(caller, lora.queue_call(EUI))
            assert (status, json.loads(body)["code"]) == (501, 12)


@needs_grpc
async def test_what_is_shown_holds_no_token_and_no_key_and_only_what_left() -> None:
    key, ear = "00112233445566778899aabbccddeeff", Ear()
    with server_of({"/api.DeviceService/CreateKeys": says(b"")}) as server:
        async with caller_of(server.port) as caller:
            await ask(caller, lora.create_keys_call(EUI, key), tap=ear, hide=lambda text: text.replace(key, "[hidden]"))
        port = server.port
    assert [(direction, note) for direction, _text, note in ear.shown] == [(Direction.OUT, ""), (Direction.IN, "")]
    assert EUI in ear.shown[0][1]
    assert "[hidden]" in ear.shown[0][1]
    assert not any(secret in text for secret in (TOKEN, key) for _direction, text, _note in ear.shown)
    ear.shown.clear()
    async with caller_of(port) as caller:
        with pytest.raises(LinkError):
            await ask(caller, lora.queue_call(EUI), tap=ear)
    assert ear.shown == []


# ---------------------------------------------------------------- the wire


@needs_grpc
async def test_nobody_listens_and_then_somebody_does() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with caller_of(port) as caller:
        with pytest.raises(LinkError, match="refuses the connection") as caught:
            await ask(caller, lora.queue_call(EUI))
        assert (caught.value.reason, caught.value.may_have_arrived) == (LinkReason.REFUSED, False)
        with server_of({ENQUEUE: says(enqueued("q-1"))}, port=port):
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    try:
                        answer = await ask(caller, lora.enqueue_call(EUI, FRAME))
                    except LinkError:  # told from memory until the connection is tried again
                        await asyncio.sleep(0.02)
                    else:
                        break
            assert lora.judge_enqueued(*answer) == "q-1"


@needs_grpc
async def test_a_silent_server_costs_the_time_out_and_no_more() -> None:
    ear = Ear()
    with server_of({ENQUEUE: until_gone}) as server:
        async with caller_of(server.port, timeout_s=0.2) as caller:
            begun = asyncio.get_running_loop().time()
            with pytest.raises(LinkError, match=r"did not answer within 0\.2 s") as caught:
                await ask(caller, lora.enqueue_call(EUI, FRAME), tap=ear)
            assert asyncio.get_running_loop().time() - begun < 2.0
    assert (caught.value.reason, caught.value.may_have_arrived) == (LinkReason.SILENT, True)
    assert [direction for direction, _text, _note in ear.shown] == [Direction.OUT]


@needs_grpc
async def test_closing_ends_a_call_at_once() -> None:
    with server_of({ENQUEUE: until_gone}) as server:
        caller = GrpcCaller(f"grpc://127.0.0.1:{server.port}")
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_fails(caller))
            await server.until_called()
            begun = asyncio.get_running_loop().time()
            await caller.close()
        assert asyncio.get_running_loop().time() - begun < 2.0
        error = task.result()
        assert (error.reason, error.may_have_arrived) == (LinkReason.CLOSED, True)
        assert "closed here" in str(error)
        assert caller.is_closed
        again = await _fails(caller)
        assert (again.reason, again.may_have_arrived) == (LinkReason.CLOSED, False)
        await caller.close()


async def _fails(caller: GrpcCaller) -> LinkError:
    with pytest.raises(LinkError) as caught:
        await ask(caller, lora.enqueue_call(EUI, FRAME))
    return caught.value


async def _ends(caller: GrpcCaller) -> LinkReason | int:
    """How a call ends that the server gives up."""
    try:
        return (await ask(caller, lora.enqueue_call(EUI, FRAME)))[0]
    except LinkError as exc:
        return exc.reason


@needs_grpc
async def test_a_server_that_stops_breaks_the_call_off() -> None:
    with server_of({ENQUEUE: until_gone}) as server:
        async with caller_of(server.port) as caller, asyncio.TaskGroup() as group:
            task = group.create_task(_fails(caller))
            await server.until_called()
            await asyncio.to_thread(server.stop)
    assert (task.result().reason, task.result().may_have_arrived) == (LinkReason.CLOSED, True)


@needs_grpc
async def test_tls_is_checked_against_the_given_certificate() -> None:
    good, other = make_certificate("localhost", bits=2048), make_certificate("localhost", bits=2048, ca=False)
    with server_of({ENQUEUE: says(enqueued("q-1"))}, good) as server:
        async with caller_of(server.port, scheme="grpcs", host="localhost", ca_pem=good.pem) as caller:
            assert (await ask(caller, lora.enqueue_call(EUI, FRAME)))[0] == 200
            assert caller.name == f"grpcs localhost:{server.port}"
        for pem in (other.pem, ""):
            async with caller_of(server.port, scheme="grpcs", host="localhost", ca_pem=pem) as caller:
                error = await _fails(caller)
                assert (error.reason, error.may_have_arrived) == (LinkReason.TLS, False)
                assert "not trusted" in str(error)
        async with caller_of(server.port) as caller:  # in the clear to a port with TLS
            assert not (await _fails(caller)).may_have_arrived
        assert len(server.calls) == 1
    with server_of({}) as server:
        async with caller_of(server.port, scheme="grpcs", ca_pem=good.pem) as caller:
            assert "grpc or grpcs" in str(await _fails(caller))


@needs_grpc
async def test_the_port_of_the_rest_interface_is_recognised() -> None:
    async with ChirpStackSimulator() as sim, caller_of(sim.port) as caller:
        error = await _fails(caller)
    assert (error.reason, error.may_have_arrived) == (LinkReason.BROKEN, False)
    assert "REST" in str(error)


@needs_grpc
async def test_an_answer_beyond_the_limit_and_calls_there_are_not() -> None:
    with server_of({ENQUEUE: says(enqueued("q-1") + b"\x12\xff\xff\x7f" + bytes(0x1FFFFF))}) as server:
        async with caller_of(server.port) as caller:
            with pytest.raises(RemoteProtocolError, match="1024 KiB"):
                await ask(caller, lora.enqueue_call(EUI, FRAME))
            with pytest.raises(LocalProtocolError, match="no gRPC call for DELETE /api/devices"):
                await caller.call("DELETE", f"/api/devices/{EUI}")
            with pytest.raises(LocalProtocolError, match="body") as caught:
                await caller.call("POST", f"/api/devices/{EUI}/keys", b'{"deviceKeys": {"secret": "s3cret"}}')
            assert "s3cret" not in str(caught.value)


@needs_grpc
@pytest.mark.parametrize(
    "url",
    ["http://h", "grpc://", "grpc://a@b:1", "grpc://h:99999", "grpc://h:x", "grpc://h/path", "grpc://h?a=b", ""],
)
def test_addresses_are_checked(url: str) -> None:
    with pytest.raises(ConfigError, match="api_url"):
        GrpcCaller(url, key="api_url")


@needs_grpc
async def test_names_ports_and_certificates() -> None:
    with pytest.raises(ConfigError, match="ca_certificate"):
        GrpcCaller("grpcs://host", ca_pem="no certificate")
    for url, name in (("GRPC://host", "grpc host:8080"), ("grpcs://[::1]:9", "grpcs ::1:9")):
        caller = GrpcCaller(url)
        assert caller.name == name
        await caller.close()
    assert not chirpstack_grpc.is_grpc("https://grpc")


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ConfigError, match=r"grpc.*not installed.*meterwright\[chirpstack\]"):
        GrpcCaller("grpc://127.0.0.1")


# ---------------------------------------------------------------- the simulator's gRPC side


def field(scale: float = 400.0) -> MeterField:
    return demo_field(2, clock=SimClock(time_scale=scale))


@asynccontextmanager
async def simulated(**more: Any) -> AsyncIterator[tuple[ChirpStackSimulator, GrpcCaller]]:
    config = ChirpStackConfig(api_token=TOKEN, report_every_s=0, **more)
    async with (
        asyncio.timeout(DEADLINE_S),
        ChirpStackSimulator(field(), config) as sim,
        grpc_side(sim) as port,
        caller_of(port) as caller,
    ):
        yield sim, caller


@needs_grpc
async def test_the_simulator_has_one_state_behind_both_doors() -> None:
    async with simulated() as (sim, caller):
        frame = lora.encode(SERIAL, lora.Command.READ_CREDIT)
        eui = lora.eui_from_serial(SERIAL)
        sim.set_gateway(GATEWAYS[0], False)
        item = lora.judge_enqueued(*await ask(caller, lora.enqueue_call(eui, frame)))
        await sim.wait_until(lambda: any(sent.kind == "up" for sent in sim.sent))
        acks = [sent.body for sent in sim.sent if sent.kind == "ack"]
        assert [(body["queueItemId"], body["acknowledged"]) for body in acks] == [(item, True)]
        _status, body = await ask(caller, lora.RestCall("GET", "/api/gateways?limit=100&offset=0"))
        states = {row["gatewayId"]: row.get("state") for row in json.loads(body)["result"]}
        assert states == {GATEWAYS[0]: None, GATEWAYS[1]: "ONLINE", GATEWAYS[2]: "ONLINE"}  # never seen: the default
        sim.faults.set("gateway-down")
        item = lora.judge_enqueued(*await ask(caller, lora.enqueue_call(eui, frame)))
        assert lora.judge_queue(*await ask(caller, lora.queue_call(eui))) == {item}
        assert sim.waiting(SERIAL) == [item]
        assert sim.requests[-1].path == f"/api/devices/{eui}/queue"


@needs_grpc
async def test_the_simulators_refusals_and_faults_by_grpc() -> None:
    async with simulated(is_registered=False) as (sim, caller):
        eui = lora.eui_from_serial(SERIAL)
        call = lora.enqueue_call(eui, FRAME)
        with pytest.raises(lora.SendError) as caught:
            lora.judge_enqueued(*await ask(caller, call))
        assert caught.value.fault is lora.SendFault.DEVICE_NOT_REGISTERED
        status, _body = await ask(caller, lora.create_device_call(SERIAL, *[sim.config.application_id] * 2))
        assert status == 404
        profile = sim.config.device_profile_id
        create = lora.create_device_call(SERIAL, sim.config.application_id, profile)
        assert [lora.judge_created(*await ask(caller, create)) for _ in range(2)] == [True, False]
        assert (await ask(caller, lora.RestCall("GET", f"/api/devices/{eui}/keys")))[0] == 404
        assert lora.judge_created(*await ask(caller, lora.create_keys_call(eui, "0F" * 16)))
        await sim.wait_until(lambda: any(sent.kind == "join" for sent in sim.sent))
        sim.faults.set("grpc-error=8#1")
        with pytest.raises(lora.SendError, match="code 8"):
            lora.judge_enqueued(*await ask(caller, call))
        for fault in ("no-answer#1", "lose-answer#1"):
            sim.faults.set(fault)
            with pytest.raises(LinkError, match="did not answer"):
                await ask(caller, call, timeout_s=0.1)
        sim.faults.set("empty-id#1")
        with pytest.raises(lora.SendError, match="no queue id"):
            lora.judge_enqueued(*await ask(caller, call))
        reply = await caller.call("GET", f"/api/devices/{eui}/queue", headers={"Authorization": "Bearer wrong"})
        assert (reply.status, json.loads(reply.body)["code"]) == (401, 16)


@needs_grpc
async def test_the_simulator_ends_while_calls_wait_and_takes_a_port_once() -> None:
    sim_field = field()
    async with asyncio.timeout(DEADLINE_S), ChirpStackSimulator(sim_field, ChirpStackConfig(api_token=TOKEN)) as sim:
        sim.faults.set("no-answer")
        async with asyncio.TaskGroup() as group, grpc_side(sim) as port:
            with pytest.raises(LinkError, match="cannot listen"):
                async with grpc_side(sim, port):
                    pass
            caller = GrpcCaller(f"grpc://127.0.0.1:{port}")
            tasks = [group.create_task(_ends(caller)) for _ in range(40)]  # more than it has threads for
            await sim.wait_until(lambda: sim.request_count >= 30)
        assert {task.result() for task in tasks} <= {LinkReason.CLOSED, 499}
        await caller.close()


@needs_grpc
async def test_the_command_lines_simulator_offers_grpc() -> None:
    told: asyncio.Future[dict[str, object]] = asyncio.get_running_loop().create_future()
    serve = catalog.find("calin-chirpstack").load()
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        options = catalog.SimOptions(extra={"grpc_port": "0", "meters": "1", "api_token": TOKEN})
        task = group.create_task(serve(options, told.set_result))
        record = await told
        caller = GrpcCaller(str(record["grpc_url"]))
        listed = await ask(caller, lora.RestCall("GET", "/api/gateways?limit=0&offset=0"))
        assert json.loads(listed[1]) == {"totalCount": len(GATEWAYS)}
        await caller.close()
        task.cancel()


# ---------------------------------------------------------------- the whole engine


@asynccontextmanager
async def engine(path: Path, sim: ChirpStackSimulator, url: str) -> AsyncIterator[CalinHeld]:
    """Commands by ``url``, answers by webhook."""
    kind = QuickLorawan(pace=calin_lorawan.Pace(gateway_poll_s=0.1, call_s=2.0))
    secrets = SessionSecrets()
    for name, words in (("api", TOKEN), ("hook", HOOK_TOKEN), ("application", APP_KEY)):
        secrets.set(name, words)
    port = free_port()
    sim.webhooks = [f"http://127.0.0.1:{port}/"]
    settings = {
        "api_url": url, "api_token": "keyring:api", "application_id": sim.config.application_id,
        "device_profile_id": sim.config.device_profile_id, "application_key": "keyring:application",
        "webhook_port": port, "webhook_token": "keyring:hook",
    }  # fmt: skip
    shared: dict[str, Any] = {"adapter": kind.key, "parent": "g1", "settings": settings}
    with open_session(path, adapter_types={kind.key: kind}, secrets=secrets) as session:
        workbench = session.workbench
        workbench.save_device(Device(id="g1", name="Grid", kind=NodeKind.GRID))
        workbench.save_device(Device(id="gw1", name="Gateway", kind=NodeKind.GATEWAY, serial=GATEWAYS[0], **shared))
        workbench.save_device(Device(id="m1", name="Meter 1", serial=SERIAL, **shared))
        held = CalinHeld(workbench, kind.key, sim)
        workbench.feed.subscribe(held.look)
        async with running(workbench):
            yield held
    assert verify(path) == []
    for file in path.parent.glob(f"{path.name}*"):
        for words in (TOKEN, HOOK_TOKEN, APP_KEY):
            assert words.encode() not in file.read_bytes(), "a secret stands in the workspace"


@needs_grpc
async def test_a_meter_is_registered_read_and_switched_by_grpc(tmp_path: Path) -> None:
    config = ChirpStackConfig(api_token=TOKEN, webhook_token=HOOK_TOKEN, report_every_s=0, is_registered=False)
    async with (
        ChirpStackSimulator(field(20.0), config) as sim,
        grpc_side(sim) as port,
        engine(tmp_path / "w.mwk", sim, f"grpc://127.0.0.1:{port}") as held,
    ):
        await held.until(lambda: "is_online" in held.facts("gw1"))
        registered = await held.done("REGISTER")
        assert registered.result is not None
        assert registered.result["was_new"] is True
        await held.until(lambda: "joined_at" in held.facts())
        await sim.report(SERIAL)
        await held.until(lambda: held.workbench.state("m1").last_contact is not None)
        credit = await held.done("READ_CREDIT")
        assert credit.result is not None
        assert abs(Decimal(str(credit.result["kwh_credit_available"])) - held.meter().credit) < 1
        await held.done("TURN_OFF")
        assert not held.meter().is_on
        frames = [frame for frame in held.of(Frame) if frame.interaction == credit.id]
        assert frames[0].data.startswith(b"gRPC /api.DeviceService/Enqueue\r\n")
        sim.faults.set("gateway-down")
        await held.until(lambda: held.facts("gw1")["is_online"] is False)
    assert {request.headers["user-agent"].split("/")[0] for request in sim.requests} == {"grpc-python"}


async def test_without_the_extra_the_tree_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    async with (
        ChirpStackSimulator(field(), ChirpStackConfig(report_every_s=0)) as sim,
        engine(tmp_path / "w.mwk", sim, "grpcs://127.0.0.1:1") as held,
    ):
        await held.until(lambda: held.workbench.state("m1").link is LinkState.FAULT)
        told = [finding.text for finding in held.of(Finding)] + [held.workbench.state("m1").link_text]
        assert any("meterwright[chirpstack]" in text for text in told), told
