"""The conversation state machine of IEC 62056-21 against a scripted meter (specs/iec62056-and-dlms.md A2 to A7, A9)."""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import LocalProtocolError, ParameterError
from app.model.line import LineFormat, add_parity, remove_parity
from app.protocols import iec62056_21 as iec
from app.protocols import iec62056_session as sess
from app.protocols.iec62056_21 import Command, Mode, Verdict
from app.protocols.iec62056_session import Config, Fault, Job, Move, Session, State, Wakeup

VECTORS = Path(__file__).parents[2] / "vectors" / "iec62056.json"
IDENT = b"/LGZ5ZMF100\r\n"
TABLE = "F.F(00)\r\n0.0.0(12345678)\r\n1.8.0(001234.567*kWh)\r\n!\r\n"
BLOCK = iec.encode(iec.Data(TABLE))
SPOILT = BLOCK[:-1] + bytes((BLOCK[-1] ^ 1,))
SIGN_ON = b"/?!\r\n"
BREAK = b"\x01B0\x03q"
OPERAND = iec.encode(Command("P", "0", "(12345678)"))
READ = Command("R", "5", "0.9.1()")
Cut = Callable[[bytes], Iterable[bytes]]
Replies = list[tuple[float, bytes]]
Meter = Callable[[bytes, LineFormat], "Replies"]


def whole(data: bytes) -> list[bytes]:
    return [data]


def octets(data: bytes) -> list[bytes]:
    return [bytes((one,)) for one in data]


def at(place: int) -> Cut:
    return lambda data: [data[:place], data[place:]]


def chance(seed: int) -> Cut:
    def cut(data: bytes) -> list[bytes]:
        rng = random.Random(seed)
        parts = []
        while data:
            size = rng.randint(1, 7)
            parts.append(data[:size])
            data = data[size:]
        return parts

    return cut


class Wire:
    """Drives a session: what it sends takes its time at its rate, the meter's replies come when they are due."""

    def __init__(self, session: Session, meter: Meter, *, cut: Cut = whole, echo: bool = False) -> None:
        self.session = session
        self.meter = meter
        self.cut = cut
        self.echo = echo
        self.now = 0.0
        self.sent: list[tuple[bytes, str, float, float]] = []  # octets, format, began, ended
        self.switched: list[tuple[str, float]] = []
        self.notes: list[str] = []
        self.events: list[sess.Event] = []
        self.states: list[State] = [session.state]
        self.format = session.format
        self._coming: list[tuple[float, int, bytes]] = []
        self._number = 0

    def says(self, after: float, data: bytes) -> None:
        self._number += 1
        heapq.heappush(self._coming, (self.now + after, self._number, data))

    def _do(self, outputs: Sequence[sess.Output]) -> None:
        queue = list(outputs)
        while queue:
            match queue.pop(0):
                case sess.Send(data, note):
                    began, self.now = self.now, self.now + self.format.seconds(len(data))
                    self.sent.append((data, str(self.format), began, self.now))
                    self.notes.append(note)
                    if self.echo:
                        for part in self.cut(data):
                            queue += self.session.receive(part, self.now)
                    for after, reply in self.meter(data, self.format):
                        self.says(after, reply)
                    queue += self.session.sent(self.now)
                case sess.SetFormat(line_format):
                    self.format = line_format
                    self.switched.append((str(line_format), self.now))
                case event:
                    self.events.append(event)
            if self.states[-1] is not self.session.state:
                self.states.append(self.session.state)

    def run(self, outputs: Sequence[sess.Output], until: float | None = None) -> list[sess.Event]:
        """Until the session rests, and everything the meter says was heard."""
        seen = len(self.events)
        self._do(outputs)
        for _ in range(100_000):
            due = self.session.deadline
            if self._coming and (due is None or self._coming[0][0] <= due):
                moment, _number, data = heapq.heappop(self._coming)
                self.now = max(self.now, moment)
                for part in self.cut(data):
                    self._do(self.session.receive(part, self.now))
            elif due is not None and (until is None or due <= until):
                self.now = max(self.now, due)
                self._do(self.session.tick(self.now))
            else:
                return self.events[seen:]
            if until is None and self.session.is_resting and not self._coming:
                return self.events[seen:]
        raise AssertionError("the session never rests")

    @property
    def told(self) -> list[sess.Event]:
        """What was said, without the moments at which it was."""
        return [one for one in self.events if not isinstance(one, sess.Progress)]

    @property
    def words(self) -> list[bytes]:
        return [data for data, *_ in self.sent]


def scripted(*replies: tuple[bytes, bytes], after: float = 0.25) -> Meter:
    """A meter that answers octets with octets, each row used once and in order."""
    rows = list(replies)

    def meter(data: bytes, _format: LineFormat) -> Replies:
        if rows and rows[0][0] == data:
            return [(after, rows.pop(0)[1])]
        return []

    return meter


def mode_c(*more: tuple[bytes, bytes], ident: bytes = IDENT, option: bytes = b"\x06050\r\n") -> Meter:
    return scripted((SIGN_ON, ident), (option, BLOCK), *more)


def of(events: Iterable[Any], kind: type) -> Any:
    return next((one for one in events if isinstance(one, kind)), None)


def readout(meter: Meter, config: Config | None = None, **more: Any) -> Wire:
    wire = Wire(Session(config or Config()), meter, **more)
    wire.run(wire.session.sign_on(Job.READOUT, 0.0))
    return wire


def programming(*replies: tuple[bytes, bytes], config: Config | None = None, **more: Any) -> Wire:
    wire = Wire(Session(config or Config()), scripted((SIGN_ON, IDENT), (b"\x06051\r\n", OPERAND), *replies), **more)
    wire.run(wire.session.sign_on(Job.PROGRAMMING, 0.0))
    return wire


# ---------------------------------------------------------------- modes


def test_a_readout_in_mode_c_switches_once_at_the_right_moment_and_ends_with_a_break() -> None:
    wire = readout(mode_c())
    assert wire.words == [SIGN_ON, b"\x06050\r\n", BREAK]
    assert [rate for _, rate, *_ in wire.sent] == ["300 7E1", "300 7E1", "9600 7E1"]
    option_left = wire.sent[1][3]
    assert wire.switched[0] == ("9600 7E1", option_left)
    assert wire.switched[-1] == ("300 7E1", wire.sent[-1][3])
    assert wire.sent[1][2] - wire.sent[0][3] >= 0.25 + 0.2
    block = of(wire.events, sess.BlockReceived)
    assert (block.data, block.check.verdict) == (BLOCK, Verdict.GOOD)
    assert [one.data_set.address for one in wire.events if isinstance(one, sess.DataSetSeen)] == [
        "F.F", "0.0.0", "1.8.0"
    ]  # fmt: skip
    assert wire.states == [
        State.IDLE, State.WAIT_IDENT, State.OPTION_SELECT, State.READOUT, State.BREAK, State.IDLE
    ]  # fmt: skip
    assert isinstance(wire.events[-1], sess.Finished)


def test_a_lower_case_letter_shortens_our_reaction() -> None:
    slow, fast = (readout(mode_c(ident=ident)) for ident in (IDENT, b"/LGz5ZMF100\r\n"))
    waited = [wire.sent[1][2] - (wire.sent[0][3] + 0.25) for wire in (slow, fast)]
    assert waited[0] == pytest.approx(0.2)
    assert waited[1] == pytest.approx(0.02)


def test_a_turkish_meter_of_generation_2_is_answered_later() -> None:
    wire = readout(mode_c(ident=b"/MKS5<2>BED(M550)\r\n"))
    assert wire.sent[1][2] - (wire.sent[0][3] + 0.25) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("offered", "limit", "answered", "rate"),
    [
        ("5", 19200, "5", 9600),
        ("6", 9600, "5", 9600),
        ("6", 4000, "3", 2400),
        ("5", 300, "0", 300),
        ("9", 19200, "0", 300),
    ],
)
def test_a_rate_above_our_limit_is_answered_with_a_lower_one(
    offered: str, limit: int, answered: str, rate: int
) -> None:
    option = f"\x060{answered}0\r\n".encode()
    wire = readout(mode_c(ident=f"/LGZ{offered}ZMF\r\n".encode(), option=option), Config(max_baud=limit))
    assert wire.words[1] == option
    assert of(wire.events, sess.BlockReceived) is not None
    assert wire.sent[-1][1] == f"{rate} 7E1"


FIXED_RATES = [
    (9600, "<2>", "6", 19200, "5"),
    (9600, "<2>", "6", 4800, "5"),
    (9600, "<3>", "6", 19200, "6"),
    (300, "<2>", "6", 19200, "6"),
    (19200, "<2>", "5", 19200, "5"),
    (9600, "", "6", 19200, "6"),
]  # begun at, generation, offered, our limit, answered


@pytest.mark.parametrize(("begun", "generation", "offered", "limit", "answered"), FIXED_RATES)
@pytest.mark.parametrize(("job", "mode"), [(Job.READOUT, "0"), (Job.PROGRAMMING, "1")])
def test_a_turkish_meter_of_generation_2_stays_at_the_rate_it_was_begun_with(
    begun: int, generation: str, offered: str, limit: int, answered: str, job: Job, mode: str
) -> None:
    ident = f"/MKS{offered}{generation}ADM(M550)\r\n".encode()
    config = Config(initial=LineFormat(begun, 7, "E", 1), max_baud=limit)
    wire = Wire(Session(config), scripted((SIGN_ON, ident), (f"\x060{answered}{mode}\r\n".encode(), OPERAND)))
    wire.run(wire.session.sign_on(job, 0.0), until=3.0)
    assert wire.words[1] == f"\x060{answered}{mode}\r\n".encode()
    rate = iec.BAUD_MODE_C[answered]
    assert [rate for rate, _ in wire.switched[:1]] == ([] if rate == begun else [f"{rate} 7E1"])


def test_mode_a_sends_by_itself_at_the_initial_rate_with_and_without_a_frame() -> None:
    for answer, verdict in ((BLOCK, Verdict.GOOD), (TABLE.encode(), Verdict.NO_CHECK)):
        wire = readout(scripted((SIGN_ON, b"/LGZ.X\r\n" + answer)))
        block = of(wire.events, sess.BlockReceived)
        assert (block.check.verdict, iec.parse_readout(block.data).is_terminated) == (verdict, True)
        assert wire.words == [SIGN_ON, BREAK]
        assert wire.switched == []


def test_mode_b_switches_by_itself_to_the_rate_of_its_letter() -> None:
    wire = readout(scripted((SIGN_ON, b"/LGZEX\r\n" + BLOCK)))
    assert of(wire.events, sess.Identified).mode is Mode.B
    assert wire.switched[0][0] == "9600 7E1"
    assert of(wire.events, sess.BlockReceived).check.is_good
    wire = readout(scripted((SIGN_ON, b"/LGZFX\r\n")), Config(max_baud=9600))
    assert of(wire.events, sess.Failed).fault is Fault.RATE
    wire = readout(scripted((SIGN_ON, b"/LGZGX\r\n")))
    assert of(wire.events, sess.Failed).fault is Fault.RATE


def test_programming_mode_of_a_mode_b_meter_is_refused_here() -> None:
    wire = Wire(Session(Config()), scripted((SIGN_ON, b"/LGZEX\r\n")))
    wire.run(wire.session.sign_on(Job.PROGRAMMING, 0.0))
    assert of(wire.events, sess.Failed).fault is Fault.MODE
    assert wire.words == [SIGN_ON, BREAK]


def test_a_mode_c_meter_that_heard_no_option_select_is_read_at_the_initial_rate() -> None:
    def meter(data: bytes, line_format: LineFormat) -> Replies:
        if data == SIGN_ON:
            return [(0.3, IDENT)]
        if data == b"\x06050\r\n":
            return [(6.0, BLOCK)]  # at 300 Bd, after its own waiting time
        return []

    wire = readout(meter)
    assert [rate for rate, _ in wire.switched] == ["9600 7E1", "300 7E1"]
    assert of(wire.events, sess.BlockReceived).check.is_good
    assert State.WAIT_DATA in wire.states


def test_rubbish_at_the_new_rate_sends_us_back_at_once() -> None:
    def meter(data: bytes, line_format: LineFormat) -> Replies:
        if data == SIGN_ON:
            return [(0.3, IDENT)]
        if data == b"\x06050\r\n":
            return [(0.3, bytes(range(0x80, 0x98))), (1.0, BLOCK)]
        return []

    wire = readout(meter)
    assert wire.switched[1][0] == "300 7E1"
    assert wire.switched[1][1] - wire.switched[0][1] < 0.5
    assert of(wire.events, sess.BlockReceived).check.is_good


E_IDENT = b"/LGZ5\\2ZMG405\r\n"
CONFIRMED = b"\x06252\r\n"


@pytest.mark.parametrize("echo", [False, True])
def test_mode_e_waits_for_the_confirmation_and_then_speaks_8n1(echo: bool) -> None:
    wire = Wire(Session(Config()), scripted((SIGN_ON, E_IDENT), (CONFIRMED, CONFIRMED)), echo=echo)
    wire.run(wire.session.sign_on(Job.HDLC, 0.0))
    assert wire.states[-1] is State.HDLC
    assert of(wire.events, sess.HdlcReady) is not None
    assert wire.switched == [("9600 8N1", wire.now)]
    assert wire.now - wire.sent[1][3] >= 0.25  # not at the reflection of our own
    wire.run(wire.session.finish(wire.now))
    assert wire.session.state is State.IDLE
    assert wire.format == LineFormat(300, 7, "E", 1)


def test_mode_e_without_confirmation_goes_on_as_mode_c() -> None:
    wire = Wire(Session(Config()), scripted((SIGN_ON, E_IDENT), (b"\x06050\r\n", BLOCK)), echo=True)
    wire.run(wire.session.sign_on(Job.HDLC, 0.0))
    assert wire.words[1:3] == [CONFIRMED, b"\x06050\r\n"]
    assert of(wire.events, sess.BlockReceived).check.is_good


def test_hdlc_with_a_meter_that_has_none() -> None:
    wire = Wire(Session(Config()), scripted((SIGN_ON, IDENT)))
    wire.run(wire.session.sign_on(Job.HDLC, 0.0))
    assert of(wire.events, sess.Failed).fault is Fault.MODE


def test_a_forced_mode_wins_over_the_identification() -> None:
    wire = readout(scripted((SIGN_ON, IDENT + BLOCK)), Config(mode=Mode.A))
    assert wire.words == [SIGN_ON, BREAK]
    assert of(wire.events, sess.BlockReceived).check.is_good


# ---------------------------------------------------------------- mode D and listening


def test_mode_d_only_receives() -> None:
    push = b"/KAM3MC\r\n\r\n" + TABLE.encode()
    wire = Wire(Session(Config()), scripted())
    wire.says(3.0, b"00(17)\r\n!\r\n" + push)
    wire.run(wire.session.listen(0.0, patience_s=30.0))
    block = of(wire.events, sess.BlockReceived)
    assert iec.parse_readout(block.data).find("1.8.0") is not None
    assert block.check.verdict is Verdict.NO_CHECK
    assert wire.sent == []
    assert wire.session.state is State.IDLE


def test_mode_d_without_a_push_fails_after_its_patience() -> None:
    wire = Wire(Session(Config()), scripted())
    wire.run(wire.session.listen(0.0, patience_s=30.0))
    assert of(wire.events, sess.Failed).fault is Fault.SILENT
    assert wire.now == 30.0
    assert wire.sent == []


@pytest.mark.parametrize("cut", [whole, octets, chance(1), chance(2)])
def test_listening_tells_every_message_of_a_line_of_others(cut: Cut) -> None:
    stream = (
        SIGN_ON + IDENT + b"\x06050\r\n" + BLOCK + b"\x06" + SIGN_ON + b"/KAM3MC\r\n\r\n" + TABLE.encode()
        + OPERAND + b"\x15" + SPOILT + BREAK
    )  # fmt: skip
    wire = Wire(Session(Config()), scripted(), cut=cut)
    wire.says(1.0, stream)
    wire.run(wire.session.listen(0.0), until=20.0)
    heard = [one.message for one in wire.events if isinstance(one, sess.Heard)]
    assert heard[:5] == [
        iec.Request(), iec.Option("0", "5", "0"), iec.Acknowledge(), iec.Request(), Command("P", "0", "(12345678)")
    ]  # fmt: skip
    assert isinstance(heard[5], iec.Refuse)
    assert isinstance(heard[6], iec.Damaged)
    assert heard[7:] == [iec.BREAK]
    blocks = [one.check.verdict for one in wire.events if isinstance(one, sess.BlockReceived)]
    assert blocks == [Verdict.GOOD, Verdict.NO_CHECK]
    assert wire.sent == []


def test_listening_tells_what_breaks_off() -> None:
    wire = Wire(Session(Config()), scripted())
    wire.says(1.0, b"/KAM3MC\r\n\r\n1.8.0(000")
    wire.says(9.0, BLOCK[:20])
    wire.run(wire.session.listen(0.0), until=20.0)
    cut = [one.message for one in wire.events if isinstance(one, sess.Heard)]
    assert [one.check.verdict for one in cut if isinstance(one, iec.Damaged)] == [Verdict.CUT, Verdict.CUT]


# ---------------------------------------------------------------- sign-on


def test_the_sign_on_is_repeated_three_times_with_a_pause() -> None:
    wire = readout(scripted())
    assert wire.words == [SIGN_ON] * 4 + [BREAK]
    failed = of(wire.events, sess.Failed)
    assert failed.fault is Fault.SILENT
    assert "4 times at 300 7E1" in failed.sentence
    starts = [began for data, _, began, _ in wire.sent if data == SIGN_ON]
    assert all(second - first >= 2.0 + 1.5 for first, second in itertools.pairwise(starts))


def test_an_answer_to_a_repeated_sign_on_is_taken() -> None:
    calls = []

    def meter(data: bytes, _format: LineFormat) -> Replies:
        calls.append(data)
        if data == SIGN_ON and calls.count(SIGN_ON) == 3:
            return [(0.3, IDENT)]
        return [(0.3, BLOCK)] if data.startswith(b"\x06") else []

    assert of(readout(meter).events, sess.BlockReceived).check.is_good


def test_address_and_table() -> None:
    config = Config(request=iec.Request("12345678", "3"), repeats=0)
    assert readout(scripted(), config).words[0] == b"/312345678!\r\n"
    with pytest.raises(ParameterError):
        Session(Config(request=iec.Request("nö"))).sign_on(Job.READOUT, 0.0)


def test_a_battery_meter_is_woken_by_nuls_and_a_pause() -> None:
    wire = readout(mode_c(), Config(wakeup=Wakeup.BATTERY))
    nuls, asked = wire.sent[0], wire.sent[1]
    assert set(nuls[0]) == {0}
    assert 2.1 <= nuls[3] - nuls[2] <= 2.3
    assert 1.5 <= asked[2] - nuls[3] <= 1.7
    assert of(wire.events, sess.BlockReceived) is not None
    assert State.WAKEUP in wire.states


def test_a_heat_meter_is_woken_and_read_at_2400() -> None:
    wire = readout(
        scripted(
            (SIGN_ON, b"/LUGCUH50\r\n"),
        ),
        Config(wakeup=Wakeup.HEAT, repeats=0),
    )
    assert wire.words[0] == bytes(45)
    assert wire.sent[1][2] == wire.sent[0][3]
    assert wire.switched[0][0] == "2400 7E1"


@pytest.mark.parametrize(("answers_at", "sign_ons"), [(2400, 1), (300, 2)])
def test_a_heat_meter_is_listened_to_at_2400_first(answers_at: int, sign_ons: int) -> None:
    wire = Wire(Session(Config(wakeup=Wakeup.HEAT)), lambda _data, _format: [])
    step = sess.Session.sent

    def sent(now: float) -> list[sess.Output]:
        if wire.words[-1:] == [SIGN_ON] and wire.session.format.baud == answers_at:  # as it is listened to
            wire.says(0.3, b"/LUGCUH50\r\n" + BLOCK)
        return step(wire.session, now)

    wire.session.sent = sent  # type: ignore[method-assign]
    wire.run(wire.session.sign_on(Job.READOUT, 0.0))
    assert of(wire.events, sess.BlockReceived).check.is_good
    assert wire.words.count(SIGN_ON) == sign_ons
    assert {rate for data, rate, *_ in wire.sent if data == SIGN_ON} == {"300 7E1"}


def noisy(noise: bytes, config: Config) -> Wire:
    wire = Wire(Session(config), lambda data, _format: [(0.3, noise)] if data.endswith(b"\r\n") else [])
    wire.run(wire.session.sign_on(Job.READOUT, 0.0))
    return wire


@pytest.mark.parametrize(
    ("noise", "cause"),
    [
        (add_parity(IDENT), "parity by software"),
        (b"1.8.0(001234.567*kWh)\r\n", "still send"),
        (bytes(range(0x91, 0xF1, 7)), "another rate"),
        (b"\x80\x80\x93", "another rate"),
    ],
)
@pytest.mark.parametrize("repeats", [0, 2])
def test_octets_that_are_no_identification_are_told_with_what_they_may_be(
    noise: bytes, cause: str, repeats: int
) -> None:
    wire = noisy(b"\0" + noise, Config(repeats=repeats))
    failed = of(wire.events, sess.Failed)
    assert failed.fault is Fault.NOISE
    assert f"{(repeats + 1) * len(noise)} octets came" in failed.sentence
    assert cause in failed.sentence
    assert failed.data[: len(noise)] == noise
    assert wire.words == [SIGN_ON] * (repeats + 1) + [BREAK]


@pytest.mark.parametrize("echo", [False, True])
def test_our_own_octets_and_nuls_are_no_noise(echo: bool) -> None:
    wire = Wire(Session(Config(repeats=1)), lambda _data, _format: [(0.3, b"\0\0")], echo=echo)
    wire.run(wire.session.sign_on(Job.READOUT, 0.0))
    assert of(wire.events, sess.Failed).fault is Fault.SILENT


def test_a_repeated_sign_on_waits_until_the_meter_is_silent() -> None:
    """The port was opened while the meter sends a readout: it hears nothing before its end."""
    ends = 20.0

    def meter(data: bytes, _format: LineFormat) -> Replies:
        if data == SIGN_ON and wire.now > ends:
            return [(0.3, IDENT)]
        return [(0.3, BLOCK)] if data.startswith(iec.ACK) else []

    wire = Wire(Session(Config(repeats=1)), meter)
    for number in range(int(ends)):
        wire.says(float(number), b"1.8.0(1)\r\n")
    wire.run(wire.session.sign_on(Job.READOUT, 0.0))
    assert of(wire.events, sess.BlockReceived).check.is_good
    again = [began for data, _, began, _ in wire.sent if data == SIGN_ON][1]
    assert ends - 1 + sess.STANDARD.gap_s <= again < ends + 2


def test_a_line_that_is_never_silent_does_not_hold_a_repeat_for_ever() -> None:
    wire = Wire(Session(Config(repeats=3)), scripted())
    for number in range(400):
        wire.says(float(number), b"x")
    wire.run(wire.session.sign_on(Job.READOUT, 0.0))
    assert of(wire.events, sess.Failed).fault is Fault.NOISE
    assert wire.words == [SIGN_ON] * 4 + [BREAK]
    assert wire.sent[-1][2] < sess.STANDARD.quiet_s + 4 * (2.0 + 1.5 + 1.0)


def test_identify_only() -> None:
    wire = Wire(Session(Config()), scripted((SIGN_ON, IDENT)))
    wire.run(wire.session.sign_on(Job.IDENTIFY, 0.0))
    assert str(of(wire.events, sess.Identified).identification) == "/LGZ5ZMF100"
    assert wire.words == [SIGN_ON, BREAK]


def test_a_trial_without_answer_sends_no_break() -> None:
    wire = Wire(Session(Config(repeats=0, is_trial=True)), scripted())
    wire.run(wire.session.sign_on(Job.IDENTIFY, 0.0))
    assert wire.words == [SIGN_ON]
    assert of(wire.events, sess.Failed).fault is Fault.SILENT
    assert wire.session.state is State.IDLE
    wire = Wire(Session(Config(repeats=0, is_trial=True)), scripted((SIGN_ON, IDENT)))
    wire.run(wire.session.sign_on(Job.IDENTIFY, 0.0))
    assert wire.words == [SIGN_ON, BREAK]


def test_a_babbling_line_does_not_hold_a_sign_on() -> None:
    def meter(data: bytes, _format: LineFormat) -> Replies:
        return [(0.1 * n, b"/?x") for n in range(1, 400)] if data == SIGN_ON else []

    wire = Wire(Session(Config(repeats=0)), meter)
    wire.run(wire.session.sign_on(Job.READOUT, 0.0))
    failed_at = wire.sent[-1][2]
    assert wire.words == [SIGN_ON, BREAK]
    assert failed_at < 12.0


# ---------------------------------------------------------------- echo, NULs, parity, chunks


@pytest.mark.parametrize("cut", [whole, octets, chance(3), chance(4)])
@pytest.mark.parametrize("echo", [False, True])
def test_the_outcome_is_the_same_however_it_is_cut_and_reflected(cut: Cut, echo: bool) -> None:
    plain = readout(mode_c())
    wire = readout(mode_c(), cut=cut, echo=echo)
    assert (wire.told, wire.words) == (plain.told, plain.words)


def test_a_readout_cut_at_each_octet() -> None:
    plain = readout(mode_c())
    for place in range(len(BLOCK) + 1):
        wire = readout(mode_c(), cut=at(place), echo=bool(place % 2))
        assert (wire.told, wire.words) == (plain.told, plain.words)


@pytest.mark.parametrize("echo", [False, True])
def test_programming_cut_at_each_octet(echo: bool) -> None:
    command = iec.encode(READ)
    answer = iec.encode(iec.Data("0.9.1(123456)"))
    for place in range(len(answer) + 1):
        wire = programming((command, answer), cut=at(place), echo=echo)
        events = wire.run(wire.session.command(READ, wire.now))
        assert of(events, sess.Answered) == sess.Answered("0.9.1(123456)")
        wire.run(wire.session.finish(wire.now))
        assert wire.words[-1] == BREAK


def test_an_answer_that_begins_like_the_reflection_is_not_damaged() -> None:
    for cut in (whole, octets):
        wire = readout(mode_c(ident=b"/aBC5X\r\n"), cut=cut)
        assert of(wire.events, sess.Identified).identification.manufacturer == "aBC"
    option = b"\x06050\r\n"
    wire = readout(scripted((SIGN_ON, IDENT), (option, option + BLOCK)))  # not a reflection: this head has none
    assert of(wire.events, sess.BlockReceived).check.is_good


def test_nuls_around_everything() -> None:
    wire = readout(mode_c(ident=b"\0\0" + IDENT), echo=True)
    assert of(wire.events, sess.BlockReceived).check.is_good
    wire = readout(scripted((SIGN_ON, b"\0\0\0" + IDENT), (b"\x06050\r\n", b"\0\0" + BLOCK)))
    assert of(wire.events, sess.BlockReceived).data == BLOCK


def test_parity_by_software() -> None:
    config = Config(initial=LineFormat(300, 8, "N", 1), software_parity=True)
    plain_meter = mode_c()

    def meter(data: bytes, line_format: LineFormat) -> Replies:
        clean, faults = remove_parity(data)
        assert faults == ()
        return [(after, add_parity(reply)) for after, reply in plain_meter(clean, line_format)]

    wire = readout(meter, config, echo=True)
    assert wire.words[0] == bytes.fromhex("AF3F218D0A")
    assert of(wire.events, sess.BlockReceived).data == BLOCK
    assert wire.switched[0][0] == "9600 8N1"
    assert wire.session.parity_faults == 0
    session = Session(config)
    session.listen(0.0)
    session.receive(b"\x80\x01", 0.0)
    assert session.parity_faults == 2


# ---------------------------------------------------------------- damaged blocks


def test_a_damaged_block_is_asked_for_again() -> None:
    wire = readout(scripted((SIGN_ON, IDENT), (b"\x06050\r\n", SPOILT), (iec.NAK, SPOILT), (iec.NAK, BLOCK)))
    assert wire.words == [SIGN_ON, b"\x06050\r\n", iec.NAK, iec.NAK, BREAK]
    assert of(wire.events, sess.BlockReceived).check.is_good
    assert of(wire.events, sess.Failed) is None


def test_a_block_that_stays_damaged_fails_with_both_values() -> None:
    wire = readout(scripted((SIGN_ON, IDENT), (b"\x06050\r\n", SPOILT), *[(iec.NAK, SPOILT)] * 9))
    failed = of(wire.events, sess.Failed)
    assert wire.words.count(iec.NAK) == 3
    assert failed.fault is Fault.CHECK
    assert f"received {SPOILT[-1]:02X}, computed {BLOCK[-1]:02X}" in failed.sentence
    assert failed.data == SPOILT
    assert wire.words[-1] == BREAK


def test_a_meter_that_does_not_repeat_a_damaged_block() -> None:
    wire = readout(scripted((SIGN_ON, IDENT), (b"\x06050\r\n", SPOILT)))
    assert of(wire.events, sess.Failed).fault is Fault.CHECK


def test_the_vector_with_a_wrong_check_is_answered_with_nak() -> None:
    vector = next(one for one in json.loads(VECTORS.read_text())["vectors"] if one["id"] == "I-25")
    wire = readout(scripted((SIGN_ON, IDENT), (b"\x06050\r\n", bytes.fromhex(vector["raw_hex"]))))
    assert iec.NAK in wire.words
    assert "received 7E, computed 7F" in of(wire.events, sess.Failed).sentence


CUT = BLOCK[:-2]


@pytest.mark.parametrize("again", [CUT, b""])
def test_a_readout_without_etx_is_asked_for_once_more_and_then_incomplete(again: bytes) -> None:
    wire = readout(scripted((SIGN_ON, IDENT), (b"\x06050\r\n", CUT), (iec.NAK, again), (iec.NAK, BLOCK)))
    assert of(wire.events, sess.BlockReceived) is None
    failed = of(wire.events, sess.Failed)
    assert (failed.fault, failed.data) == (Fault.INCOMPLETE, CUT)
    assert "asked for again once" in failed.sentence
    assert wire.words[2:] == [iec.NAK, BREAK]


def test_a_readout_whose_etx_comes_the_second_time_is_whole() -> None:
    wire = readout(scripted((SIGN_ON, IDENT), (b"\x06050\r\n", CUT), (iec.NAK, BLOCK)))
    assert of(wire.events, sess.BlockReceived).check.is_good
    assert of(wire.events, sess.Failed) is None


def test_a_missing_last_line() -> None:
    block = iec.encode(iec.Data("1.8.0(1*kWh)\r\n"))
    found = of(readout(scripted((SIGN_ON, IDENT), (b"\x06050\r\n", block))).events, sess.BlockReceived)
    assert found.check.is_good
    assert not iec.parse_readout(found.data).is_terminated


def test_a_lost_stx_still_checks() -> None:
    found = of(readout(scripted((SIGN_ON, IDENT), (b"\x06050\r\n", BLOCK[1:]))).events, sess.BlockReceived)
    assert found.check.is_good


def test_a_readout_that_breaks_off_is_asked_for_again() -> None:
    wire = readout(scripted((SIGN_ON, IDENT), (b"\x06050\r\n", BLOCK[:30]), (iec.NAK, BLOCK)))
    assert of(wire.events, sess.BlockReceived).check.is_good
    wire = readout(scripted((SIGN_ON, b"/LGZ.X\r\n1.8.0(1)\r\n2.8.0(")))
    assert of(wire.events, sess.Failed).fault is Fault.INCOMPLETE
    wire = readout(scripted((SIGN_ON, IDENT), (b"\x06050\r\n", BLOCK[:30])))
    assert of(wire.events, sess.Failed).fault is Fault.INCOMPLETE


def test_an_error_message_and_a_break_instead_of_data() -> None:
    error = iec.encode(iec.ErrorMessage("ER03"))
    wire = readout(scripted((SIGN_ON, IDENT), (b"\x06050\r\n", error)))
    assert of(wire.events, sess.MeterError) == sess.MeterError("ER03")
    wire = readout(scripted((SIGN_ON, IDENT), (b"\x06050\r\n", BREAK)))
    assert of(wire.events, sess.Failed).fault is Fault.ENDED


def test_a_readout_without_end_is_bounded() -> None:
    config = Config(max_octets=5000)
    wire = Wire(Session(config), mode_c())
    wire.meter = scripted((SIGN_ON, IDENT), (b"\x06050\r\n", iec.STX + b"1.8.0(1)\r\n" * 2000))
    wire.run(wire.session.sign_on(Job.READOUT, 0.0))
    assert of(wire.events, sess.Failed).fault is Fault.TOO_LONG
    assert wire.words[-1] == BREAK


def test_identified_and_then_silent() -> None:
    wire = readout(lambda data, _format: [(0.3, IDENT)] if data == SIGN_ON else [])
    assert of(wire.events, sess.Failed).fault is Fault.NO_DATA
    assert wire.words.count(SIGN_ON) == 4


# ---------------------------------------------------------------- programming mode


def test_programming_mode_without_password() -> None:
    wire = programming()
    assert wire.session.state is State.PROG_READY
    assert of(wire.events, sess.Ready) == sess.Ready("12345678")
    wire.run(wire.session.finish(wire.now))
    assert wire.words == [SIGN_ON, b"\x06051\r\n", BREAK]
    assert wire.format == sess.INITIAL


PASSWORD = Config(password="00000000")
P1 = iec.encode(Command("P", "1", "(00000000)"))


def test_the_password_is_accepted() -> None:
    wire = programming((P1, iec.ACK), config=PASSWORD)
    assert of(wire.events, sess.Ready) is not None
    assert "00000000" not in repr(wire.session.config)
    assert "00000000" not in repr(sess.Send(P1, "password"))
    level = programming((iec.encode(Command("P", "2", "(1)")), iec.ACK), config=Config(password="1", level="2"))
    assert of(level.events, sess.Ready) is not None


@pytest.mark.parametrize(
    "answer", [iec.NAK, iec.encode(iec.ErrorMessage("ER01")), BREAK, iec.encode(iec.ErrorMessage("ER01"))[:-1] + b"\0"]
)
def test_a_refused_password_is_final(answer: bytes) -> None:
    wire = programming((P1, answer), config=PASSWORD)
    assert of(wire.events, sess.PasswordRefused) is not None
    assert wire.words.count(P1) == 1
    assert wire.words[-1] == BREAK
    assert wire.session.state is State.IDLE


def test_a_password_without_answer_is_not_repeated() -> None:
    wire = programming(config=PASSWORD)
    assert of(wire.events, sess.Failed).fault is Fault.SILENT
    assert wire.words.count(P1) == 1


def test_a_nak_before_the_password_has_left_refuses_nothing() -> None:
    wire = Wire(Session(PASSWORD), scripted((SIGN_ON, IDENT), (b"\x06051\r\n", OPERAND + iec.NAK), (P1, iec.ACK)))
    wire.run(wire.session.sign_on(Job.PROGRAMMING, 0.0))
    assert of(wire.events, sess.Ready) is not None


def test_a_password_that_cannot_be_sent() -> None:
    wire = programming(config=Config(password="nö"))
    assert of(wire.events, sess.Failed).fault is Fault.MODE
    assert wire.words[-1] == BREAK


def test_no_programming_mode() -> None:
    wire = Wire(Session(Config()), lambda data, _format: [(0.3, IDENT)] if data == SIGN_ON else [])
    wire.run(wire.session.sign_on(Job.PROGRAMMING, 0.0))
    assert of(wire.events, sess.Failed).fault is Fault.NO_DATA
    for answer in (iec.NAK, iec.encode(iec.ErrorMessage("ER05"))):
        wire = Wire(Session(Config()), scripted((SIGN_ON, IDENT), (b"\x06051\r\n", answer)))
        wire.run(wire.session.sign_on(Job.PROGRAMMING, 0.0))
        assert of(wire.events, sess.MeterError) is not None


def test_a_damaged_operand_is_asked_for_again() -> None:
    spoilt = OPERAND[:-1] + bytes((OPERAND[-1] ^ 1,))
    wire = Wire(Session(Config()), scripted((SIGN_ON, IDENT), (b"\x06051\r\n", spoilt), (iec.NAK, OPERAND)))
    wire.run(wire.session.sign_on(Job.PROGRAMMING, 0.0))
    assert of(wire.events, sess.Ready) is not None


def command(wire: Wire, what: Command) -> list[sess.Event]:
    return wire.run(wire.session.command(what, wire.now))


@pytest.mark.parametrize("kind", "123456")
def test_reads_of_every_kind_with_partial_blocks(kind: str) -> None:
    read = Command("R", kind, "P.01(;)")
    parts = [
        iec.encode(iec.Data("P.01(0", more=True)),
        iec.encode(iec.Data("1)(2", more=True)),
        iec.encode(iec.Data("3)")),
    ]
    wire = programming((iec.encode(read), parts[0]), (iec.ACK, parts[1]), (iec.ACK, parts[2]))
    assert of(command(wire, read), sess.Answered) == sess.Answered("P.01(01)(23)")
    assert wire.words.count(iec.ACK) == 2


def test_a_damaged_partial_block_is_asked_for_again() -> None:
    read = Command("R", "6", "P.01(;)")
    first, last = iec.encode(iec.Data("P.01(1", more=True)), iec.encode(iec.Data("2)"))
    spoilt = last[:-1] + bytes((last[-1] ^ 1,))
    wire = programming((iec.encode(read), first), (iec.ACK, spoilt), (iec.NAK, last))
    assert of(command(wire, read), sess.Answered) == sess.Answered("P.01(12)")
    wire = programming((iec.encode(read), first), (iec.ACK, spoilt), *[(iec.NAK, spoilt)] * 9)
    assert "received" in of(command(wire, read), sess.Failed).sentence
    assert wire.words.count(iec.NAK) == 3


@pytest.mark.parametrize("what", [Command("W", kind, "0.9.1(1)") for kind in "12345"] + [Command("E", "2", "X()")])
def test_writes_and_execute(what: Command) -> None:
    wire = programming((iec.encode(what), iec.ACK), (iec.encode(what), iec.NAK), (iec.encode(what), b""))
    assert command(wire, what) == [sess.Answered(None)]
    assert command(wire, what) == [sess.MeterError("NAK")]
    events = command(wire, what)
    assert of(events, sess.Failed).fault is Fault.SILENT
    assert wire.words.count(iec.encode(what)) == 3  # never repeated by itself


def test_an_error_message_leaves_programming_mode_standing() -> None:
    wire = programming(
        (iec.encode(READ), iec.encode(iec.ErrorMessage("ER02"))), (iec.encode(READ), iec.encode(iec.Data("(1)")))
    )
    assert command(wire, READ) == [sess.MeterError("ER02")]
    assert command(wire, READ) == [sess.Answered("(1)")]


def test_a_read_is_repeated_when_nothing_comes_and_once_after_nak() -> None:
    wire = programming()
    assert of(command(wire, READ), sess.Failed).fault is Fault.SILENT
    assert wire.words.count(iec.encode(READ)) == 4
    wire = programming((iec.encode(READ), iec.NAK), (iec.encode(READ), iec.NAK))
    assert command(wire, READ) == [sess.MeterError("NAK")]


def test_our_answers_come_no_earlier_than_the_least_reaction() -> None:
    wire = programming((iec.encode(READ), iec.encode(iec.Data("(1)"))))
    heard = wire.now
    command(wire, READ)
    assert wire.sent[-1][2] - heard == pytest.approx(0.2)


def test_a_meter_that_ends_the_conversation() -> None:
    wire = programming((iec.encode(READ), BREAK))
    assert of(command(wire, READ), sess.Failed).fault is Fault.ENDED
    wire = programming()
    wire.says(60.0, BREAK)
    assert of(wire.run([]), sess.Failed).fault is Fault.ENDED


def test_an_answer_that_breaks_off() -> None:
    answer = iec.encode(iec.Data("(12345)"))
    wire = programming((iec.encode(READ), answer[:5]), (iec.NAK, answer))
    assert command(wire, READ) == [sess.Answered("(12345)")]


def test_an_answer_without_end_is_bounded() -> None:
    wire = programming((iec.encode(READ), iec.STX + b"1" * 900), config=Config(max_octets=500))
    assert of(command(wire, READ), sess.Failed).fault is Fault.TOO_LONG


def test_the_other_sign_off() -> None:
    wire = programming(config=Config(sign_off="1"))
    wire.run(wire.session.finish(wire.now))
    assert wire.words[-1] == iec.encode(Command("B", "1"))


def test_octets_as_they_are() -> None:
    wire = Wire(Session(Config()), scripted((b"/*!\r\n", b"anything")))
    wire.run(wire.session.raw(b"/*!\r\n", 0.0, 5.0))
    assert of(wire.events, sess.RawAnswer).data == b"anything"
    assert wire.words == [b"/*!\r\n", BREAK]


# ---------------------------------------------------------------- cancelling, order, table


def _reached() -> dict[State, Callable[[], Wire]]:
    """A way into each state that can be left."""
    silent: Meter = lambda _data, _format: []  # noqa: E731

    def waiting(job: Job, meter: Meter, until: State, config: Config = Config()) -> Wire:
        wire = Wire(Session(config), meter)
        outputs = wire.session.sign_on(job, 0.0)
        for _ in range(200):
            if wire.session.state is until:
                return wire
            if outputs:
                one = outputs.pop(0)
                if isinstance(one, sess.Send):
                    wire.sent.append((one.data, "", 0.0, 0.0))
                    for _after, reply in meter(one.data, wire.format):
                        wire.says(0.3, reply)
                    outputs += wire.session.sent(wire.now)
            elif wire._coming:
                wire.now, _number, data = heapq.heappop(wire._coming)
                outputs += wire.session.receive(data, wire.now)
            else:
                assert wire.session.deadline is not None
                wire.now = wire.session.deadline
                outputs += wire.session.tick(wire.now)
        raise AssertionError(until)

    def answering() -> Wire:
        wire = programming()
        wire.session.command(READ, wire.now)
        return wire

    def raw() -> Wire:
        wire = Wire(Session(Config()), silent)
        wire.session.raw(b"x", 0.0, 1.0)
        return wire

    only_ident = scripted((SIGN_ON, IDENT))
    return {
        State.WAKEUP: lambda: waiting(Job.READOUT, silent, State.WAKEUP, Config(wakeup=Wakeup.BATTERY)),
        State.SIGN_ON: lambda: waiting(Job.READOUT, silent, State.SIGN_ON),
        State.WAIT_IDENT: lambda: waiting(Job.READOUT, silent, State.WAIT_IDENT),
        State.OPTION_SELECT: lambda: waiting(Job.READOUT, scripted((SIGN_ON, IDENT)), State.OPTION_SELECT),
        State.SWITCH: lambda: waiting(Job.READOUT, scripted((SIGN_ON, IDENT)), State.SWITCH),
        State.READOUT: lambda: waiting(Job.READOUT, only_ident, State.READOUT),
        State.WAIT_DATA: lambda: waiting(Job.READOUT, scripted((SIGN_ON, b"/LGZ.X\r\n")), State.WAIT_DATA),
        State.WAIT_ECHO: lambda: waiting(Job.HDLC, scripted((SIGN_ON, E_IDENT)), State.WAIT_ECHO),
        State.PROG_WAIT_P0: lambda: waiting(Job.PROGRAMMING, scripted((SIGN_ON, IDENT)), State.PROG_WAIT_P0),
        State.PROG_AUTH: lambda: waiting(
            Job.PROGRAMMING, scripted((SIGN_ON, IDENT), (b"\x06051\r\n", OPERAND)), State.PROG_AUTH, PASSWORD
        ),
        State.PROG_READY: programming,
        State.PROG_WAIT_ANSWER: answering,
        State.RAW: raw,
    }


@pytest.mark.parametrize("state", list(_reached()))
def test_cancelling_sends_a_break_at_once_and_restores_the_rate(state: State) -> None:
    wire = _reached()[state]()
    assert wire.session.state is state
    begin = wire.now
    wire.meter = lambda _data, _format: []
    wire._coming.clear()
    wire.sent.clear()
    wire.run(wire.session.cancel(begin))
    assert wire.words == [BREAK]
    assert wire.sent[0][2] == begin
    assert wire.session.format == sess.INITIAL
    assert wire.session.state is State.IDLE
    assert isinstance(wire.events[-1], sess.Finished)


def test_a_break_that_was_cancelled_is_sent_again() -> None:
    session = Session(Config())
    session.sign_on(Job.READOUT, 0.0)
    first = session.cancel(0.0)
    again = session.cancel(0.1)
    assert [one.data for one in (*first, *again) if isinstance(one, sess.Send)] == [BREAK, BREAK]
    session.sent(0.2)
    assert session.is_resting
    assert session.cancel(0.3) == []


def test_cancelling_listening_sends_nothing() -> None:
    session = Session(Config())
    session.listen(0.0)
    assert session.cancel(1.0) == [sess.Finished()]


def test_what_is_not_possible_now_is_refused() -> None:
    session = Session(Config())
    with pytest.raises(LocalProtocolError):
        session.command(READ, 0.0)
    session.sign_on(Job.READOUT, 0.0)
    with pytest.raises(LocalProtocolError):
        session.sign_on(Job.READOUT, 0.0)
    with pytest.raises(LocalProtocolError):
        session.listen(0.0)
    with pytest.raises(LocalProtocolError):
        session.raw(b"", 0.0, 1.0)


def test_every_row_of_the_table_moves_and_every_other_is_refused() -> None:
    for state in State:
        for move in Move:
            session = Session(Config())
            session.state = state
            wanted = sess.TRANSITIONS.get((state, move))
            if wanted is None:
                with pytest.raises(LocalProtocolError):
                    session._move(move)
                assert session.state is state
            else:
                session._move(move)
                assert session.state is wanted
    reached = {State.IDLE, *sess.TRANSITIONS.values()}
    assert reached == set(State)


# ---------------------------------------------------------------- noise


FRAGMENTS = [IDENT, E_IDENT, BLOCK, SPOILT, OPERAND, BREAK, iec.ACK, iec.NAK, SIGN_ON, b"\x06050\r\n", CONFIRMED,
             iec.encode(iec.ErrorMessage("ER01")), iec.STX, iec.SOH, iec.ETX, iec.EOT, b"!\r\n",
             b"\0", b"/"]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(Job)),
    st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(FRAGMENTS)), max_size=30),
    st.booleans(),
    st.booleans(),
)
def test_whatever_comes_raises_nothing_and_every_conversation_ends(
    job: Job, parts: list[bytes], software: bool, echo: bool
) -> None:
    config = Config(software_parity=software, password="1", repeats=1, max_octets=4000)
    rest = list(parts)

    def meter(_data: bytes, _format: LineFormat) -> Replies:
        return [(0.25, rest.pop(0))] if rest else []

    wire = Wire(Session(config), meter, echo=echo)
    wire.run(wire.session.sign_on(job, 0.0))
    if wire.session.state is State.PROG_READY:
        wire.run(wire.session.command(READ, wire.now))
    wire.run(wire.session.finish(wire.now))
    assert wire.session.state is State.IDLE


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from(FRAGMENTS)), max_size=40), st.integers(0, 99))
def test_listening_is_the_same_however_it_is_cut(parts: list[bytes], seed: int) -> None:
    def listened(cut: Cut) -> list[sess.Event]:
        wire = Wire(Session(Config(max_octets=2000)), lambda _data, _format: [], cut=cut)
        wire.says(1.0, b"".join(parts))
        wire.run(wire.session.listen(0.0), until=30.0)
        return wire.told

    assert listened(whole) == listened(chance(seed)) == listened(octets)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from(FRAGMENTS)), max_size=30), st.booleans())
def test_the_framer_gives_what_take_gives_however_it_is_cut(parts: list[bytes], passive: bool) -> None:
    data = b"".join(parts)

    def framed(pieces: Iterable[bytes]) -> list[Any]:
        framer = iec.Framer(is_passive=passive)
        found = []
        for piece in pieces:
            framer.feed(piece)
            while (one := framer.next()) is not None:
                found.append(one.message)
        return found

    assert framed(whole(data)) == framed(octets(data))
    if not passive:
        taken, rest = [], data
        while (one := iec.take(rest)) is not None:
            taken.append(one.message)
            rest = rest[one.length :]
        assert framed(whole(data)) == taken


def test_the_framer_is_bounded_and_finds_the_next_good_frame() -> None:
    framer = iec.Framer(limit=1000)
    framer.feed(iec.STX + b"1" * 5000)
    assert framer.next() is None
    assert framer.pending <= 1000
    framer.feed(b"2" * 500 + OPERAND)
    found = framer.next()
    assert found is not None
    assert found.message == Command("P", "0", "(12345678)")
    assert len(found.skipped) <= iec.MAX_LINE


@pytest.mark.parametrize("count", [pytest.param(100_000), pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_random_octets_cost_no_more_than_their_number(count: int) -> None:
    rng = random.Random(count)
    framer = iec.Framer()
    good = 0
    for _ in range(count // 100):
        framer.feed(rng.randbytes(93 - len(BREAK)) + iec.ETX + b"x" + BREAK)
        while (found := framer.next()) is not None:
            good += found.message == iec.BREAK
        assert framer.pending < 5000
    assert good > 0.9 * (count // 100)


def test_mutated_readouts_never_raise() -> None:
    rng = random.Random(62056)
    for _ in range(200):
        spoilt = bytearray(BLOCK * 2)
        for _ in range(rng.randint(1, 6)):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        wire = readout(scripted((SIGN_ON, IDENT), (b"\x06050\r\n", bytes(spoilt)), (iec.NAK, BLOCK)), Config(repeats=0))
        assert wire.session.state is State.IDLE


def test_timings_are_those_of_the_specification() -> None:
    assert (sess.STANDARD.reaction_min_s, sess.STANDARD.first_s) == (0.2, 2.0)
    assert (sess.TURKISH_2.reaction_min_s, sess.TURKISH_2.reaction_max_s) == (0.25, 1.25)
    wire = readout(mode_c(ident=b"/MKS5<2>BED(M550)\r\n"), Config(timing=replace(sess.STANDARD, reaction_min_s=0.4)))
    assert wire.sent[1][2] - (wire.sent[0][3] + 0.25) == pytest.approx(0.4)
