"""The roles on a serial line: meter (9a) and module (9b) of specs/quecpython-rfc1662.md."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from app.adapters import _quecpython_backends as backends
from app.adapters import _quecpython_rules as rules
from app.adapters._live import beside, closed_here
from app.adapters._quecpython_answers import RAW_IDS, Answers, Reply
from app.adapters._quecpython_at import Interpreter
from app.adapters._quecpython_core import Backlog, Core, FramedLine, Heard
from app.errors import LinkError, LinkReason, LocalProtocolError, ParameterError
from app.model.reading import LinkState
from app.ports import Answer, DeliveryFailure, Dispatch, Disposition, Execution, Tap
from app.protocols import quecpython as quec
from app.protocols.rfc1662 import PROFILES, FrameError, encode_frame, encode_spoilt
from app.transports.line import Line, LineOpener

SERIAL_ID: Final = 0x8005
OTHER: Final = "other"  # name of the task whose failures speak for themselves
METER_SIDE: Final = "from the meter"
MODULE_SIDE: Final = "from the module"


class Role(ABC):
    """What the adapter asks of a role."""

    @abstractmethod
    def opened(self, open_line: LineOpener) -> AbstractAsyncContextManager[None]:
        """Open what the role needs, run it inside the block. Raises LinkError."""

    @abstractmethod
    async def submit(self, request: Dispatch) -> Answer:
        """See ``Adapter.submit``."""

    async def verify(self, request: Dispatch) -> Answer | None:
        """See ``Adapter.verify``."""
        return None

    @property
    def listen_port(self) -> int:
        """The port that is listened on; 0 where none is."""
        return 0


class LineRole(Role):
    """A role on one line, whose loss is the loss of the connection."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.config = core.config

    def opened(self, open_line: LineOpener) -> AbstractAsyncContextManager[None]:
        return self._opened(open_line)

    @asynccontextmanager
    async def _opened(self, open_line: LineOpener) -> AsyncIterator[None]:
        config, core = self.config, self.core
        line = await open_line(config.line, config.format, whose=core.device.name, rs485=config.rs485)
        try:
            async with beside() as group:
                works = self._start(line, open_line)
                tasks = [
                    group.create_task(self._until_lost(name, work), name=f"module link: {name}")
                    for name, work in works.items()
                ]  # fmt: skip
                core.link(core.device.id, LinkState.ONLINE, self._started())
                try:
                    yield
                finally:
                    self._stop(closed_here())
                    for task in tasks:
                        task.cancel()
        finally:
            await line.close()

    @abstractmethod
    def _start(self, line: Line, open_line: LineOpener) -> Mapping[str, Callable[[], Coroutine[Any, Any, None]]]:
        """Take the open line; what is to run on it, by name."""

    def _started(self) -> str:
        """It runs; what the link's state says."""
        return ""

    @abstractmethod
    def _stop(self, exc: LinkError) -> None:
        """The line is gone: tell who waits. May be called twice."""

    async def _until_lost(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except LinkError as exc:
            lost = exc
            if name != OTHER:
                whose = self.core.device.name
                text = f"The line of {whose} is lost: {str(exc).rstrip('.')}. It is opened again by itself."
                lost = LinkError(text, exc.reason)
            self._stop(lost)
            self.core.lose(lost)


class FramedRole(LineRole):
    """A line with frames: what comes unasked is answered and reported in order, commands wait for their answers."""

    direction = "in"

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._backlog = Backlog(core)
        self._exchanging = asyncio.Lock()
        self._link: FramedLine | None = None

    @property
    def link(self) -> FramedLine:
        """The open line. Raises LinkError."""
        if self._link is None:
            raise LinkError("The line is not open.", LinkReason.CLOSED, may_have_arrived=False)
        return self._link

    def _start(self, line: Line, open_line: LineOpener) -> Mapping[str, Callable[[], Coroutine[Any, Any, None]]]:
        self._link = FramedLine(self.core, line, self._heard)
        return {"read": self._link.run, "handle": self._work}

    def _stop(self, exc: LinkError) -> None:
        if self._link is not None:
            self._link.end(exc)
        for heard in self._backlog.drain():  # it came before the line went
            if isinstance(heard, quec.Message):
                result = rules.message_result(heard, self.direction)
                result["reply"] = {"text": "nothing: the line was lost before"}
                self.core.report(rules.report_name(heard), result)

    # ---------------------------------------------------------------- what comes unasked

    def _heard(self, heard: Heard) -> None:
        self._backlog.put(heard)

    async def _work(self) -> None:
        while True:
            await self._handle(await self._backlog.get())

    async def _handle(self, heard: Heard) -> None:
        match heard:
            case quec.Message():
                await self._message(heard)
            case FrameError():
                self._damaged(heard)
            case quec.AtCommand() | quec.AtReply() | quec.TextLine():
                await self._text(heard)

    @abstractmethod
    def _dispatcher(self) -> quec.Dispatcher[Sequence[Reply]]:
        """Handlers by protocol id; each returns what to reply."""

    async def _message(self, message: quec.Message) -> None:
        errors: list[str] = []
        replies: Sequence[Reply] = ()
        try:
            replies = self._dispatcher().resolve(message)
        except ValueError as exc:  # section 8: an id without handler
            errors.append(str(exc))
        sent = [await self._reply(reply) for reply in replies]
        result = rules.message_result(message, self.direction, errors=errors)
        if sent:
            result["reply"] = sent[0] if len(sent) == 1 else sent
        self.core.report(rules.report_name(message), result)

    async def _reply(self, reply: Reply) -> dict[str, Any]:
        if reply.delay_s:
            await asyncio.sleep(reply.delay_s)
        told: dict[str, Any] = {"text": reply.text}
        if reply.frame is None:
            return told
        profile = self.link.profile
        plain = encode_frame(reply.frame, profile)
        octets = plain if reply.spoil is None else encode_spoilt(reply.frame, reply.spoil, profile)
        note = reply.text if reply.spoil is None else f"{reply.text}, spoilt on purpose: {reply.spoil.value}"
        await self.link.send(octets, self.core.context.tap, note)
        answer = quec.decode(reply.frame._replace(raw=plain), self.config.dialect)
        told["command"] = f"0x{answer.command:02X}"
        told |= {"summary": rules.summary(answer), "decoded": quec.decoded(answer)}
        if reply.spoil is not None:
            told["spoilt"] = reply.spoil.value
        return told

    def _damaged(self, error: FrameError) -> None:
        if error.swapped:
            self.core.warn("SWAPPED_FCS", self.direction, rules.swapped_text(self.link.profile))
        elif error.is_informative:
            return
        else:
            self.core.warn(
                "DAMAGED_FRAMES", self.direction,
                f"Damaged frames come over {self.link.name}: {error.sentence} Check rate, format and cable, and that "
                "both sides use the same frame profile.",
            )  # fmt: skip
        result = rules.error_result(error, self.link.profile, self.config.dialect, self.direction)
        self.core.report("DAMAGED_FRAME", result)

    async def _text(self, line: quec.AtCommand | quec.AtReply | quec.TextLine) -> None:
        self.core.report("TEXT_LINE", rules.text_result(line, self.direction))

    # ---------------------------------------------------------------- commands

    async def _ask(
        self, protocol: int, body: quec.Body, fits: Callable[[quec.Message], bool], tap: Tap
    ) -> quec.Message | None:
        """Send one request and wait for its answer; None for silence. Raises LinkError, ParameterError."""
        frame = quec.encode(protocol, body, self.config.dialect, self.config.link)
        link = self.link

        def is_answer(heard: Heard) -> bool:
            return isinstance(heard, quec.Message) and heard.protocol == protocol and fits(heard)

        async with self._exchanging:
            with link.listen(is_answer, tap) as listening:
                await link.send_frame(frame, tap)
                found = await link.next(listening, self.config.timeout_s)
        return found if isinstance(found, quec.Message) else None

    async def _get(self, protocol: int, body: quec.GetRequest, tap: Tap) -> quec.Message | None:
        def fits(message: quec.Message) -> bool:
            match message.body:
                case quec.GetResponse(pid=pid, content=quec.Typed(rid=rid)):
                    return pid == body.pid and (body.rid is None or rid == body.rid)
                case quec.GetResponse(pid=pid) | quec.GetError(pid=pid):
                    return pid == body.pid
                case quec.Malformed():
                    return message.body.pid in (None, body.pid) and message.command == quec.Command.GET_RESPONSE
                case _:
                    return False

        return await self._ask(protocol, body, fits, tap)

    async def _set(self, protocol: int, body: quec.SetRequest, tap: Tap) -> quec.Message | None:
        def fits(message: quec.Message) -> bool:
            return isinstance(message.body, quec.SetResponse) and message.body.pid == body.pid

        return await self._ask(protocol, body, fits, tap)

    def _answer_to_get(
        self, wanted: int, message: quec.Message | None, silence: str, facts: Callable[[Any], Mapping[str, Any]]
    ) -> Answer:
        name = rules.word_name(wanted)
        if message is None:
            return no_answer(f"No answer to GET {name} within {self.config.timeout_s:g} s. {silence}".rstrip())
        result = get_result(wanted, message, self.direction)
        match message.body:
            case quec.GetResponse():
                learnt = {} if rules.is_secret(message) else facts(result["value"])
                return Answer(result=result, facts=learnt)
            case quec.GetError(status=status):
                text = f"The other side has no value for {name}: {quec.status_text(status)}."
                return Answer(execution=Execution.FAILURE, code="GET_ERROR", text=text, result=result)
            case _:
                text = f"The answer to GET {name} cannot be read: {'; '.join(result['errors'])}"
                return Answer(execution=Execution.FAILURE, code="UNDECODABLE", text=text, result=result)

    def _answer_to_set(self, wanted: int, message: quec.Message | None, silence: str) -> Answer:
        name = rules.word_name(wanted)
        if message is None:
            text = (
                f"No answer to SET {name} within {self.config.timeout_s:g} s, so whether it was taken is not known. "
                f"{silence}"
            ).rstrip()
            return Answer(execution=Execution.UNKNOWN, code="NO_ANSWER", text=text, result={"summary": text})
        result = set_result(wanted, message, self.direction)
        status = message.body.status if isinstance(message.body, quec.SetResponse) else None
        if status in (None, quec.SUCCESS):
            return Answer(result=result, text=f"{name} is written.")
        text = f"{name} was not written: {quec.status_text(status or 0)}."
        return Answer(execution=Execution.FAILURE, code="SET_REFUSED", text=text, result=result)

    async def _send_transparent(self, request: Dispatch) -> Answer:
        payload = rules.payload_of(request.params["data"], "data")
        is_awaited = request.params["await_answer"]
        link = self.link

        def fits(heard: Heard) -> bool:
            return is_awaited and isinstance(heard, quec.Message) and isinstance(heard.body, quec.Transparent)

        async with self._exchanging:
            with link.listen(fits, request.tap) as listening:
                frames = await self._send_payload(payload, request.tap)
                found = []
                if is_awaited:
                    found = await link.gather(listening, self.config.timeout_s, self.core.pace.gather_s)
        result: dict[str, Any] = {
            "summary": f"{len(payload)} octets sent in {frames} frames", "sent": payload.hex(), "frames": frames,
        }  # fmt: skip
        if not is_awaited:
            return Answer(result=result)
        result |= transparent_result(found, self.direction)
        if not result["answer"]:
            text = f"{len(payload)} octets were sent, and nothing came back within {self.config.timeout_s:g} s."
            return no_answer(text, result)
        octets, frames = len(result["answer"]) // 2, len(result["messages"])
        result["summary"] = f"{len(payload)} octets sent, {octets} came back in {frames} frames"
        return Answer(result=result)

    async def _send_payload(self, payload: bytes, tap: Tap) -> int:
        """Transparent frames of at most the set size. Returns how many."""
        size = self.config.split
        pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
        for piece in pieces:
            frame = quec.encode(quec.TRANSPARENT, quec.Transparent(piece), self.config.dialect, self.config.link)
            await self.link.send_frame(frame, tap)
        return len(pieces)

    async def _send_frame(self, request: Dispatch) -> Answer:
        params = request.params
        profile = self.link.profile if params["profile"] == "connection" else PROFILES[params["profile"]]
        octets = rules.payload_of(params["raw"], "raw")
        if not octets:
            frame = rules.frame_of(params, self.config.link)
            spoil = rules.spoil_of(params["fault"])
            octets = encode_frame(frame, profile) if spoil is None else encode_spoilt(frame, spoil, profile)
        found = await self._exchange(octets, params["wait_ms"], request.tap)
        return Answer(
            result={
                "summary": f"{len(octets)} octets sent, {len(found)} messages came back",
                "sent": rules.masked_damage(octets).hex(),
                "messages": found,
            }
        )

    async def _exchange(self, octets: bytes, wait_ms: int, tap: Tap) -> list[dict[str, Any]]:
        """Send octets, and take everything that comes in the time."""
        wait_s = wait_ms / 1000 if wait_ms else self.config.timeout_s
        loop = asyncio.get_running_loop()
        found: list[Heard] = []
        async with self._exchanging:
            with self.link.listen(self._is_for_test, tap) as listening:
                await self.link.send(octets, tap)
                end = loop.time() + wait_s
                while (left := end - loop.time()) > 0 and (one := await self.link.next(listening, left)) is not None:
                    found.append(one)
        return [self._row(one) for one in found]

    def _is_for_test(self, heard: Heard) -> bool:
        """Requests of the other side are still answered while a test listens."""
        if isinstance(heard, quec.Message):
            return not isinstance(heard.body, quec.GetRequest | quec.SetRequest)
        return not isinstance(heard, FrameError) or not heard.is_informative

    def _row(self, heard: Heard) -> dict[str, Any]:
        match heard:
            case quec.Message():
                return rules.message_result(heard, self.direction)
            case FrameError():
                return rules.error_result(heard, self.link.profile, self.config.dialect, self.direction)
            case _:
                return rules.text_result(heard, self.direction)

    async def _burst(self, request: Dispatch, role: str) -> Answer:
        first, second = rules.burst_frames(request.params["what"], role, self.config.dialect, self.config.link)
        profile = self.link.profile
        octets = rules.burst_octets(
            encode_frame(first, profile), encode_frame(second, profile), shared_flag=request.params["shared_flag"]
        )
        found = await self._exchange(octets, request.params["wait_ms"], request.tap)
        text = (
            f"Two frames went out in one write, and {len(found)} messages came back. The stock firmware loses both "
            "when one read returns them; a correct receiver handles each."
        )
        return Answer(result={"summary": text, "sent": octets.hex(), "messages": found}, text=text)


class MeterRole(FramedRole):
    """We are the meter, and a module is tested."""

    direction = MODULE_SIDE

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        config = self.config
        serial = config.entries.get(SERIAL_ID)
        number = serial.octets.decode("latin-1") if serial is not None and serial.octets is not None else ""
        self._backend = backends.make(config.backend, config.script, number)
        self._answers = Answers(
            config.entries, unknown=config.unknown, dialect=config.dialect, is_module=False, link=config.link
        )
        self._handlers: quec.Dispatcher[Sequence[Reply]] = quec.Dispatcher()
        self._handlers.register(quec.METER, lambda message: (self._answers.reply(message),))
        self._handlers.register(quec.TRANSPARENT, self._transparent)
        self._handlers.register(quec.MODULE, lambda _message: ())  # answers to requests that were given up
        self._handlers.register(quec.EVENTS, lambda _message: ())

    def _dispatcher(self) -> quec.Dispatcher[Sequence[Reply]]:
        return self._handlers

    def _transparent(self, message: quec.Message) -> Sequence[Reply]:
        if not isinstance(message.body, quec.Transparent):
            return (Reply(None, "nothing: channel 21 carries command BF only"),)
        answer = self._backend(message.body.payload)
        if not answer:
            return ()
        size = self.config.split
        return [
            Reply(
                quec.encode(
                    quec.TRANSPARENT, quec.Transparent(answer[at : at + size]), self.config.dialect, self.config.link
                ),
                f"by the answer to transparent payload: {self.config.backend}",
            )
            for at in range(0, len(answer), size)
        ]

    async def submit(self, request: Dispatch) -> Answer:
        match request.spec.name:
            case "GET_PARAMETER":
                return await self._get_parameter(request)
            case "SET_PARAMETER":
                return await self._set_parameter(request)
            case "SEND_EVENT":
                return await self._event(request)
            case "SEND_TRANSPARENT":
                return await self._send_transparent(request)
            case "SEND_FRAME":
                return await self._send_frame(request)
            case "BURST_TEST":
                return await self._burst(request, rules.METER)
            case "AT":
                return await self._at_line(request)
            case name:
                raise LocalProtocolError(f"The meter's side of the link has no command {name}.")

    async def verify(self, request: Dispatch) -> Answer | None:
        """A parameter that was written can be read back."""
        if request.spec.name != "SET_PARAMETER":
            return None
        wanted = rules.parameter_id(request.params["parameter"])
        _tag, octets = rules.value_of(request.params)
        body = quec.GetRequest(rules.parameter_id(request.params["carrier"]), wanted)
        message = await self._get(quec.MODULE, body, request.tap)
        content = message.body.content if message is not None and isinstance(message.body, quec.GetResponse) else None
        return _read_back(rules.word_name(wanted), content, octets)

    async def _get_parameter(self, request: Dispatch) -> Answer:
        wanted = rules.parameter_id(request.params["parameter"])
        body = quec.GetRequest(rules.parameter_id(request.params["carrier"]), wanted)
        if wanted in RAW_IDS:  # S-19: an untyped value is asked for by its own id
            body = quec.GetRequest(wanted)
        message = await self._get(quec.MODULE, body, request.tap)
        return self._answer_to_get(wanted, message, rules.NO_HANDLER, lambda value: {f"0x{wanted:04X}": value})

    async def _set_parameter(self, request: Dispatch) -> Answer:
        params = request.params
        wanted = rules.parameter_id(params["parameter"])
        tag, octets = rules.value_of(params)
        pid = wanted if wanted in RAW_IDS else rules.parameter_id(params["carrier"])
        content: quec.Typed | quec.Raw = quec.Raw(octets)
        if tag is not None and wanted not in RAW_IDS:
            content = quec.Typed(wanted, tag, octets)
        message = await self._set(quec.MODULE, quec.SetRequest(pid, content), request.tap)
        return self._answer_to_set(wanted, message, rules.NO_HANDLER)

    async def _event(self, request: Dispatch) -> Answer:
        payload = rules.payload_of(request.params["data"], "data")
        command = int(request.params["command"], 16)

        def fits(message: quec.Message) -> bool:
            return isinstance(message.body, quec.EventAcknowledge)

        message = await self._ask(quec.EVENTS, quec.Event(payload, command), fits, request.tap)
        if message is None:
            text = f"The event was not acknowledged within {self.config.timeout_s:g} s. {rules.NO_HANDLER}"
            return no_answer(text)
        result = event_result(message, self.direction)
        return Answer(result=result, text=f"The event was acknowledged in the form of {result['form']}.")

    async def _at_line(self, request: Dispatch) -> Answer:
        line = request.params["line"].strip()
        octets = f"{line}{request.params['secret']}\r\n".encode("latin-1", "replace")

        def fits(heard: Heard) -> bool:
            return isinstance(heard, quec.AtReply | quec.TextLine)

        async with self._exchanging:
            with self.link.listen(fits, request.tap) as listening:
                await self.link.send(octets, request.tap)
                found = await self.link.gather(listening, self.config.timeout_s, self.core.pace.gather_s)
        lines = lines_of(found)
        shown = rules.line_text(quec.AtCommand(line, None)) if request.params["secret"] else line
        if not lines:
            text = (
                f"No answer to {shown} within {self.config.timeout_s:g} s. Only modules of the first generation answer "
                "AT lines on this line."
            )
            return no_answer(text)
        return Answer(result={"summary": f"{shown}: {' '.join(lines)}", "lines": lines})


class ModuleRole(FramedRole):
    """We are the module, and a meter is tested."""

    direction = METER_SIDE

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        config = self.config
        self._answers = Answers(
            config.entries, unknown=config.unknown, dialect=config.dialect, is_module=True, link=config.link
        )
        self._interpreter = Interpreter(config.at_values)
        self._deaf_until = float("-inf")
        self._handlers: quec.Dispatcher[Sequence[Reply]] = quec.Dispatcher()
        self._handlers.register(quec.MODULE, lambda message: (self._answers.reply(message),))
        self._handlers.register(quec.EVENTS, self._event)
        self._handlers.register(quec.TRANSPARENT, self._transparent)
        self._handlers.register(quec.METER, lambda _message: ())  # answers to requests that were given up

    def _dispatcher(self) -> quec.Dispatcher[Sequence[Reply]]:
        return self._handlers

    def _started(self) -> str:
        if not self.config.deaf_s:
            return ""
        self._begin_deafness()
        return f"Deaf for {self.config.deaf_s:g} s, as a module without network is."

    def _begin_deafness(self) -> None:
        self._deaf_until = asyncio.get_running_loop().time() + self.config.deaf_s

    def _deaf_s(self) -> float:
        return max(0.0, self._deaf_until - asyncio.get_running_loop().time())

    async def _message(self, message: quec.Message) -> None:
        if not self._deaf_s():
            await super()._message(message)
            return
        result = rules.message_result(message, self.direction)
        result["reply"] = {"text": "nothing: this module is deaf until its network is up"}
        self.core.report(rules.report_name(message), result)

    async def _text(self, line: quec.AtCommand | quec.AtReply | quec.TextLine) -> None:
        reply = b""
        if self.config.at_lines and not self._deaf_s():
            if isinstance(line, quec.AtCommand):
                reply = quec.encode_at(self._interpreter.answer(line))
            elif isinstance(line, quec.TextLine) and line.text.strip().upper() == "AT":
                reply = b"OK\r\n"
        if reply:
            await self.link.send(reply, self.core.context.tap, "a line of text")
        told = quec.masked(reply).decode("ascii").rstrip()
        self.core.report("TEXT_LINE", rules.text_result(line, self.direction, told))

    def _transparent(self, message: quec.Message) -> Sequence[Reply]:
        return ()

    def _event(self, message: quec.Message) -> Sequence[Reply]:
        if isinstance(message.body, quec.EventAcknowledge):
            return (Reply(None, "nothing: it is an acknowledgement"),)
        if self.config.ack is None:
            return (Reply(None, "nothing: events are not acknowledged by the connection's setting"),)
        try:
            frame = quec.reply_event(message, dialect=self.config.ack)
        except ParameterError as exc:
            return (Reply(None, f"nothing: {exc}"),)
        return (Reply(frame._replace(link=self.config.link), "acknowledged"),)

    async def submit(self, request: Dispatch) -> Answer:
        if request.spec.name == "START_UP":
            return await self._start_up(request)
        if left := self._deaf_s():
            text = f"The module we play is deaf for another {left:.0f} s; its network is not up yet."
            raise DeliveryFailure("DEAF", text, Disposition.FINAL)
        params = request.params
        match request.spec.name:
            case "READ_SERIAL":
                return await self._read_serial(request.tap)
            case "GET_METER_PARAMETER":
                pid = rules.parameter_id(params["parameter"])
                if pid == SERIAL_ID:
                    return await self._read_serial(request.tap)
                message = await self._get(quec.METER, quec.GetRequest(pid), request.tap)
                return self._answer_to_get(pid, message, "", lambda value: {f"0x{pid:04X}": value})
            case "SET_METER_PARAMETER":
                return await self._set_meter(request)
            case "SEND_TRANSPARENT":
                return await self._send_transparent(request)
            case "SEND_FRAME":
                return await self._send_frame(request)
            case "BURST_TEST":
                return await self._burst(request, rules.MODULE)
            case name:
                raise LocalProtocolError(f"The module's side of the link has no command {name}.")

    async def verify(self, request: Dispatch) -> Answer | None:
        """A parameter that was written can be read back."""
        if request.spec.name != "SET_METER_PARAMETER" or self._deaf_s():
            return None
        pid = rules.parameter_id(request.params["parameter"])
        _tag, octets = rules.value_of(request.params)
        message = await self._get(quec.METER, quec.GetRequest(pid), request.tap)
        content = message.body.content if message is not None and isinstance(message.body, quec.GetResponse) else None
        return _read_back(rules.word_name(pid), content, octets)

    async def _read_serial(self, tap: Tap) -> Answer:
        message = await self._get(quec.METER, quec.GetRequest(SERIAL_ID), tap)
        answer = self._answer_to_get(
            SERIAL_ID, message, "Check that the meter is on this line, and rate and frame profile.",
            lambda value: {"meter_serial": value},
        )  # fmt: skip
        if answer.execution is Execution.SUCCESS:
            answer = _with(answer, meter_serial=answer.result["value"])
        return answer

    async def _set_meter(self, request: Dispatch) -> Answer:
        params = request.params
        pid = rules.parameter_id(params["parameter"])
        tag, octets = rules.value_of(params)
        content: quec.Typed | quec.Raw = quec.Raw(octets)
        if tag is not None and pid not in RAW_IDS:
            rid = rules.parameter_id(params["request_id"]) if params["request_id"] else pid
            content = quec.Typed(rid, tag, octets)
        message = await self._set(quec.METER, quec.SetRequest(pid, content), request.tap)
        return self._answer_to_set(pid, message, "")

    async def _start_up(self, request: Dispatch) -> Answer:
        self._begin_deafness()
        if self.config.deaf_s:
            with self.link.listen(lambda _heard: False, request.tap) as listening:
                await self.link.next(listening, self.config.deaf_s)  # ends early only with the line
        answer = await self._read_serial(request.tap)
        steps = [f"deaf for {self.config.deaf_s:g} s", "read 0x8005", "idle"]
        return _with(answer, steps=steps)


def get_result(wanted: int, message: quec.Message, direction: str) -> dict[str, Any]:
    """What an answer to GET says; ``value`` only where there is one."""
    result = {**rules.message_result(message, direction), "parameter": f"0x{wanted:04X}"}
    if not isinstance(message.body, quec.GetResponse):
        return result
    summary = f"{rules.word_name(wanted)}: {rules.value_text(message)}"
    return {**result, "value": rules.value_json(message), "summary": summary}


def set_result(wanted: int, message: quec.Message, direction: str) -> dict[str, Any]:
    """What an answer to SET says."""
    result = {**rules.message_result(message, direction), "parameter": f"0x{wanted:04X}"}
    if isinstance(message.body, quec.SetResponse) and message.body.status not in (None, quec.SUCCESS):
        return result
    return {**result, "summary": f"{rules.word_name(wanted)} is written"}


def event_result(message: quec.Message, direction: str) -> dict[str, Any]:
    """What the acknowledgement of an event says."""
    generation = "G1" if message.command == quec.Command.EVENT_RESPONSE else "G2"
    return {**rules.message_result(message, direction), "form": generation}


def transparent_result(found: Sequence[Heard], direction: str) -> dict[str, Any]:
    """What came back through the transparent channel."""
    messages = [one for one in found if isinstance(one, quec.Message)]
    answer = b"".join(one.body.payload for one in messages if isinstance(one.body, quec.Transparent))
    return {
        "answer": answer.hex(), "text": answer.decode("latin-1"),
        "messages": [rules.message_result(one, direction) for one in messages],
    }  # fmt: skip


def lines_of(found: Sequence[Heard]) -> list[str]:
    """The lines of text in what came; passwords hidden."""
    return [rules.line_text(one) for one in found if isinstance(one, quec.AtReply | quec.TextLine)]


def _with(answer: Answer, **more: Any) -> Answer:
    return Answer(
        execution=answer.execution, code=answer.code, text=answer.text, result={**answer.result, **more},
        facts=answer.facts,
    )  # fmt: skip


def no_answer(text: str, result: Mapping[str, Any] | None = None) -> Answer:
    """Silence, in words."""
    found = {**(result or {}), "summary": text}
    return Answer(execution=Execution.FAILURE, code="NO_ANSWER", text=text, result=found)


def _read_back(name: str, content: quec.Typed | quec.Raw | None, wanted: bytes) -> Answer | None:
    if content is None:
        return None
    if content.octets == wanted:
        return Answer(text=f"{name} has the value that was written.", result={"summary": f"{name} is written"})
    text = f"{name} has another value than was written."
    return Answer(execution=Execution.FAILURE, code="NO_EFFECT", text=text, result={"summary": text})
