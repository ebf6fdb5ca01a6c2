"""The gRPC side of the simulated ChirpStack: a second door to the devices, queues and faults of its REST interface.

Each call is put into its REST form and answered by the simulator's own handler, so that there is one state and one set
of rules. Of the faults of the wire only those of ``HttpSim.ask`` strike here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError, Future, InvalidStateError, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from app.errors import LinkError, LinkReason
from app.simulators._http import HOST, Answer, HttpSim, Request
from app.transports.chirpstack_calls import ROUTES, Route, libraries

MAX_CALLS: Final = 32  # at once; each holds a thread
OPTIONS: Final = (("grpc.so_reuseport", 0),)  # a port is taken once


@asynccontextmanager
async def grpc_side(sim: HttpSim, port: int = 0) -> AsyncIterator[int]:
    """Offer the calls of a running simulator by gRPC on 127.0.0.1 as well; yields the port (0 given: a free one).

    Raises:
        ConfigError: the extra ``chirpstack`` is not installed. LinkError: the port cannot be opened.
    """
    grpc = libraries().grpc
    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="sim-grpc")
    server = grpc.server(threads, options=OPTIONS)
    try:
        bound: int = server.add_insecure_port(f"{HOST}:{port}")
    except RuntimeError as exc:
        threads.shutdown(wait=False)
        text = f"The simulator cannot listen on {HOST}:{port}. Choose another port, or 0 for a free one."
        raise LinkError(text, LinkReason.BUSY, may_have_arrived=False) from exc
    async with asyncio.TaskGroup() as group:

        def begin(request: Request, reply: Future[Answer]) -> None:
            task = group.create_task(_answer(sim, request, reply), name=f"{sim.name}:grpc")
            reply.add_done_callback(lambda _reply: loop.call_soon_threadsafe(task.cancel))

        def ask(request: Request, reply: Future[Answer]) -> None:
            loop.call_soon_threadsafe(begin, request, reply)

        server.add_generic_rpc_handlers(tuple(_handlers(ask)))
        server.start()
        try:
            yield bound
        finally:
            await asyncio.to_thread(_stop, server, threads)


def _stop(server: Any, threads: ThreadPoolExecutor) -> None:
    """End every call, which frees its thread; afterwards nothing of the server reaches for the loop."""
    server.stop(None).wait()
    threads.shutdown()


async def _answer(sim: HttpSim, request: Request, reply: Future[Answer]) -> None:
    try:
        answer = await sim.ask(request)
    except BaseException:
        reply.cancel()
        raise
    if answer is not None:
        with suppress(InvalidStateError):  # the caller went away
            reply.set_result(answer)


def _handlers(ask: Callable[[Request, Future[Answer]], None]) -> list[Any]:
    """What gRPC takes: one handler for each service, with a function for each call."""
    found = libraries()
    methods: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        service = found.services[route.service]
        method = service.methods_by_name[route.method]
        methods.setdefault(service.full_name, {})[route.method] = found.grpc.unary_unary_rpc_method_handler(
            _function(route, found.message_class(method.output_type), ask),
            request_deserializer=found.message_class(method.input_type).FromString,
            response_serializer=found.message_class(method.output_type).SerializeToString,
        )
    return [found.grpc.method_handlers_generic_handler(name, functions) for name, functions in methods.items()]


def _function(route: Route, reply_kind: Any, ask: Callable[[Request, Future[Answer]], None]) -> Callable[..., Any]:
    """The function of one call; it runs in a thread of the server and waits for the simulator's loop."""
    found = libraries()
    codes = {code.value[0]: code for code in found.grpc.StatusCode}

    def function(message: Any, context: Any) -> Any:
        reply: Future[Answer] = Future()
        if not context.add_callback(reply.cancel):  # called when the caller goes away and when the server stops
            return context.abort(found.grpc.StatusCode.CANCELLED, "the call has ended")
        ask(_request(route, found.json_format.MessageToDict(message), context.invocation_metadata()), reply)
        try:
            answer = reply.result()
        except CancelledError:
            return context.abort(found.grpc.StatusCode.CANCELLED, "the call has ended")
        value: Any = answer.value
        if answer.status != 200:
            return context.abort(codes[value["code"]], value["message"])
        return found.json_format.ParseDict(value, reply_kind())

    return function


def _request(route: Route, body: dict[str, Any], metadata: Any) -> Request:
    device: Any = body if route.member else ""
    for name in route.member.split(".") if route.member else ():
        device = device.get(name, "") if isinstance(device, dict) else ""
    is_asking = route.verb != "POST"
    return Request(
        method=route.verb,
        path=route.path.format(device),
        query={name: str(value) for name, value in body.items()} if is_asking else {},
        headers={entry.key: entry.value for entry in metadata if isinstance(entry.value, str)},
        body=b"" if is_asking else json.dumps(body).encode(),
    )
