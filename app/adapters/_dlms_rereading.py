"""DLMS/COSEM commands carried out once more on recorded answers (``app.ports.Rereader``). Loaded by ``dlms`` on use.

The commands are those of ``_dlms_live``: only ``perform`` is another, which takes the answer to each request out of the
frames instead of from a meter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from app.adapters import _dlms_rules as rules
from app.adapters import _rereading as rereading
from app.adapters._dlms_live import DlmsAdapter, Talk
from app.adapters._rereading import NoSecrets, Unrecorded, carried_out, unseen
from app.adapters.dlms import Pace
from app.clock import StandingClock
from app.errors import LinkError, LinkReason, RemoteProtocolError
from app.model.command import CommandSpec, check_params
from app.model.device import Device
from app.model.interaction import Direction, Frame, Interaction
from app.model.line import LineFormat
from app.ports import AdapterContext, Answer, Dispatch, Execution, Tap
from app.protocols import dlms, hdlc, obis
from app.protocols import dlms_values as dv
from app.protocols import dlms_wrapper as wrapper
from app.protocols.dlms import Association, Client, Exchange, MeterRefusal, Profile
from app.protocols.dlms_objects import Scaler
from app.protocols.dlms_values import CosemTime, Value
from app.protocols.obis import Obis
from app.transports.line import Line

T = TypeVar("T")
Pairs = Sequence[tuple[bytes, bytes]]  # APDUs: a request and its answer
_UNTOLD: Final = (
    (datetime(2000, 1, 1, tzinfo=UTC), "standard", None),
    (datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC), "inverted", Scaler(3, "?")),
)
"""What frames do not tell, differently: this computer's clock, how the meter counts its deviation from UTC, and the
scaler of a register where it was read with an earlier command."""
_RUBBISH: Final = ("no frame", "no message", "our own frame", "for another address")  # notes of what is no answer
_INVOKE: Final = 2  # place of the invoke id and priority of a request and of its answer
_DESCRIPTOR_END: Final = 12  # behind class, name and attribute; before a selection or a value, which the clock may make
_GET: Final = 0xC0
_ANSWER: Final = 4


def reread(spec: CommandSpec, params: Mapping[str, Any], frames: Sequence[Frame]) -> Answer | None:
    """See ``Dlms.reread``."""
    if rereading.incoming(frames) is None:
        return None
    pairs = _pairs(frames)
    specs = {one.name: one for one in rules.commands({})}
    if spec.name not in specs:
        return None
    checked = check_params(specs[spec.name].params, params, spec.title)
    for facts in ({}, _facts(pairs)):
        try:
            return Answer(result=rereading.agreed([_result(spec, checked, pairs, facts, *one) for one in _UNTOLD]))
        except Unrecorded:
            continue
    return None


# ---------------------------------------------------------------- frames to APDUs


def _pairs(frames: Sequence[Frame]) -> Pairs:
    """Each request with the answer that followed it. Raises RemoteProtocolError: a frame is damaged."""
    pairs: list[tuple[bytes, bytes]] = []
    asked: bytes | None = None
    for direction, apdu in _apdus(frames):
        if direction is Direction.OUT:
            asked = apdu
        elif asked is not None and not dlms.is_unasked(apdu):
            pairs.append((asked, apdu))
            asked = None
    return pairs


def _apdus(frames: Sequence[Frame]) -> Iterator[tuple[Direction, bytes]]:
    parts = {Direction.IN: bytearray(), Direction.OUT: bytearray()}
    numbers: dict[Direction, int] = {}
    for frame in frames:
        is_ours = frame.direction is Direction.OUT
        if not frame.note or (not is_ours and frame.note.startswith(_RUBBISH)):
            continue
        if frame.data[:1] != bytes((hdlc.FLAG,)) and frame.data[:2] == wrapper.VERSION.to_bytes(2, "big"):
            found = wrapper.Decoder().feed(frame.data)
            if len(found) == 1 and isinstance(found[0], wrapper.Message):
                yield frame.direction, found[0].apdu
                continue
        decoder = hdlc.Decoder()
        cuts = [*decoder.feed(frame.data), *decoder.flush()]
        cut = cuts[0] if len(cuts) == 1 else None
        if not isinstance(cut, hdlc.Cut):
            if is_ours:  # a password was taken out, or it is of the sign-on
                continue
            reason = cuts[0].reason if cuts and isinstance(cuts[0], hdlc.Garbage) else "it is none"
            raise RemoteProtocolError(f"the frame {frame.note} cannot be read: {reason}.", frame.data)
        numbered, information = cut.frame, cut.frame.information or b""
        if numbered.kind != 0:
            if numbered.kind in (hdlc.SNRM, hdlc.UA):
                numbers.clear()
            continue
        if numbers.get(frame.direction) == numbered.send_number:
            continue  # a repetition
        numbers[frame.direction] = numbered.send_number
        parts[frame.direction] += information
        if not numbered.is_segmented:
            whole = bytes(parts[frame.direction])
            parts[frame.direction].clear()
            yield frame.direction, whole[len(hdlc.LLC_REQUEST) :]


def _key(request: bytes) -> bytes:
    """What tells one request from another, wherever and whenever it was made."""
    return request[:_INVOKE] + request[_INVOKE + 1 : _DESCRIPTOR_END]


def _facts(pairs: Pairs) -> dict[str, Any]:
    """The objects that were read, for a command that knew them from an object list before."""
    classes: dict[str, list[str]] = {}
    for request, _answer in pairs:
        if request[:2] == bytes((_GET, 1)) and len(request) >= _DESCRIPTOR_END and request[_DESCRIPTOR_END - 1] == 2:
            number, name = int.from_bytes(request[3:5], "big"), str(obis.from_logical_name(request[5:11]))
            classes.setdefault(str(number), []).append(name)
    settings = rules.settings_of({})
    kept = {name: settings[name] for name in ("client", "logical_device")}
    return {rules.OBJECTS: {**kept, "classes": classes}}


# ---------------------------------------------------------------- carrying out


def _result(
    spec: CommandSpec, params: Mapping[str, Any], pairs: Pairs, facts: Mapping[str, Any], moment: datetime,
    deviation: str, scaler: Scaler | None,
) -> Mapping[str, Any]:  # fmt: skip
    """Raises Unrecorded; RemoteProtocolError: the answers cannot be read, or they are no success."""
    device = Device(id="", name="the meter")
    settings = {**rules.settings_of({}), "deviation": deviation}
    context = AdapterContext(
        devices=(device,), settings=settings, clock=StandingClock(moment), tap=unseen, secrets=NoSecrets(),
        facts=lambda _device: facts,
    )  # fmt: skip
    interaction = Interaction(
        id=0, device="", adapter="dlms", command=spec.name, kind=spec.kind, created=moment, updated=moment
    )
    request = Dispatch(interaction=interaction, device=device, spec=spec, params=params, attempt=1, tap=unseen)
    adapter = _Recorded(context, pairs)
    try:
        answer = carried_out(adapter.carry_out(request, scaler))
    except MeterRefusal as exc:
        raise RemoteProtocolError(str(exc)) from exc
    if answer.execution is not Execution.SUCCESS:
        if not adapter.has_answered:  # all was ciphered
            raise Unrecorded
        raise RemoteProtocolError(answer.text)
    return answer.result


class _Recorded(DlmsAdapter):
    """A meter that answers as it did."""

    def __init__(self, context: AdapterContext, pairs: Pairs) -> None:
        super().__init__(context, open_line=_no_line, pace=Pace(relay_s=0.0), refused={})
        self._pairs = pairs
        self._at = 0

    @property
    def has_answered(self) -> bool:
        return self._at > 0

    async def carry_out(self, request: Dispatch, scaler: Scaler | None) -> Answer:
        """A command, as ``submit`` carries it out on an open line."""
        (session,) = self._sessions.values()
        session.clock = CosemTime.of(request.interaction.created.replace(tzinfo=None))
        return await self._handlers()[request.spec.name](request, _RecordedTalk(self, session, scaler))

    async def perform(
        self, session: Any, make: Callable[[Client], Exchange[T]], tap: Tap, note: str
    ) -> T:
        """As the live one: once more where the meter had forgotten the association."""
        while True:
            client = Client(Profile())
            client.association = Association(dlms.PROPOSED, 0)
            exchange = make(client)
            try:
                request = next(exchange)
                while True:
                    request = exchange.send(self._answer_to(request))
            except StopIteration as done:
                found: T = done.value
                return found
            except MeterRefusal as exc:
                if not exc.is_unassociated:
                    raise

    def _answer_to(self, request: bytes) -> bytes:
        """With the invoke id of ``request``, for ours are counted from another beginning."""
        wanted = _key(request)
        for at in range(self._at, len(self._pairs)):
            asked, answer = self._pairs[at]
            if _key(asked) != wanted:
                continue
            self._at = at + 1
            is_answer = len(answer) > _INVOKE and answer[0] == request[0] + _ANSWER
            if is_answer and answer[_INVOKE] == asked[_INVOKE]:
                return answer[:_INVOKE] + request[_INVOKE : _INVOKE + 1] + answer[_INVOKE + 1 :]
            return answer
        raise Unrecorded


class _RecordedTalk(Talk):
    def __init__(self, adapter: DlmsAdapter, session: Any, scaler: Scaler | None) -> None:
        super().__init__(adapter, session, unseen)
        self._scaler = scaler

    async def get(self, attribute: dlms.Attribute, selection: bytes = b"", note: str = "") -> Value:
        return dv.decode(await self.raw(attribute, selection, note))  # a long one too: there is no loop to be held up

    async def scaler(self, class_id: int, name: Obis, note: str = "") -> Scaler | None:
        try:
            return await super().scaler(class_id, name, note)
        except Unrecorded:
            return self._scaler


async def _no_line(address: str, line_format: LineFormat, *, whose: str, rs485: bool = False) -> Line:
    raise LinkError("Recorded frames are read without a line.", LinkReason.CLOSED)
