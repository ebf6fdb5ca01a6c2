"""The DLMS client against a scripted meter, and against recorded octets and dlms-cosem's own reading (B3, B4)."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar

import pytest
from dlms_cosem import enumerations as names
from dlms_cosem.protocol import acse, xdlms
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigError, LocalProtocolError, RemoteProtocolError, WorkbenchError
from app.protocols import dlms
from app.protocols import dlms_objects as objects
from app.protocols import dlms_values as dv
from app.protocols.dlms import Attribute, Client, Conformance, Exchange, MeterRefusal, Profile
from app.protocols.dlms_security import Cipher, Mechanism, Protection
from app.protocols.dlms_values import Value
from app.protocols.obis import parse
from tests.doubles.dlms_meter import TITLE, ScriptedMeter

T = TypeVar("T")
# Recorded, specification B3.
AARQ = bytes.fromhex("601DA109060760857405080101BE10040E01000000065F1F0400401E5DFFFF")
AARE = bytes.fromhex("6129A109060760857405080101A203020100A305A103020100BE10040E0800065F1F0400401E5DFFFF0007")
ENERGY = Attribute(3, parse("1-0:1.8.0*255").logical_name, 2)
OURS = b"MWR\x00\x00\x00\x00\x07"
KEY, AUTHENTICATION_KEY = bytes(range(16)), bytes(range(0xD0, 0xE0))
CHALLENGE = b"ours, sixteen oc"


def run(exchange: Exchange[T], answer: Callable[[bytes], bytes]) -> T:
    """Carry an exchange out."""
    try:
        request = next(exchange)
        while True:
            request = exchange.send(answer(request))
    except StopIteration as done:
        result: T = done.value
        return result


def cipher(title: bytes = OURS, *, counter: int = 1) -> Cipher:
    return Cipher(title, KEY, AUTHENTICATION_KEY, counter)


def associated(meter: ScriptedMeter, profile: Profile | None = None) -> Client:
    client = Client(profile if profile is not None else Profile())
    run(client.associate(), meter.answer)
    return client


@pytest.fixture
def meter() -> ScriptedMeter:
    meter = ScriptedMeter()
    meter.put(3, "1-0:1.8.0*255", 2, Value(dv.UINT32, 12345))
    return meter


# --- association --------------------------------------------------------------------------------------------------


def test_the_recorded_association() -> None:
    recorded = Profile(conformance=Conformance(0x401E5D))
    exchange = Client(recorded).associate()
    assert next(exchange) == AARQ
    with pytest.raises(StopIteration) as done:
        exchange.send(AARE)
    found = done.value.value
    assert found.max_pdu == 0xFFFF
    assert found.conformance == Conformance(0x401E5D)
    assert "get" in found.words


def test_without_ciphers_no_title_is_sent_and_another_implementation_reads_it() -> None:
    request = next(Client(Profile(mechanism=Mechanism.LOW, secret=b"12345678", title=OURS)).associate())
    assert b"\xa6" not in request[:20]
    theirs = acse.ApplicationAssociationRequest.from_bytes(request)
    assert theirs.authentication_value == b"12345678"
    assert theirs.authentication is names.AuthenticationMechanism.LLS
    assert theirs.ciphered is False
    assert theirs.user_information.content.client_max_receive_pdu_size == 0xFFFF


def _aare(result: int, diagnostic: int, *, provider: bool = False, more: bytes = b"") -> bytes:
    source = 0xA2 if provider else 0xA1
    body = bytes.fromhex("A109060760857405080101")
    body += bytes((0xA2, 3, 2, 1, result, 0xA3, 5, source, 3, 2, 1, diagnostic))
    return bytes((0x61, len(body + more))) + body + more


@pytest.mark.parametrize("diagnostic", [int(one) for one in names.AcseServiceUserDiagnostics])
@pytest.mark.parametrize("result", [1, 2])
def test_every_refusal_has_its_name(result: int, diagnostic: int) -> None:
    with pytest.raises(MeterRefusal) as refused:
        run(Client(Profile()).associate(), lambda _request: _aare(result, diagnostic))
    words = names.AcseServiceUserDiagnostics(diagnostic).name.lower().replace("_", " ")
    assert words in str(refused.value)
    assert ("permanent" if result == 1 else "transient") in str(refused.value)
    assert refused.value.is_password is (diagnostic == 13)
    assert (refused.value.code == "AUTHENTICATION_FAILED") is (diagnostic == 13)


def test_refusals_that_say_more_or_come_from_below() -> None:
    more = bytes.fromhex("BE06 0404 0E010603".replace(" ", ""))
    with pytest.raises(MeterRefusal, match="initiate error, pdu size too short"):
        run(Client(Profile()).associate(), lambda _request: _aare(1, 1, more=more))
    with pytest.raises(MeterRefusal, match="no common acse version"):
        run(Client(Profile()).associate(), lambda _request: _aare(1, 2, provider=True))
    with pytest.raises(MeterRefusal, match="unknown diagnostic 99"):
        run(Client(Profile()).associate(), lambda _request: _aare(1, 99))
    with pytest.raises(MeterRefusal, match="short names"):
        run(Client(Profile()).associate(), lambda _request: AARE.replace(b"\x08\x01\x01", b"\x08\x01\x02"))


@pytest.mark.parametrize("cut", range(len(AARE)))
def test_a_cut_answer_is_told(cut: int) -> None:
    client = Client(Profile())
    with pytest.raises((RemoteProtocolError, MeterRefusal)):
        run(client.associate(), lambda _request: AARE[:cut])
    assert client.association is None


@given(st.integers(0, len(AARE) - 1), st.integers(1, 255))
def test_a_spoilt_answer_never_breaks_the_program(place: int, fault: int) -> None:
    spoilt = AARE[:place] + bytes((AARE[place] ^ fault,)) + AARE[place + 1 :]
    client = Client(Profile())
    try:
        run(client.associate(), lambda _request: spoilt)
    except WorkbenchError:
        assert client.association is None


def test_a_lesser_version_and_quality_of_service() -> None:
    with pytest.raises(MeterRefusal, match="version 5"):
        run(Client(Profile()).associate(), lambda _request: AARE.replace(b"\x08\x00\x06", b"\x08\x00\x05"))
    longer = AARE.replace(b"\xbe\x10\x04\x0e\x08\x00", b"\xbe\x11\x04\x0f\x08\x01\x00")
    longer = longer.replace(b"\x61\x29", b"\x61\x2a")
    assert run(Client(Profile()).associate(), lambda _request: longer).max_pdu == 0xFFFF


@pytest.mark.parametrize(
    ("mechanism", "secret"),
    [
        (Mechanism.LOW, b"12345678"), (Mechanism.MD5, b"secret"), (Mechanism.SHA1, b"secret"),
        (Mechanism.SHA256, b"secret"), (Mechanism.GMAC, b""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("protection", list(Protection))
def test_every_mechanism(mechanism: Mechanism, secret: bytes, protection: Protection) -> None:
    meter = ScriptedMeter(
        mechanism=mechanism, secret=secret, cipher=cipher(TITLE), protection=protection, block=4
    )  # fmt: skip
    meter.put(3, "1-0:1.8.0*255", 2, Value(dv.UINT32, 12345))
    needs_keys = protection is not Protection.NONE or mechanism in (Mechanism.GMAC, Mechanism.SHA256)
    profile = Profile(
        mechanism=mechanism, secret=secret, protection=protection, challenge=CHALLENGE,
        cipher=cipher() if needs_keys else None,
    )  # fmt: skip
    client = associated(meter, profile)
    assert run(client.get(ENERGY), meter.answer) == Value(dv.UINT32, 12345)
    run(client.release(), meter.answer)
    assert run(client.associate(), meter.answer).max_pdu == 0xFFFF
    assert run(client.get(ENERGY), meter.answer).content == 12345
    if profile.cipher is not None and protection:
        assert profile.cipher.counter > 4


@pytest.mark.parametrize(
    ("mechanism", "secret", "theirs"),
    [
        (Mechanism.LOW, b"wrong", b"right"),
        (Mechanism.MD5, b"wrong", b"right"),
        (Mechanism.SHA256, b"wrong", b"right"),
    ],
)
def test_a_wrong_secret_is_a_refused_password(mechanism: Mechanism, secret: bytes, theirs: bytes) -> None:
    meter = ScriptedMeter(mechanism=mechanism, secret=theirs)
    client = Client(Profile(mechanism=mechanism, secret=secret, challenge=CHALLENGE, title=OURS))
    with pytest.raises(MeterRefusal) as refused:
        run(client.associate(), meter.answer)
    assert refused.value.is_password
    assert refused.value.code == "AUTHENTICATION_FAILED"
    assert secret.decode() not in str(refused.value)
    assert client.association is None


def test_a_meter_that_does_not_prove_itself_is_refused() -> None:
    meter = ScriptedMeter(mechanism=Mechanism.MD5, secret=b"right")

    def lying(request: bytes) -> bytes:
        answer = meter.answer(request)
        return answer[:-1] + bytes((answer[-1] ^ 1,)) if request[0] == 0xC3 else answer

    client = Client(Profile(mechanism=Mechanism.MD5, secret=b"right", challenge=CHALLENGE))
    with pytest.raises(MeterRefusal, match="did not prove"):
        run(client.associate(), lying)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (Profile(mechanism=Mechanism.MANUFACTURER), "own secret procedure"),
        (Profile(mechanism=Mechanism.ECDSA), "not supported"),
        (Profile(mechanism=Mechanism.LOW), "password: is empty"),
        (Profile(mechanism=Mechanism.GMAC, challenge=CHALLENGE), "cipher_key"),
        (Profile(protection=Protection.SERVICE), "cipher_key"),
        (Profile(mechanism=Mechanism.MD5, secret=b"x"), "challenge"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_sent(profile: Profile, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        next(Client(profile).associate())


def test_no_key_shows() -> None:
    profile = Profile(mechanism=Mechanism.LOW, secret=b"12345678", cipher=cipher())
    assert "12345678" not in repr(profile)
    assert repr(KEY)[2:10] not in repr(profile.cipher)


# --- ciphers ------------------------------------------------------------------------------------------------------


def test_another_implementation_opens_what_we_protect() -> None:
    plain = bytes.fromhex("C001C100080000010000FF0200")
    theirs = xdlms.GeneralGlobalCipher.from_bytes(cipher(counter=9).protect(plain, Protection.GENERAL))
    assert theirs.invocation_counter == 9
    assert theirs.system_title == OURS
    assert theirs.to_plain_apdu(KEY, AUTHENTICATION_KEY) == plain


def test_the_standards_example_of_a_ciphered_request() -> None:
    """Green Book, example of glo-get-request in suite 0 with authenticated encryption."""
    ours = Cipher(
        bytes.fromhex("4D4D4D0000BC614E"), bytes.fromhex("000102030405060708090A0B0C0D0E0F"),
        bytes.fromhex("D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF"), 0x01234567,
    )  # fmt: skip
    made = ours.protect(bytes.fromhex("C0010000080000010000FF0200"), Protection.SERVICE)
    assert made.hex().upper() == "C81E3001234567411312FF935A47566827C467BC7D825C3BE4A77C3FCC056B6B"


def test_a_repeated_or_foreign_answer_is_refused() -> None:
    ours, theirs = cipher(), cipher(TITLE)
    first = theirs.protect(b"\xc4\x01\xc1\x00\x11\x01", Protection.GENERAL)
    assert ours.open(first) == b"\xc4\x01\xc1\x00\x11\x01"
    with pytest.raises(RemoteProtocolError, match="repetition"):
        ours.open(first)
    second = theirs.protect(b"\xc4\x01\xc1\x00\x11\x01", Protection.GENERAL)
    with pytest.raises(RemoteProtocolError, match="not authentic"):
        ours.open(second[:-1] + bytes((second[-1] ^ 1,)))
    assert ours.open(second)
    suite_1 = bytearray(theirs.protect(b"\xc4\x01\xc1\x00\x11\x01", Protection.GENERAL))
    suite_1[11] |= 1
    with pytest.raises(RemoteProtocolError, match="only suite 0"):
        ours.open(bytes(suite_1))
    with pytest.raises(RemoteProtocolError, match="cut off"):
        ours.open(second[:20])


@given(st.binary(min_size=1, max_size=80))
def test_noise_in_place_of_a_ciphered_answer(data: bytes) -> None:
    for tag in (0xCC, 0xDB):
        with pytest.raises(RemoteProtocolError):
            cipher().open(bytes((tag,)) + data)


def test_keys_of_another_length_and_a_counter_at_its_end() -> None:
    with pytest.raises(ConfigError, match="system_title"):
        Cipher(b"short", KEY, KEY)
    with pytest.raises(ConfigError, match="cipher_key"):
        Cipher(OURS, b"short", KEY)
    with pytest.raises(ConfigError, match="invocation_counter"):
        cipher(counter=0x1_0000_0000).protect(b"\xc0", Protection.SERVICE)


def test_a_counter_that_the_meter_expects_is_taken_up(meter: ScriptedMeter) -> None:
    meter.cipher = cipher(TITLE)
    ours = cipher()
    client = associated(meter, Profile(protection=Protection.SERVICE, cipher=ours))
    with pytest.raises(MeterRefusal, match="at least 5000") as refused:
        run(client.get(ENERGY), lambda _request: bytes.fromhex("D8020600001388"))
    assert refused.value.code == "INVOCATION_COUNTER_ERROR"
    assert ours.counter == 5000


# --- services -----------------------------------------------------------------------------------------------------


def test_get(meter: ScriptedMeter) -> None:
    client = associated(meter)
    assert run(client.get(ENERGY), meter.answer) == Value(dv.UINT32, 12345)
    request = meter.heard[-1]
    assert request.hex().upper() == "C001C100030100010800FF0200"
    theirs = xdlms.GetRequestNormal.from_bytes(request)
    assert theirs.cosem_attribute.attribute == 2
    assert theirs.invoke_id_and_priority.confirmed is True


@pytest.mark.parametrize("result", [int(one) for one in names.DataAccessResult if one])
def test_every_data_access_result_has_its_name(meter: ScriptedMeter, result: int) -> None:
    client = associated(meter)
    meter.put(3, "1-0:1.8.0*255", 2, result)
    words = names.DataAccessResult(result)
    with pytest.raises(MeterRefusal, match=f": {result} {words.name.lower().replace('_', ' ')}") as refused:
        run(client.get(ENERGY), meter.answer)
    assert refused.value.code == words.name
    with pytest.raises(MeterRefusal, match=words.name.lower().replace("_", " ")):
        run(client.set(ENERGY, Value(dv.UINT32, 1)), meter.answer)


def test_an_unknown_result_is_told(meter: ScriptedMeter) -> None:
    client = associated(meter)
    meter.put(3, "1-0:1.8.0*255", 2, 77)
    with pytest.raises(MeterRefusal, match="unknown data access result 77"):
        run(client.get(ENERGY), meter.answer)


@pytest.mark.parametrize("result", [int(one) for one in names.ActionResultStatus if one])
def test_every_action_result_has_its_name(meter: ScriptedMeter, result: int) -> None:
    client = associated(meter)
    meter.methods[70, parse("0-0:96.3.10*255").logical_name.hex(), 1] = lambda _parameter: result
    words = names.ActionResultStatus(result).name.lower().replace("_", " ")
    with pytest.raises(MeterRefusal, match=words):
        run(client.action(Attribute(70, objects.DISCONNECT_NAME, 1), Value(dv.INT8, 0)), meter.answer)


@pytest.mark.parametrize("service", [int(one) for one in names.ServiceException])
def test_every_exception_has_its_name(meter: ScriptedMeter, service: int) -> None:
    client = associated(meter)
    words = names.ServiceException(service).name.lower().replace("_", " ")
    with pytest.raises(MeterRefusal, match=f"service unknown, {words}"):
        run(client.get(ENERGY), lambda _request: bytes((0xD8, 2, service)))


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        ("0E050401", "definition error, object undefined"), ("0E050501", "access error, scope of access violated"),
        ("0E01060", "does not say"), ("0E05FF01", "255/1"), ("0E050A00", "other error, other"),
    ],
)  # fmt: skip
def test_service_errors_have_names(meter: ScriptedMeter, octets: str, words: str) -> None:
    client = associated(meter)
    answer = bytes.fromhex(octets if len(octets) % 2 == 0 else octets[:-1])
    with pytest.raises(MeterRefusal, match=words):
        run(client.get(ENERGY), lambda _request: answer)


@pytest.mark.parametrize("block", [1, 7, 100, 200, 1000])
def test_get_in_blocks(meter: ScriptedMeter, block: int) -> None:
    meter.block = block
    long = Value(dv.OCTET_STRING, random.Random(3).randbytes(2564))
    meter.put(1, "0-0:96.1.0*255", 2, long)
    client = associated(meter)
    attribute = Attribute(1, parse("0-0:96.1.0*255").logical_name, 2)
    assert run(client.get(attribute), meter.answer) == long
    numbers = [int.from_bytes(request[3:7], "big") for request in meter.heard if request[:2] == b"\xc0\x02"]
    assert numbers == list(range(1, len(dv.encode(long)) // block + (len(dv.encode(long)) % block > 0)))


def test_blocks_in_disorder_are_refused(meter: ScriptedMeter) -> None:
    client = associated(meter)
    with pytest.raises(RemoteProtocolError, match="block 2, not 1"):
        run(client.get(ENERGY), lambda _request: bytes.fromhex("C402C10000000002000106"))
    client = associated(meter)
    with pytest.raises(RemoteProtocolError, match="should have 9"):
        run(client.get(ENERGY), lambda _request: bytes.fromhex("C402C101000000010009060000"))
    client = associated(meter)
    with pytest.raises(MeterRefusal, match="long get aborted"):
        run(client.get(ENERGY), lambda _request: bytes.fromhex("C402C10100000001010F"))


def test_an_endless_value_is_ended(meter: ScriptedMeter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlms, "MAX_VALUE_OCTETS", 100)
    meter.block = 10
    meter.put(3, "1-0:1.8.0*255", 2, Value(dv.OCTET_STRING, bytes(500)))
    client = associated(meter)
    with pytest.raises(RemoteProtocolError, match="longer than"):
        run(client.get(ENERGY), meter.answer)


def test_set_and_set_in_blocks(meter: ScriptedMeter) -> None:
    meter.put(1, "0-0:96.1.0*255", 2, Value(dv.OCTET_STRING, b""))
    attribute = Attribute(1, parse("0-0:96.1.0*255").logical_name, 2)
    client = associated(meter)
    run(client.set(attribute, Value(dv.OCTET_STRING, b"new")), meter.answer)
    assert xdlms.SetRequestNormal.from_bytes(meter.heard[-1]).data == b"\x09\x03new"
    for size in (100, 128, 140, 1000):
        meter.max_pdu = 128
        client = associated(meter)
        value = Value(dv.OCTET_STRING, random.Random(size).randbytes(size))
        meter.heard.clear()
        run(client.set(attribute, value), meter.answer)
        assert meter.values[1, attribute.name.hex(), 2] == value
        assert max(map(len, meter.heard)) <= 128
        assert (meter.heard[0][1] == 2) is (size > 110)


def test_a_value_that_no_pdu_takes_is_refused(meter: ScriptedMeter) -> None:
    meter.max_pdu, meter.conformance = 64, 0x000018
    client = associated(meter)
    with pytest.raises(LocalProtocolError, match="takes no blocks"):
        run(client.set(ENERGY, Value(dv.OCTET_STRING, bytes(200))), meter.answer)
    with pytest.raises(LocalProtocolError, match="takes 64"):
        run(client.action(ENERGY, Value(dv.OCTET_STRING, bytes(200))), meter.answer)


def test_action_with_and_without_data(meter: ScriptedMeter) -> None:
    client = associated(meter)
    key = (70, objects.DISCONNECT_NAME.hex(), 1)
    meter.methods[key] = lambda parameter: parameter
    method = Attribute(70, objects.DISCONNECT_NAME, 1)
    assert run(client.action(method, Value(dv.INT8, 0)), meter.answer) == Value(dv.INT8, 0)
    meter.methods[key] = lambda _parameter: None
    assert run(client.action(method), meter.answer) is None
    assert xdlms.ActionRequestNormal.from_bytes(meter.heard[-2]).data == b"\x0f\x00"


def test_action_answered_in_blocks(meter: ScriptedMeter) -> None:
    client = associated(meter)
    whole = b"\x00\x01\x00" + dv.encode(Value(dv.OCTET_STRING, bytes(30)))

    def blocks(request: bytes) -> bytes:
        number = 1 if request[1] == 1 else int.from_bytes(request[3:7], "big") + 1
        part = whole[(number - 1) * 10 : number * 10]
        last = number * 10 >= len(whole)
        return bytes((0xC7, 2, request[2], last)) + number.to_bytes(4, "big") + bytes((len(part),)) + part

    assert run(client.action(ENERGY), blocks) == Value(dv.OCTET_STRING, bytes(30))


@pytest.mark.parametrize("answer", ["", "C4", "C401", "C401C1", "C401C200", "C501C100", "63", "C403C10100", "C401C102"])
def test_nonsense_is_told(meter: ScriptedMeter, answer: str) -> None:
    client = associated(meter)
    with pytest.raises(RemoteProtocolError):
        run(client.get(ENERGY), lambda _request: bytes.fromhex(answer))


@given(
    st.binary(max_size=40),
    st.sampled_from([b"", b"\xc4\x01\xc1", b"\xc4\x02\xc1", b"\xc7\x01\xc1", b"\xc5\x01\xc1"]),
)
def test_noise_never_breaks_the_program(data: bytes, head: bytes) -> None:
    client = associated(ScriptedMeter())
    exchanges: list[Exchange[object]] = [client.get(ENERGY), client.action(ENERGY), client.set(ENERGY, Value(dv.NULL))]
    for exchange in exchanges:
        next(exchange)
        try:
            exchange.send(head + data)
        except (StopIteration, WorkbenchError):
            continue


def test_invoke_ids_go_round_and_events_are_no_answers(meter: ScriptedMeter) -> None:
    client = associated(meter)
    for _turn in range(20):
        run(client.get(ENERGY), meter.answer)
    assert {request[2] & 15 for request in meter.heard if request[0] == 0xC0} == set(range(16))
    assert dlms.is_unasked(b"\xc2\x00")
    assert dlms.is_unasked(b"\x0f\x00")
    assert not dlms.is_unasked(b"\xc4\x01")


def test_nothing_is_asked_without_association(meter: ScriptedMeter) -> None:
    client = associated(meter)
    run(client.release(), meter.answer)
    with pytest.raises(LocalProtocolError, match="no association"):
        run(client.get(ENERGY), meter.answer)


def test_a_release_takes_any_answer(meter: ScriptedMeter) -> None:
    for answer in (b"", bytes.fromhex("630E"), b"\xd8\x01\x01"):
        exchange = associated(meter).release()
        assert next(exchange)[0] == 0x62
        with pytest.raises(StopIteration):
            exchange.send(answer)


def test_selective_access() -> None:
    clock = objects.Column(8, parse("0-0:1.0.0*255"), 2)
    start, end = (Value(dv.OCTET_STRING, bytes(11) + bytes((n,))) for n in (1, 2))
    made = dlms.by_range(clock, start, end)
    assert made.hex().upper() == (
        "01" "0204" "0204" "120008" "09060000010000FF" "0F02" "120000" f"090C{'00' * 11}01" f"090C{'00' * 11}02" "0100"
    )
    assert dlms.by_entry(3, 0).hex().upper() == "02" "0204" "0600000003" "0600000000" "120001" "120000"


# --- objects ------------------------------------------------------------------------------------------------------


Rights = list[tuple[int, int]]


def _row(class_id: int, version: int, obis: str, attributes: Rights, methods: Rights) -> Value:
    def rights(pairs: list[tuple[int, int]], extra: tuple[Value, ...]) -> Value:
        return Value(
            dv.ARRAY,
            tuple(Value(dv.STRUCTURE, (Value(dv.INT8, a), Value(dv.ENUM, b), *extra)) for a, b in pairs),
        )

    return Value(
        dv.STRUCTURE,
        (
            Value(dv.UINT16, class_id), Value(dv.UINT8, version), Value(dv.OCTET_STRING, parse(obis).logical_name),
            Value(dv.STRUCTURE, (rights(attributes, (Value(dv.NULL),)), rights(methods, ()))),
        ),
    )  # fmt: skip


def test_the_object_list_with_names_and_rights() -> None:
    rows = (
        _row(15, 1, "0-0:40.0.0*255", [(1, 1)], []),
        _row(3, 0, "1-0:1.8.0*255", [(1, 1), (2, 1), (3, 0)], [(1, 0)]),
        _row(8192, 0, "0-0:96.1.0*255", [(2, 6)], [(1, 2)]),
    )
    found = objects.object_list(Value(dv.ARRAY, rows))
    energy = found[1].to_json()
    assert energy["class_name"] == "Register"
    assert energy["obis"] == "1-0:1.8.0*255"
    assert energy["name"] == "Energy import"
    assert energy["attributes"][1] == {"index": 2, "name": "value", "access": "read"}
    assert energy["methods"] == [{"index": 1, "name": "reset", "access": "no access"}]
    assert found[1].may_read(2)
    assert not found[1].may_read(3)
    assert found[2].to_json()["class_name"] == "class 8192"
    assert found[2].to_json()["attributes"][0]["access"] == "authenticated read, write"
    assert found[0].to_json()["name"] == "Association"


def test_rights_of_newer_associations_are_bits() -> None:
    rows = (_row(15, 3, "0-0:40.0.0*255", [], []), _row(3, 0, "1-0:1.8.0*255", [(2, 0x25), (3, 3)], [(1, 0x05)]))
    found = objects.object_list(Value(dv.ARRAY, rows))[1]
    assert found.attributes[0].text == "read, authenticated request, authenticated response"
    assert found.attributes[0].is_allowed
    assert found.attributes[1].text == "read, write"
    assert found.methods[0].text == "access, authenticated request"


@pytest.mark.parametrize(
    "value",
    [Value(dv.NULL), Value(dv.ARRAY, (Value(dv.NULL),)), Value(dv.ARRAY, (Value(dv.STRUCTURE, ()),))],
)
def test_an_object_list_of_another_form_is_told(value: Value) -> None:
    with pytest.raises(RemoteProtocolError):
        objects.object_list(value)


def test_scaler_units() -> None:
    for exponent in range(-3, 4):
        structure = Value(dv.STRUCTURE, (Value(dv.INT8, exponent), Value(dv.ENUM, 30)))
        scaler = objects.Scaler.of(structure)
        assert (scaler.exponent, scaler.unit) == (exponent, "Wh")
        assert dv.scaled(Decimal(7), scaler.exponent) == Decimal(7) * Decimal(10) ** exponent
    assert objects.Scaler.of(Value(dv.STRUCTURE, (Value(dv.INT8, 0), Value(dv.ENUM, 255)))).unit == ""
    assert objects.Scaler.of(Value(dv.STRUCTURE, (Value(dv.INT8, 0), Value(dv.ENUM, 99)))).unit == "unit 99"
    with pytest.raises(RemoteProtocolError):
        objects.Scaler.of(Value(dv.NULL))


def test_columns_and_their_titles() -> None:
    clock = objects.Column(8, parse("0-0:1.0.0*255"), 2)
    energy = objects.Column(3, parse("1-0:1.8.0*255"), 2)
    maximum = objects.Column(4, parse("1-0:1.6.0*255"), 5)
    status = objects.Column(1, parse("0-0:96.10.1*255"), 2)
    assert objects.columns(Value(dv.ARRAY, tuple(c.value() for c in (clock, energy, maximum, status)))) == (
        clock, energy, maximum, status,
    )  # fmt: skip
    assert (clock.is_clock, energy.is_scaled, maximum.is_scaled, status.is_status) == (True, True, False, True)
    assert [c.title for c in (clock, energy, maximum, status)] == [
        "Clock", "Energy import", "Maximum demand import, capture time", "Status",
    ]  # fmt: skip
    with pytest.raises(RemoteProtocolError):
        objects.columns(Value(dv.ARRAY, (Value(dv.STRUCTURE, (Value(dv.NULL),)),)))


def test_class_names() -> None:
    assert objects.class_name(7) == "Profile generic"
    assert objects.class_name(111) == "Account"
    assert objects.class_name(8200) == "class 8200"
    assert objects.attribute_name(7, 4) == "capture period"
    assert objects.attribute_name(7, 1) == "logical name"
    assert objects.attribute_name(7, 99) == ""
    assert objects.method_name(70, 2) == "remote reconnect"
    assert objects.profile_flags(0x88) == ("power down", "summer time")
    assert objects.profile_flags(0x40) == ("bit 6",)
