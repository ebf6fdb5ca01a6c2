"""A DLMS meter and a DLMS client on gurux-dlms 1.0.203, for tests against somebody else's protocol stack.

gurux-dlms is GPL-2.0: nothing else imports it, and this file runs as a process of its own::

    python -m tests.peers.gurux_meter --wrapper 0          meter over TCP, the port is chosen
    python -m tests.peers.gurux_meter --hdlc /dev/pts/7    meter over HDLC on a pseudo terminal
    python -m tests.peers.gurux_meter --client HOST PORT   client: reads a meter over TCP, ends by itself

A meter prints one JSON line when it is ready (``{"port": ...}`` or ``{"pty": ...}``) and ends when its standard input
closes. The client prints one JSON line with what it read, or how it was ``refused`` or ``failed``.
Clients 16 (no security) and 32 (password ``PASSWORD``) are let in. The server classes of
the library are machine-translated: everything headed "shim" replaces a member that is missing, misspelt or wrong there
(specs/iec62056-and-dlms.md C3).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, Final

from gurux_dlms import GXByteBuffer, GXDateTime, GXDLMSClient, GXDLMSException, GXReplyData
from gurux_dlms.ConnectionState import ConnectionState
from gurux_dlms.enums import (
    AccessMode,
    Authentication,
    Command,
    DataType,
    InterfaceType,
    MethodAccessMode,
    ObjectType,
    Security,
    ServiceClass,
    SourceDiagnostic,
    Unit,
)
from gurux_dlms.GXDLMS import GXDLMS
from gurux_dlms.GXDLMSExceptionResponse import GXDLMSExceptionResponse
from gurux_dlms.GXDLMSLNParameters import GXDLMSLNParameters
from gurux_dlms.GXDLMSLongTransaction import GXDLMSLongTransaction
from gurux_dlms.GXDLMSServer import GXDLMSServer
from gurux_dlms.GXServerReply import GXServerReply
from gurux_dlms.internal._GXCommon import _GXCommon
from gurux_dlms.objects import (
    GXDLMSAssociationLogicalName,
    GXDLMSClock,
    GXDLMSData,
    GXDLMSDisconnectControl,
    GXDLMSProfileGeneric,
    GXDLMSRegister,
)
from gurux_dlms.objects.enums import ControlState
from gurux_dlms.secure import GXDLMSSecureClient
from gurux_dlms.ValueEventArgs import ValueEventArgs

HANDLER: Final[Any] = import_module("gurux_dlms.GXDLMSLNCommandHandler")  # the package shows the class by this name
HOST: Final = "127.0.0.1"
NO_SECURITY_CLIENT: Final = 16
PASSWORD_CLIENT: Final = 32
PASSWORD: Final = b"12345678"
MAX_PDU: Final = 512
LONG_OCTETS: Final = 2560
PERIOD_S: Final = 900
ROWS: Final = 200
FIRST_ROW: Final = datetime(2026, 9, 1, 0, 15, tzinfo=UTC)
LOGICAL_DEVICE_NAME: Final = b"GRX0000000012345"
SERIAL: Final = "12345678"
REGISTERS: Final = (  # logical name, raw value, data type, scaler, unit
    ("1.0.1.8.0.255", 1234567, DataType.UINT32, 0, Unit.ACTIVE_ENERGY),
    ("1.0.2.8.0.255", 42, DataType.UINT32, 1, Unit.ACTIVE_ENERGY),
    ("1.0.3.8.0.255", 17, DataType.UINT64, 2, Unit.REACTIVE_ENERGY),
    ("1.0.9.8.0.255", 5, DataType.UINT8, 3, Unit.APPARENT_ENERGY),
    ("1.0.32.7.0.255", 2301, DataType.UINT16, -1, Unit.VOLTAGE),
    ("1.0.14.7.0.255", 4998, DataType.UINT16, -2, Unit.FREQUENCY),
    ("1.0.31.7.0.255", 5123, DataType.INT32, -3, Unit.CURRENT),
    ("1.0.16.7.0.255", -250, DataType.INT16, 0, Unit.ACTIVE_POWER),
)


# ---------------------------------------------------------------------------------------------------------------- shims


class Reply(GXServerReply):  # type: ignore[misc]
    """Shim: the accessors that the server calls and the class does not have."""

    def setReply(self, value: Any) -> None:
        self.reply = value

    def getConnectionInfo(self) -> None:
        return None


class Arguments(ValueEventArgs):  # type: ignore[misc]
    """Shim: knows its server and the invoke id, can be made a list of, has the two spellings of its members."""

    isSkipMaxPduSize = True  # the whole value at once; getLNPdu makes the blocks

    def __init__(self, server: Any, target: Any, index: int, selector: int = 0, parameters: Any = None) -> None:
        super().__init__(server, target, index, selector, parameters)
        self.server = server
        self.value: Any = None
        asked = server.settings  # without this a refusal has invoke id 1, whatever was asked
        self.invokeId = int(asked.priority) << 7 | (asked.serviceClass == ServiceClass.CONFIRMED) << 6 | asked.invokeID

    def __iter__(self) -> Iterator[Arguments]:
        yield self

    def getRowEndIndex(self) -> int:
        return 0


class Parameters(GXDLMSLNParameters):  # type: ignore[misc]
    """Shim: the accessors that the command handler calls."""

    def isMultipleBlocks(self) -> bool:
        return bool(self.multipleBlocks)

    def setStatus(self, status: int) -> None:
        self.status = int(status)


class Transaction(GXDLMSLongTransaction):  # type: ignore[misc]
    """Shim: what is left of a long answer."""

    def setData(self, rest: Any) -> None:
        self.data = GXByteBuffer()
        self.data.set(rest)


# Shim: the handler makes these by the names it imported.
HANDLER.ValueEventArgs = Arguments
HANDLER.GXDLMSLNParameters = Parameters
HANDLER.GXDLMSLongTransaction = Transaction


class Meter(GXDLMSServer):  # type: ignore[misc]
    """The library's server with this file's objects."""

    def __init__(self, interface: Any) -> None:
        super().__init__(True, interface)
        self.settings.maxServerPDUSize = MAX_PDU
        self.settings.gbtWndowSize = 1  # shim: spelt so where it is read
        self.settings.getMaxPduSize = lambda: self.settings.maxPduSize  # shim: missing
        self.offset = timedelta()
        self._long_set = bytearray()  # what a SET in blocks has brought: its place, then its value
        self._fill()
        self.initialize()

    def _fill(self) -> None:
        association = Association()
        self.items.append(association)
        for name, raw, data_type, scaler, unit in REGISTERS:
            self.items.append(Register(name, raw, data_type, scaler, unit))
        self.items.append(Clock(self))
        self.items.append(data_object("0.0.42.0.0.255", LOGICAL_DEVICE_NAME, DataType.OCTET_STRING))
        self.items.append(data_object("0.0.96.1.0.255", SERIAL, DataType.STRING))
        self.items.append(data_object("0.0.96.1.9.255", long_octets(), DataType.OCTET_STRING))
        self.items.append(Relay("0.0.96.3.10.255"))
        self.items.append(profile(self.items))
        for item in self.items:  # shim: start-up fails without an association whose list is filled
            association.objectList.append(item)

    # shims: accessors under their other names

    def getTransaction(self) -> Any:
        return self.transaction

    def setTransaction(self, value: Any) -> None:
        self.transaction = value

    def notifyRead(self) -> None:
        return None

    # shims: methods that fail

    def handleSnrmRequest(self, data: Any) -> None:
        """Shim: needs an HDLC object that has attributes of two classes, and writes the length to the wrong place."""
        hdlc = self.settings.hdlc
        hdlc.maxInfoTX = hdlc.maxInfoRX = 128
        hdlc.windowSizeTX = hdlc.windowSizeRX = 1
        GXDLMS.parseSnrmUaResponse(data, hdlc)
        hdlc.maxInfoTX, hdlc.maxInfoRX = min(hdlc.maxInfoTX, 1024), min(hdlc.maxInfoRX, 1024)
        hdlc.windowSizeTX = hdlc.windowSizeRX = 1
        self.reset(True)
        body = GXByteBuffer()
        for number, value in ((5, hdlc.maxInfoTX), (6, hdlc.maxInfoRX)):
            body.setUInt8(number)
            GXDLMS.appendHdlcParameter(body, value)
        for number in (7, 8):
            body.set(bytes((number, 4, 0, 0, 0, 1)))
        self.replyData.set(bytes((0x81, 0x80, len(body))))
        self.replyData.set(body)
        self.settings.connected = ConnectionState.HDLC

    def generateDisconnectRequest(self) -> None:
        """Shim: reads the HDLC object that is not there; a UA without parameters is enough."""

    def handleReleaseRequest(self, data: Any) -> None:
        """Shim of the LLC octets only: they are put where no octets are. The wrong length (63 0E) is left as it is."""
        if self.settings.interfaceType != InterfaceType.HDLC:
            super().handleReleaseRequest(data)
            return
        self.settings.interfaceType = InterfaceType.WRAPPER
        try:
            self.replyData.set(_GXCommon.LLC_REPLY_BYTES)
            super().handleReleaseRequest(data)
        finally:
            self.settings.interfaceType = InterfaceType.HDLC

    def handleCommand(self, cmd: int, data: Any, sr: Any) -> Any:
        """Shim: a SET in blocks is returned from after its first block; it is put together here."""
        if cmd == Command.SET_REQUEST and data.getUInt8(data.position) in (2, 3):
            if self.settings.interfaceType == InterfaceType.HDLC:
                self.replyData.set(_GXCommon.LLC_REPLY_BYTES)
            self.replyData.set(self._set_block(data))
            if self.settings.interfaceType == InterfaceType.WRAPPER:
                return GXDLMS.getWrapperFrame(self.settings, cmd, self.replyData)
            return GXDLMS.getHdlcFrame(self.settings, 0, self.replyData)
        return super().handleCommand(cmd, data, sr)

    def _set_block(self, data: Any) -> bytes:
        """The answer to one block of a SET."""
        is_first, invoke = data.getUInt8() == 2, data.getUInt8()
        if is_first:
            place = bytearray(10)  # class, logical name, attribute, no selection
            data.get(place)
            self._long_set = place
        is_last, number = data.getUInt8(), int(data.getUInt32())
        block = bytearray(_GXCommon.getObjectCount(data))
        data.get(block)
        self._long_set += block
        if not is_last:
            return bytes((int(Command.SET_RESPONSE), 2, invoke, *number.to_bytes(4, "big")))
        answer = GXByteBuffer()
        self.settings.interfaceType, kept = InterfaceType.WRAPPER, self.settings.interfaceType  # no LLC octets in it
        try:
            whole = GXByteBuffer(bytearray((1, invoke)) + self._long_set)
            HANDLER.GXDLMSLNCommandHandler.handleSetRequest(self.settings, self, whole, answer, None)
        finally:
            self.settings.interfaceType = kept
        result = answer.getUInt8(len(answer) - 1)
        return bytes((int(Command.SET_RESPONSE), 3, invoke, result, *number.to_bytes(4, "big")))

    # what the library asks of a meter

    def isTarget(self, serverAddress: int, clientAddress: int) -> bool:
        return clientAddress in (NO_SECURITY_CLIENT, PASSWORD_CLIENT)

    def onValidateAuthentication(self, authentication: Any, password: Any) -> Any:
        # Shim: the library takes the client's PDU size, whatever it is.
        self.settings.maxPduSize = min(self.settings.maxPduSize or MAX_PDU, MAX_PDU)
        if self.settings.clientAddress == NO_SECURITY_CLIENT:
            wanted, is_right = Authentication.NONE, True
        else:
            wanted, is_right = Authentication.LOW, bytes(password or b"") == PASSWORD
        if authentication != wanted:
            return SourceDiagnostic.AUTHENTICATION_MECHANISM_NAME_REQUIRED
        return SourceDiagnostic.NONE if is_right else SourceDiagnostic.AUTHENTICATION_FAILURE

    def onFindObject(self, objectType: Any, sn: int, ln: str) -> None:
        return None

    def onGetAttributeAccess(self, arg: Any) -> Any:
        kind = arg.target.objectType
        if (kind == ObjectType.CLOCK and arg.index == 2) or (kind == ObjectType.DATA and arg.index == 2):
            return AccessMode.READ_WRITE
        return AccessMode.READ

    def onGetMethodAccess(self, arg: Any) -> Any:
        return MethodAccessMode.ACCESS

    def onPreRead(self, args: Any = None) -> None:
        return None

    onPostRead = onPreWrite = onPostWrite = onPreAction = onPostAction = onPreRead

    def onConnected(self, connectionInfo: Any) -> None:
        return None

    onDisconnected = onInvalidConnection = notifyConnected = onConnected

    def exchange(self, octets: bytes) -> bytes:
        """What is answered to these octets of the line; b"" while a message is not complete."""
        request = Reply(octets)
        self.handleRequest(request)
        return bytes(request.reply or b"")


# -------------------------------------------------------------------------------------------------------------- objects


class Association(GXDLMSAssociationLogicalName):  # type: ignore[misc]
    """Shim: attributes 3 and 5 cannot be encoded while the addresses and the ciphering information are None."""

    def __init__(self) -> None:
        super().__init__()
        self.clientSAP, self.serverSAP = NO_SECURITY_CLIENT, 1
        self.xDLMSContextInfo.cypheringInfo = b""


class Register(GXDLMSRegister):  # type: ignore[misc]
    """Shim: the library takes the logarithm of the scaler and gets 2 for a thousand."""

    def __init__(self, name: str, raw: int, data_type: Any, scaler: int, unit: Any) -> None:
        super().__init__(name)
        self.value, self.exponent, self.unit = raw, scaler, unit
        self.setDataType(2, data_type)

    def getValue(self, settings: Any, e: Any) -> Any:
        if e.index == 3:
            return bytes((DataType.STRUCTURE, 2, DataType.INT8, self.exponent & 0xFF, DataType.ENUM, int(self.unit)))
        return super().getValue(settings, e)


class Clock(GXDLMSClock):  # type: ignore[misc]
    """UTC plus what it was set by."""

    def __init__(self, meter: Meter) -> None:
        super().__init__("0.0.1.0.0.255")
        self.meter = meter

    def getValue(self, settings: Any, e: Any) -> Any:
        if e.index == 2:
            return GXDateTime(datetime.now(UTC) + self.meter.offset)
        return super().getValue(settings, e)

    def setValue(self, settings: Any, e: Any) -> None:
        super().setValue(settings, e)
        if e.index == 2:
            told = self.time.value
            self.meter.offset = (told if told.tzinfo else told.replace(tzinfo=UTC)) - datetime.now(UTC)


class Relay(GXDLMSDisconnectControl):  # type: ignore[misc]
    """Connected at the start; both methods change it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.outputState, self.controlState, self.controlMode = True, ControlState.CONNECTED, 2

    def invoke(self, settings: Any, e: Any) -> None:
        self.outputState = e.index == 2
        self.controlState = ControlState.CONNECTED if self.outputState else ControlState.DISCONNECTED


class Profile(GXDLMSProfileGeneric):  # type: ignore[misc]
    """Shim of the selection: the library's compares a time with 0, and drops rows of an entry range."""

    def getValue(self, settings: Any, e: Any) -> Any:
        if e.index != 2:
            return super().getValue(settings, e)
        rows = self.buffer
        if e.selector == 1:
            first, last = (as_time(settings, e.parameters[at]) for at in (1, 2))
            rows = [row for row in rows if first <= row[0].value <= last]
        elif e.selector == 2:
            begin, end = int(e.parameters[0]), int(e.parameters[1])
            rows = rows[max(begin, 1) - 1 : end or None]
        data = GXByteBuffer()
        data.setUInt8(DataType.ARRAY)
        _GXCommon.setObjectCount(len(rows), data)
        types = (DataType.OCTET_STRING, DataType.UINT32, DataType.UINT16)
        for row in rows:
            data.setUInt8(DataType.STRUCTURE)
            data.setUInt8(len(row))
            for data_type, value in zip(types, row, strict=True):
                _GXCommon.setData(settings, data, data_type, value)
        return data


def as_time(settings: Any, octets: Any) -> datetime:
    found: datetime = _GXCommon.changeType(settings, octets, DataType.DATETIME).value
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def data_object(name: str, value: Any, data_type: Any) -> Any:
    item = GXDLMSData(name)
    item.value = value
    item.setDataType(2, data_type)
    return item


def long_octets() -> bytes:
    """As long as it takes for several blocks, every octet telling its place."""
    return b"".join(at.to_bytes(2, "big") for at in range(LONG_OCTETS // 2))


def profile(items: Any) -> Profile:
    """Clock, import energy and voltage; row n has energy 1000 + n and voltage 2300 + n % 10."""
    found = Profile("1.0.99.1.0.255")
    for kind, name in (
        (ObjectType.CLOCK, "0.0.1.0.0.255"),
        (ObjectType.REGISTER, "1.0.1.8.0.255"),
        (ObjectType.REGISTER, "1.0.32.7.0.255"),
    ):
        found.addCaptureObject(items.findByLN(kind, name), 2, 0)
    for at in range(ROWS):
        time = GXDateTime(FIRST_ROW + timedelta(seconds=PERIOD_S * at))
        found.buffer.append([time, 1000 + at, 2300 + at % 10])
    found.capturePeriod, found.entriesInUse, found.profileEntries = PERIOD_S, ROWS, 1000
    return found


# ---------------------------------------------------------------------------------------------------------------- lines


def serve_wrapper(port: int, ready: Callable[[dict[str, object]], None]) -> None:
    """One connection after the other, for ever."""
    with socket.create_server((HOST, port)) as listener:
        ready({"port": listener.getsockname()[1]})
        while True:
            link, _ = listener.accept()
            with link:
                meter = Meter(InterfaceType.WRAPPER)
                while octets := link.recv(4096):
                    if answer := meter.exchange(octets):
                        link.sendall(answer)


def serve_hdlc(path: str, ready: Callable[[dict[str, object]], None]) -> None:
    """The meter end of a pseudo terminal that somebody else made."""
    import tty  # not on Windows

    line = os.open(path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(line)
    meter = Meter(InterfaceType.HDLC)
    ready({"pty": path})
    while octets := os.read(line, 4096):
        if answer := meter.exchange(octets):
            os.write(line, answer)


# --------------------------------------------------------------------------------------------------------------- client


class Client:
    """The library's client over TCP with the wrapper.

    ``keys``: encryption and authentication key; they make it HLS with GMAC, ``is_ciphered`` seals the services as well.
    """

    def __init__(
        self, host: str, port: int, client: int, password: str, keys: tuple[bytes, bytes] | None, *, is_ciphered: bool
    ) -> None:
        if keys is None:
            mode = Authentication.LOW if password else Authentication.NONE
            self.dlms = GXDLMSClient(True, client, 1, mode, password or None, InterfaceType.WRAPPER)
        else:
            self.dlms = GXDLMSSecureClient(True, client, 1, Authentication.HIGH_GMAC, None, InterfaceType.WRAPPER)
            self.dlms.ciphering.blockCipherKey, self.dlms.ciphering.authenticationKey = map(bytearray, keys)
            self.dlms.ciphering.security = Security.AUTHENTICATION_ENCRYPTION if is_ciphered else Security.NONE
        self.has_proof = keys is not None
        self.link = socket.create_connection((host, port), timeout=10)

    def ask(self, messages: Any) -> Any:
        """Send these and return the reply of the last, all its blocks read."""
        reply = GXReplyData()
        for message in messages if isinstance(messages, list) else [messages]:
            reply.clear()
            self._one(message, reply)
            while reply.isMoreData():
                self._one(self.dlms.receiverReady(reply), reply)
        return reply

    def _one(self, message: Any, reply: Any) -> None:
        self.link.sendall(bytes(message))
        received, notice = GXByteBuffer(), GXReplyData()
        while not self.dlms.getData(received, reply, notice):
            octets = self.link.recv(4096)
            if not octets:
                raise ConnectionError("the meter closed the connection")
            received.set(octets)
        if reply.error:
            raise ValueError(f"the meter answered error {reply.error}")

    def associate(self) -> None:
        self.dlms.parseAareResponse(self.ask(self.dlms.aarqRequest()).data)
        if self.has_proof:
            answer = self.ask(self.dlms.getApplicationAssociationRequest())
            self.dlms.parseApplicationAssociationResponse(answer.data)

    def read(self, item: Any, index: int) -> Any:
        return self.dlms.updateValue(item, index, self.ask(self.dlms.read(item, index)).value)

    def rows(self, item: Any, messages: Any) -> int:
        """How many rows of a profile the meter gives."""
        return len(self.dlms.updateValue(item, 2, self.ask(messages).value))


def read_meter(one: Client, message: str) -> dict[str, object]:
    """Association, object list, a register, the clock and the load profile of a meter, then the release.

    ``message`` is written to 0.0.96.13.0.255 and read back; "" writes nothing.
    """
    with one.link:
        one.associate()
        objects = one.dlms.parseObjects(one.ask(one.dlms.getObjectsRequest()).data, True)
        register = objects.findByLN(ObjectType.REGISTER, "1.0.1.8.0.255")
        one.read(register, 3)
        energy = one.read(register, 2)
        clock = objects.findByLN(ObjectType.CLOCK, "0.0.1.0.0.255")
        time = one.read(clock, 2)
        rows = objects.findByLN(ObjectType.PROFILE_GENERIC, "1.0.99.1.0.255")
        one.read(rows, 3)
        end = time.value.astimezone(UTC)
        by_range = one.rows(rows, one.dlms.readRowsByRange(rows, end - timedelta(hours=2), end))
        by_entry = one.rows(rows, one.dlms.readRowsByEntry(rows, 3, 40))
        told = ""
        if message:
            place = data_object("0.0.96.13.0.255", message.encode("ascii"), DataType.OCTET_STRING)
            one.ask(one.dlms.write(place, 2))
            told = bytes(one.ask(one.dlms.read(place, 2)).value).decode("ascii")
        one.ask(one.dlms.releaseRequest())
        return {
            "objects": [[int(item.objectType), item.logicalName] for item in objects],
            "energy": energy,
            "unit": int(register.unit),
            "time": time.value.isoformat(),
            "rows_of_two_hours": by_range,
            "rows_of_forty_entries": by_entry,
            "message": told,
        }


# ----------------------------------------------------------------------------------------------------------------- main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--wrapper", type=int, metavar="PORT")
    way.add_argument("--hdlc", metavar="PTY")
    way.add_argument("--client", nargs=2, metavar=("HOST", "PORT"))
    parser.add_argument("--address", type=int, default=NO_SECURITY_CLIENT, help="the client's own")
    parser.add_argument("--password", default="")
    parser.add_argument("--keys", nargs=2, metavar=("ENCRYPTION", "AUTHENTICATION"), help="in hex; HLS with GMAC")
    parser.add_argument("--ciphered", action="store_true", help="with --keys: the services, too")
    parser.add_argument("--message", default="", help="written to 0.0.96.13.0.255 and read back")
    chosen = parser.parse_args()
    out = sys.stdout
    sys.stdout = sys.stderr  # the library prints

    def say(facts: dict[str, object]) -> None:
        out.write(json.dumps(facts) + "\n")
        out.flush()

    if chosen.client:
        host, port = chosen.client
        keys = (bytes.fromhex(chosen.keys[0]), bytes.fromhex(chosen.keys[1])) if chosen.keys else None
        one = Client(host, int(port), chosen.address, chosen.password, keys, is_ciphered=chosen.ciphered)
        try:
            say(read_meter(one, chosen.message))
        except GXDLMSException as exc:
            say({"refused": [int(exc.result), int(exc.diagnostic)]})
        except GXDLMSExceptionResponse as exc:
            say({"exception": [int(exc.exceptionStateError), int(exc.exceptionServiceError), exc.serviceErrorValue]})
        except (ValueError, OSError) as exc:
            say({"failed": str(exc)})
        return
    if chosen.hdlc:
        work = threading.Thread(target=serve_hdlc, args=(chosen.hdlc, say), daemon=True)
    else:
        work = threading.Thread(target=serve_wrapper, args=(chosen.wrapper, say), daemon=True)
    work.start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
