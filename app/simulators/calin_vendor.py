"""The vendor's HTTP services v1 and v2 with CALIN meters behind their concentrators; one server speaks one version.

Source of the rules: calin-api.md (sections 1 to 7). Answers are built here from that text; the adapter's codec is not
used. Where nothing is said, the choice made stands in a comment beginning with "Choice:". Each version counts its
tasks from a number of its own, because both may stand behind one head-end, which looks tasks up without their vendor.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from app.errors import ConfigError
from app.simulators._http import (
    WIRE_FAULTS,
    Answer,
    FaultKind,
    HttpSim,
    Request,
    SimClock,
    Struck,
    count,
    fault_help,
    is_http_status,
    is_name,
    read_extra,
    seconds,
    yes,
)
from app.simulators.calin_meters import METER_FAULTS, OLD_FIRMWARE, CalinMeter, MeterField, demo_field
from app.simulators.catalog import Announce, SimOptions

FIRST_TASKS: Final[Mapping[int, int]] = {1: 3800, 2: 503_800}  # by version

VENDOR_FAULTS: Final[Mapping[str, FaultKind]] = {
    **WIRE_FAULTS,
    **METER_FAULTS,
    # creating a task
    "code99": FaultKind("v1: no task, ResultCode 99"),
    "no-task": FaultKind("no task number, another reason; nothing is carried out"),
    "lost-task": FaultKind("no task number is told, but the task is carried out"),
    # polling
    "poll-error": FaultKind("asking for a task is answered with this status", "500", is_http_status),
    "pending": FaultKind("the task is pending still, whatever has happened"),
    "poll99": FaultKind("v1: no Result, ResultCode 99"),
    "no-result": FaultKind("no Result or row, another reason"),
    "status": FaultKind(
        "Status of v1 is this text, or absent | null | empty | bool; status of v2 this number, or absent | null | text",
        "False", lambda text: re.fullmatch(r"[A-Za-z0-9]{1,20}", text) is not None,
    ),
    "unreadable": FaultKind("the value is no number"),
    "no-value": FaultKind("the value is missing from the answer"),
    "other-task": FaultKind("the answer is that of another task, of another meter"),
    "wrong-relay": FaultKind("v2: the relay text says the opposite"),
    "concentrator-down": FaultKind(
        "this concentrator is offline, without a value all of them; its tasks wait", "", is_name, lasting=True
    ),
    "grid-dark": FaultKind("the meters of this grid, without a value all of them, are without voltage", "", is_name,
                           lasting=True),
    # tokens
    "no-token": FaultKind("no token is issued, nothing is sold"),
    "lost-sale": FaultKind("sold, but the token is empty in the answer"),
    # login of v2
    "login-fails": FaultKind("v2: the login gives no token"),
    "login-no-exp": FaultKind("v2: the login's token has no expiry"),
    "login-expired": FaultKind("v2: the login's token has expired already"),
    "unauthorized": FaultKind("v2: 401 although the token is good"),
    "id-as-text": FaultKind("v2: the id of a new task is a text"),
}  # fmt: skip
FAULTS: Final[Mapping[str, str]] = fault_help(VENDOR_FAULTS)
"""Name -> help of every fault, for ``sim list`` and ``--help``."""

# section 1.2: DataItem -> command, phase
V1_READS: Final[Mapping[str, tuple[str, str]]] = {
    "Current Credit Register": ("READ_CREDIT", ""),
    "Voltage": ("READ_VOLTAGE", ""),
    "VoltageA": ("READ_VOLTAGE", "A"),
    "VoltageB": ("READ_VOLTAGE", "B"),
    "VoltageC": ("READ_VOLTAGE", "C"),
    "Power": ("READ_POWER", ""),
    "Current": ("READ_CURRENT", ""),
    "CurrentA": ("READ_CURRENT", "A"),
    "CurrentB": ("READ_CURRENT", "B"),
    "CurrentC": ("READ_CURRENT", "C"),
    "Maximum power threshold": ("READ_POWER_LIMIT", ""),
    "Version": ("READ_VERSION", ""),
    "Date": ("READ_DATE", ""),
    "The number of power down": ("READ_POWER_DOWNS", ""),
    "Special status identifier": ("READ_SPECIAL_STATUS", ""),
}
V1_CONTROLS: Final[Mapping[str, str]] = {"Switch On": "TURN_ON", "Switch Off": "TURN_OFF"}
V1_TASKS: Final[Mapping[str, str]] = {
    "/comm_remotereading": "read",
    "/comm_remotecontrol": "control",
    "/comm_remotewrite": "write",
    "/comm_remotetoken": "token",
}
# protocolId -> command, name, dataPrefix
V2_READS: Final[Mapping[int, tuple[str, str, str]]] = {
    39: ("READ_CREDIT", "Current Credit Balance", "Current Credit Balance(kWh)"),
    5: ("READ_VOLTAGE", "Phase-A Voltage", "Phase-A Voltage(V)"),
    11: ("READ_POWER", "Power", "Power(kW)"),
    8: ("READ_CURRENT", "Phase-A Current(A)", "Phase-A Current(A)"),
    46: ("READ_POWER_LIMIT", "Maximum power threshold", "Maximum power threshold(W)"),
    45: ("READ_VERSION", "Meter Firmware Version", "Meter Firmware Version"),
    29: ("READ_DATE", "Clock(time)", "Clock(time)"),
    37: ("READ_RELAY", "Relay status", "Relay status"),
    42: ("READ_TERMINAL_COVER", "Terminal cover last opened", "Terminal cover last opened"),
    43: ("READ_SPECIAL_STATUS", "Special status", "Special status"),
    47: ("READ_POWER_DOWNS", "Power-down count", "Power-down count"),
}
V2_CONTROLS: Final[Mapping[int, str]] = {20000: "TURN_ON", 20001: "TURN_OFF"}
V2_TASKS: Final[Mapping[str, str]] = {
    "readingtask": "read", "controltask": "control", "settingtask": "write", "tokentask": "token",
}  # fmt: skip
V1_MINTS: Final[Mapping[str, str]] = {
    "/pos_purchase": "TOP_UP",
    "/maintenance_setmaxpower": "SET_POWER_LIMIT",
    "/maintenance_cleartamper": "CLEAR_TAMPER",
    "/maintenance_clearcredit": "CLEAR_CREDIT",
}
V2_MINTS: Final[Mapping[str, str]] = {
    "credittoken": "TOP_UP",
    "setmaximumpowerlimittoken": "SET_POWER_LIMIT",
    "cleartampertoken": "CLEAR_TAMPER",
    "clearcredittoken": "CLEAR_CREDIT",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorConfig:
    """What is fixed at the start. ``*_s`` are simulated seconds but for ``jwt_s``, which a client checks by its clock.

    ``wall`` gives the seconds since 1970 by which a login's token expires. ``latency_s``: every answer comes so late,
    10 to 30 s in the real service; the request is carried out at once. ``first_task``: number of the first task; None:
    that of the version. With the same number in both, a client that mixes them up completes the wrong command.
    """

    version: int = 1
    port: int = 0
    company: str = "DemoCo"
    customer_id: str = "1"
    admin_user: str = "admin"
    admin_password: str = field(default="adminpw", repr=False)
    pos_user: str = "pos"
    pos_password: str = field(default="pospw", repr=False)
    maintenance_user: str = "maintenance"
    maintenance_password: str = field(default="maintenancepw", repr=False)
    faults: tuple[str, ...] = ()
    control: bool = False  # offer POST /_sim/faults
    seed: int = 0
    latency_s: float = 0.0
    execute_s: float = 4.0  # from the task to the meter's answer
    jwt_s: float = 3600.0
    wall: Callable[[], float] = time.time
    first_task: int | None = None


@dataclass(slots=True, kw_only=True)
class Task:
    """A task at the vendor. ``state``: pending, done, failed, refused (a token)."""

    number: int
    meter: str
    family: str
    command: str
    name: str
    prefix: str = ""
    phase: str = ""
    given: str = field(default="", repr=False)
    created: datetime
    updated: datetime
    state: str = "pending"
    is_taken: bool = False  # the concentrator has it
    data: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """A token the vendor issued; ``value`` kWh or W."""

    meter: str
    command: str
    value: Decimal
    token: str = field(repr=False)
    serial_number: str = ""


class _Refusal(Exception):
    """A request the service does not carry out."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(str(answer.status))
        self.answer = answer


class CalinVendorSimulator(HttpSim):
    """The service: ``async with CalinVendorSimulator(field, config) as sim``, then ``sim.url`` answers.

    ``tasks`` by number, ``sales`` in order; ``peak`` is the largest number of unfinished tasks per concentrator.

    Raises:
        ConfigError: there is no such version.
    """

    def __init__(self, meters: MeterField | None = None, config: VendorConfig | None = None) -> None:
        self.config = config or VendorConfig()
        if self.config.version not in (1, 2):
            raise ConfigError("There is no such version.", key="version", expected="1 or 2")
        self.field = meters or demo_field(seed=self.config.seed)
        super().__init__(
            f"calin-v{self.config.version}",
            VENDOR_FAULTS,
            port=self.config.port,
            faults=self.config.faults,
            clock=self.field.clock,
            control=self.config.control,
        )
        self.tasks: dict[int, Task] = {}
        self.sales: list[Sale] = []
        self.peak: dict[str, int] = {}
        self.logins = 0
        self.accounts = set(self.field.meters)
        self.concentrators: dict[str, dict[int, str]] = {}  # point number -> meter
        for meter in self.field.meters.values():
            self._add_to_file(meter.config.concentrator, meter.serial)
        first = self.config.first_task
        self._next = FIRST_TASKS[self.config.version] if first is None else first
        self._bearers: dict[str, float] = {}  # token -> expiry
        self._down: set[str] = set()
        self._dark: set[str] = set()
        self.field.listeners.append(self._notify)

    # -- what tests and the demo ask and do

    def set_concentrator(self, concentrator: str, online: bool) -> None:
        """Take a concentrator off the network or give it back; its own switch, beside ``concentrator-down``."""
        (self._down.discard if online else self._down.add)(concentrator)
        self._notify()

    def is_online(self, concentrator: str) -> bool:
        return concentrator not in self._down and self.faults.value("concentrator-down") not in ("", concentrator)

    def expire_logins(self) -> None:
        """Forget every login of v2; the next call is answered with 401."""
        self._bearers.clear()

    def unfinished(self, concentrator: str = "") -> list[Task]:
        """Tasks that are pending, of one concentrator or of all."""
        return [
            task
            for task in self.tasks.values()
            if task.state == "pending" and concentrator in ("", self.field[task.meter].config.concentrator)
        ]

    # -- requests

    def _faults_changed(self) -> None:
        dark = self.faults.value("grid-dark")
        grids = set() if dark is None else {dark}
        for grid in self._dark - grids:
            self.field.set_dark(False, grid)
        for grid in grids - self._dark:
            self.field.set_dark(True, grid)
        self._dark = grids
        super()._faults_changed()

    def _subjects(self, request: Request) -> tuple[str, ...]:
        body = request.json()
        row = body[0] if isinstance(body, list) and body else body
        if not isinstance(row, dict):
            return ()
        for name in ("MeterNo", "meter_number", "meterId"):
            if isinstance(row.get(name), str):
                return (row[name],)
        task = self._find(row.get("TaskNo", row.get("id")))
        return () if task is None else (task.meter,)

    async def _answer(self, request: Request) -> Answer:
        def struck(name: str) -> str | None:
            return self.faults.take(name, request.path, f"{request.method}{request.path}", *self._subjects(request))

        try:
            if request.method != "POST":
                raise _Refusal(Answer(405, {"Message": "The requested resource does not support this method."}))
            body = request.json()
            answer = self._v1(request, body, struck) if self.config.version == 1 else self._v2(request, body, struck)
        except _Refusal as refusal:
            answer = refusal.answer
        self._notify()
        if self.config.latency_s:
            await self.clock.sleep(self.config.latency_s)
        return answer

    @staticmethod
    def _not_found(request: Request) -> _Refusal:
        return _Refusal(Answer(404, {"Message": f"No HTTP resource was found that matches {request.path}."}))

    # -- tasks

    def _find(self, number: object) -> Task | None:
        """The task of that number, a text of digits or a whole number."""
        if isinstance(number, str) and re.fullmatch(r"[0-9]{1,18}", number) is not None:
            number = int(number)
        return self.tasks.get(number) if isinstance(number, int) and not isinstance(number, bool) else None

    def _create(self, **parts: Any) -> Task:
        now = self.clock.now
        task = self.tasks[self._next] = Task(number=self._next, created=now, updated=now, **parts)
        self._next += 1
        meter = self.field[task.meter]
        concentrator = meter.config.concentrator
        self.peak[concentrator] = max(self.peak.get(concentrator, 0), len(self.unfinished(concentrator)))
        self._spawn(self._run(task, meter), f"task:{task.number}")
        return task

    async def _run(self, task: Task, meter: CalinMeter) -> None:
        """Carry a task out: through the concentrator to the meter and back."""

        def struck(name: str) -> str | None:
            found = self.faults.take(name, meter.serial)
            return meter.struck(name) if found is None else found

        await self.wait_until(lambda: self.is_online(meter.config.concentrator))
        task.is_taken = True
        self._notify()
        await self.clock.sleep(self.config.execute_s)
        await self.wait_until(lambda: self.is_online(meter.config.concentrator) and not meter.is_dark)
        if struck("silence") is not None:  # Choice: pending for ever, as tasks to dead meters are seen to be
            return
        state = self._execute(task, meter, struck)
        self._notify()
        if struck("mute") is not None:
            return
        if (late := struck("late")) is not None:
            await self.clock.sleep(float(late))
        if struck("wrong-checksum") is not None or struck("garbage") is not None:
            state, task.data = "failed", ""
        task.state, task.updated = state, self.clock.now
        self._notify()

    def _execute(self, task: Task, meter: CalinMeter, struck: Struck) -> str:
        values: dict[str, int] = {}
        via = self.name
        if task.command == "SET_DATE":
            day = self._day(task.given)
            if day is None:
                return "failed"
            values = {"year": day.year, "month": day.month, "day": day.day, "midnight": int(self.config.version == 2)}
        if self.config.version == 1 and task.command == "READ_POWER_LIMIT" and meter.version == OLD_FIRMWARE:
            return "failed"
        token = task.given if task.family == "token" else ""
        if not meter.execute(task.command, phase=task.phase, token=token, values=values, via=via, struck=struck):
            return "refused" if task.family == "token" else "failed"
        task.data = self._v1_data(task, meter) if self.config.version == 1 else self._v2_data(task, meter)
        return "done"

    def _day(self, text: str) -> date | None:
        """The date of a write, None when it is none: ``yymmddww`` in v1, ``YYYY-MM-DD 00:00:00`` in v2."""
        form, length = ("%y%m%d", 6) if self.config.version == 1 else ("%Y-%m-%d", 10)
        try:
            day = datetime.strptime(text[:length], form).date()  # noqa: DTZ007
        except ValueError:
            return None
        tail = f"{day.isoweekday() % 7:02}" if self.config.version == 1 else " 00:00:00"
        return day if text[length:] == tail else None

    def _add_to_file(self, concentrator: str, meter: str) -> int:
        entries = self.concentrators.setdefault(concentrator, {})
        number = max(entries, default=0) + 1
        entries[number] = meter
        return number

    def _sell(self, serial: str, command: str, value: object, struck: Struck, serial_number: str = "") -> str | None:
        """A fresh token, None when none is issued; the same one for a ``serial_number`` that was used before."""
        if struck("no-token") is not None or serial not in self.accounts or serial not in self.field.meters:
            return None
        for sale in self.sales:  # Choice: a repeated serial number is the same sale
            if serial_number and sale.serial_number == serial_number:
                return sale.token
        if command in ("CLEAR_TAMPER", "CLEAR_CREDIT"):
            value = 0
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or value < 0:
            return None
        if command == "TOP_UP" and not value:
            return None
        try:
            token = self.field[serial].issue(command, Decimal(value))
        except ConfigError:
            return None
        sale = Sale(meter=serial, command=command, value=Decimal(value), token=token, serial_number=serial_number)
        self.sales.append(sale)
        return "" if struck("lost-sale") is not None else token

    # -- version 1

    def _v1(self, request: Request, body: object, struck: Struck) -> Answer:
        if not isinstance(body, dict):
            raise _Refusal(Answer(400, {"Message": "The request is invalid."}))
        path = request.path.lower()
        if (family := V1_TASKS.get(path)) is not None:
            self._v1_account(body, "admin")
            return self._v1_create(family, body, struck)
        if (family := V1_TASKS.get(path.removesuffix("task"))) is not None:
            self._v1_account(body, "admin")
            return self._v1_poll(family, body, struck)
        if (command := V1_MINTS.get(path)) is not None:
            return self._v1_mint(command, body, struck)
        if path == "/comm_onlinestatus":
            self._v1_account(body, "maintenance")
            rows = [{"ConcentratorNo": name, "Status": self.is_online(name)} for name in self.concentrators]
            return Answer(200, {"ResultCode": "00", "Reason": "OK", "Result": rows})
        if path == "/comm_hourlydatanew":
            self._v1_account(body, "maintenance")
            return self._v1_hourly(body)
        raise self._not_found(request)

    def _v1_account(self, body: Mapping[str, Any], account: str) -> None:
        expected = (
            self.config.company,
            getattr(self.config, f"{account}_user"),
            getattr(self.config, f"{account}_password"),
        )
        if tuple(body.get(name) for name in ("CompanyName", "UserName", "Password")) != expected:
            # Choice: the vendor's own answer is not published
            raise _Refusal(Answer(200, {"ResultCode": "01", "Reason": "User name or password error", "Result": None}))

    def _v1_create(self, family: str, body: Mapping[str, Any], struck: Struck) -> Answer:
        def no_task(code: str, reason: str) -> Answer:
            return Answer(200, {"ResultCode": code, "Reason": reason, "Result": None})

        serial, item = body.get("MeterNo"), body.get("DataItem")
        if not isinstance(serial, str) or serial not in self.accounts or serial not in self.field.meters:
            return no_task("02", "Meter does not exist")
        if struck("code99") is not None:
            return no_task("99", "Token has been used" if family == "token" else "Fail")
        if struck("no-task") is not None:
            return no_task("05", "System busy")
        command, phase, given, name = "", "", "", str(item)
        if family == "read":
            command, phase = V1_READS.get(name, ("", ""))
        elif family == "control":
            command = V1_CONTROLS.get(name, "")
        elif family == "write":
            command, given = ("SET_DATE" if name == "Date" else ""), str(body.get("Data", ""))
        else:
            command, given, name = "DELIVER_PREEXISTING_TOKEN", str(body.get("Token", "")), "Token"
            if re.fullmatch(r"[0-9]{20}", given) is None:
                return no_task("03", "Token format error")
            if any(t.given == given and t.meter == serial and t.state == "done" for t in self.tasks.values()):
                return no_task("99", "Token has been used")
        if not command:
            return no_task("04", "Data item error")
        task = self._create(meter=serial, family=family, command=command, name=name, phase=phase, given=given)
        if struck("lost-task") is not None:
            return no_task("05", "System busy")
        result = {"TaskNo": str(task.number), "Status": None, "DataItem": name, "Data": ""}
        return Answer(200, {"ResultCode": "00", "Reason": "OK", "Result": result})

    def _v1_poll(self, family: str, body: Mapping[str, Any], struck: Struck) -> Answer:
        if (status := struck("poll-error")) is not None:
            return Answer(int(status), {"Message": "An error has occurred."})
        task = self._find(body.get("TaskNo"))
        if task is None or task.family != family or struck("no-result") is not None:
            return Answer(200, {"ResultCode": "02", "Reason": "Task does not exist", "Result": None})
        if struck("poll99") is not None or task.state == "refused":
            return Answer(200, {"ResultCode": "99", "Reason": "Token has been used", "Result": None})
        number, data, state = str(task.number), task.data, task.state
        if struck("other-task") is not None:
            number, data, state = str(task.number + 1000), "4711.11,OFF" if data.endswith(("ON", "OFF")) else "", "done"
        if struck("pending") is not None:
            state = "pending"
        if state == "done" and struck("unreadable") is not None:
            data = "--"
        told: object = {"done": "True", "failed": "False"}.get(state, "unknown" if task.is_taken else None)
        reason = "Meter no response" if state == "failed" else "OK"
        result: dict[str, Any] = {"TaskNo": number, "Status": told, "DataItem": task.name}
        result["Data"] = data if state == "done" else ""
        if (forced := struck("status")) is not None:
            if forced == "absent":
                del result["Status"]
            else:
                result["Status"] = {"null": None, "empty": "", "bool": True}.get(forced, forced)
        if struck("no-value") is not None:
            del result["Data"]
        return Answer(200, {"ResultCode": "00", "Reason": reason, "Result": result})

    def _v1_data(self, task: Task, meter: CalinMeter) -> str:
        phase = task.phase or "A"
        match task.command:
            case "READ_CREDIT":
                return f"{meter.credit},{'ON' if meter.is_on else 'OFF'}"
            case "READ_VOLTAGE":
                return f"{meter.voltage(phase):.1f} V"
            case "READ_POWER":
                return f"{meter.power() / 1000:.3f} kW"
            case "READ_CURRENT":
                return f"{meter.current(phase)} A"
            case "READ_POWER_LIMIT":
                return f"{meter.power_limit} W"
            case "READ_VERSION":
                return meter.version
            case "READ_DATE":
                shown = meter.time
                return f"{shown:%y-%m-%d} {shown.isoweekday() % 7:02}"
            case "READ_POWER_DOWNS" | "READ_SPECIAL_STATUS":
                return "0"
            case _:
                return ""

    def _v1_mint(self, command: str, body: Mapping[str, Any], struck: Struck) -> Answer:
        is_sale = command == "TOP_UP"
        account = "pos" if is_sale else "maintenance"
        user, password = getattr(self.config, f"{account}_user"), getattr(self.config, f"{account}_password")
        sent = tuple(body.get(name) for name in ("company_name", "user_name", "password"))
        if sent != (self.config.company, user, password) or (is_sale and body.get("password_vend") != password):
            return Answer(200, {"result_code": 1, "reason": "User name or password error", "result": None})
        if is_sale and body.get("is_vend_by_unit") is not True:  # Choice: selling for money is not simulated
            return Answer(200, {"result_code": 4, "reason": "Tariff error", "result": None})
        value = body.get("amount" if is_sale else "max_power", 0)
        token = self._sell(str(body.get("meter_number")), command, value, struck)
        if token is None:
            return Answer(200, {"result_code": 2, "reason": "Meter does not exist", "result": None})
        return Answer(200, {"result_code": 0, "reason": "OK", "result": {"token": token} if is_sale else token})

    def _v1_hourly(self, body: Mapping[str, Any]) -> Answer:
        rows = []
        listed = body.get("QueryList")
        for query in listed if isinstance(listed, list) else []:
            try:
                meter = self.field.meters[query["MeterNo"]]
                day = date(query["Year"], query["Month"], query["Day"])
            except (KeyError, TypeError, ValueError, OverflowError):
                continue
            row: dict[str, Any] = {"MeterNo": meter.serial, "Year": day.year, "Month": day.month, "Day": day.day}
            row |= {
                "TotalUnitsCounter": meter.energy,
                "CurrentCreditRegister": meter.credit,
                "RelayStatus": "ON" if meter.is_on else "OFF",
            }
            row |= {f"HourlyConsumption_{hour}to{hour + 1}": used for hour, used in enumerate(meter.hours(day))}
            rows.append(row)
        return Answer(200, {"ResultCode": "00", "Reason": "OK", "Result": rows})

    # -- version 2

    def _v2(self, request: Request, body: object, struck: Struck) -> Answer:
        path = request.path.lower()
        if path == "/api/user/login":
            return self._v2_login(body, struck)
        self._v2_authenticate(request, struck)
        parts = path.strip("/").split("/")
        row = body[0] if isinstance(body, list) and body else body
        if not isinstance(row, dict):
            raise _Refusal(Answer(400, {"code": 400, "reason": "The request is invalid", "result": None}))
        if row.get("company", row.get("Company")) != self.config.company:
            return self._v2_refused("Company does not exist")
        match parts:
            case ["api", "remotemetertask", call] if call.startswith("create") and call[6:] in V2_TASKS:
                if not isinstance(body, list):
                    raise _Refusal(Answer(400, {"code": 400, "reason": "The request is invalid", "result": None}))
                return self._v2_create(V2_TASKS[call[6:]], row, struck)
            case ["api", "remotemetertask", call] if call.startswith("get") and call[3:] in V2_TASKS:
                return self._v2_poll(V2_TASKS[call[3:]], row, struck)
            case ["api", "token", kind, "generate"] if kind in V2_MINTS:
                return self._v2_mint(V2_MINTS[kind], row, struck)
            case ["api", "concentratoronlinestatus", "read"]:
                return self._v2_rows(
                    [{"concentratorId": name, "status": self.is_online(name)} for name in self.concentrators]
                )
            case ["api", "dailyreport", "read"]:
                return self._v2_daily(row)
            case ["api", "dlms", "readdlmstree"]:
                return self._v2_rows([{"id": number, "name": names[1]} for number, names in V2_READS.items()])
            case ["api", group, call]:
                return self._v2_provision(f"{group}/{call}", row, request)
        raise self._not_found(request)

    @staticmethod
    def _v2_refused(reason: str) -> Answer:
        return Answer(200, {"code": 1, "reason": reason, "result": None})

    @staticmethod
    def _v2_rows(rows: list[dict[str, Any]]) -> Answer:
        return Answer(200, {"code": 0, "reason": "success", "result": {"total": len(rows), "data": rows}})

    def _v2_login(self, body: object, struck: Struck) -> Answer:
        expected = {
            "userId": self.config.admin_user,
            "password": self.config.admin_password,
            "company": self.config.company,
        }
        if not isinstance(body, dict) or any(body.get(name) != value for name, value in expected.items()):
            return self._v2_refused("User name or password error")
        if struck("login-fails") is not None:
            return self._v2_refused("System busy")
        self.logins += 1
        expiry = self.config.wall() + (-60.0 if struck("login-expired") is not None else self.config.jwt_s)
        claims: dict[str, Any] = {"sub": self.config.admin_user, "jti": secrets.token_hex(8), "exp": int(expiry)}
        if struck("login-no-exp") is not None:
            del claims["exp"]
        pieces = [{"alg": "HS256", "typ": "JWT"}, claims]
        texts = [base64.urlsafe_b64encode(json.dumps(piece).encode()).decode().rstrip("=") for piece in pieces]
        token = ".".join((*texts, secrets.token_urlsafe(32)))
        self._bearers[token] = expiry
        return Answer(200, {"code": 0, "reason": "success", "result": {"token": token}})

    def _v2_authenticate(self, request: Request, struck: Struck) -> None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        is_good = self._bearers.get(token, 0.0) > self.config.wall()
        if not is_good or struck("unauthorized") is not None:
            raise _Refusal(Answer(401, {"code": 401, "reason": "Unauthorized", "result": None}))

    def _v2_create(self, family: str, row: Mapping[str, Any], struck: Struck) -> Answer:
        serial, protocol = row.get("meterId"), row.get("protocolId")
        if not isinstance(serial, str) or serial not in self.accounts or serial not in self.field.meters:
            return self._v2_refused("Meter does not exist")
        if struck("no-task") is not None or struck("code99") is not None:
            return self._v2_refused("Create task failed")
        command, name, prefix, given = "", "", "", str(row.get("data", ""))
        if family == "read" and isinstance(protocol, int):
            command, name, prefix = V2_READS.get(protocol, ("", "", ""))
        elif family == "control" and isinstance(protocol, int):
            command, name = V2_CONTROLS.get(protocol, ""), "Relay On/Off"
        elif family == "write" and protocol == 10000:
            command, name = "SET_DATE", "Clock(time)"
        elif family == "token" and protocol == 30000:
            command, name = "DELIVER_PREEXISTING_TOKEN", "Token"
        if not command:
            return self._v2_refused("Protocol does not exist")
        task = self._create(
            meter=serial, family=family, command=command, name=name, prefix=prefix or name, given=given
        )  # fmt: skip
        if struck("lost-task") is not None:
            return self._v2_refused("System busy")
        number: object = str(task.number) if struck("id-as-text") is not None else task.number
        return Answer(200, {"code": 0, "reason": "success", "result": [{"id": number}]})

    def _v2_poll(self, family: str, row: Mapping[str, Any], struck: Struck) -> Answer:
        if (status := struck("poll-error")) is not None:
            return Answer(int(status), {"code": int(status), "reason": "Server error", "result": None})
        number = row.get("id")  # Choice: asked for as a text, it is not found
        task = self._find(number) if isinstance(number, int) else None
        if task is None or task.family != family or struck("no-result") is not None or struck("poll99") is not None:
            return Answer(200, {"code": 0, "reason": "No such task", "result": {"total": 0, "data": []}})
        meter = self.field[task.meter]
        shown, data, state = task.number, task.data, task.state
        if struck("other-task") is not None:
            shown, data, state = task.number + 1000, "4711.11", "done"
        if struck("pending") is not None:
            state = "pending"
        if state == "done" and struck("unreadable") is not None:
            data = "--"
        if state == "done" and task.family == "control" and struck("wrong-relay") is not None:
            data = "Disconnected" if data == "Connected" else "Connected"
        found: dict[str, Any] = {
            "id": shown,
            "customerId": self.config.customer_id,
            "customerName": "Customer",
            "concentratorId": meter.config.concentrator,
            "meterId": task.meter if shown == task.number else "47000000000",
            "name": task.name,
            "data": data if state == "done" else None,
            "dataPrefix": task.prefix,
            "status": {"done": 1, "failed": 2, "refused": 3}.get(state, 0),
            "createDate": f"{task.created:%Y-%m-%d %H:%M:%S}",
            "updateDate": f"{task.updated:%Y-%m-%d %H:%M:%S}",
            "remark": None,
            "company": self.config.company,
        }
        if (forced := struck("status")) is not None:
            if forced == "absent":
                del found["status"]
            elif forced.isdigit():
                found["status"] = int(forced)
            else:
                found["status"] = {"null": None, "text": "1"}.get(forced, 2)
        if struck("no-value") is not None:
            del found["data"]
        return self._v2_rows([found])

    def _v2_data(self, task: Task, meter: CalinMeter) -> str:
        match task.command:
            case "READ_CREDIT":
                return f"{meter.credit}"
            case "READ_VOLTAGE":
                return f"{meter.voltage():.1f}"
            case "READ_POWER":
                return f"{meter.power() / 1000:.3f}"
            case "READ_CURRENT":
                return f"{meter.current()}"
            case "READ_POWER_LIMIT":
                return f"{meter.power_limit}"
            case "READ_VERSION":
                return meter.version
            case "READ_DATE" | "SET_DATE":
                return f"{meter.time:%Y-%m-%d %H:%M:%S}"
            case "TURN_ON" | "TURN_OFF":  # what was asked for, also when the relay is stuck
                return "Connected" if task.command == "TURN_ON" else "Disconnected"
            case "READ_RELAY":
                return "Connected" if meter.is_on else "Disconnected"
            case "READ_POWER_DOWNS" | "READ_SPECIAL_STATUS":
                return "0"
            case _:
                return task.given if task.family == "token" else ""

    def _v2_mint(self, command: str, row: Mapping[str, Any], struck: Struck) -> Answer:
        is_sale = command == "TOP_UP"
        if is_sale and row.get("authorizationPassword") != self.config.pos_password:
            return self._v2_refused("Authorization password error")
        if is_sale and (row.get("isPreview") is not False or row.get("isVendByTotalPaid") is not False):
            return self._v2_refused("Parameter error")  # Choice: previews and selling for money are not simulated
        value = row.get("amount" if is_sale else "maximumPower", 0)
        token = self._sell(str(row.get("meterId")), command, value, struck, str(row.get("serialNumber") or ""))
        if token is None:
            return self._v2_refused("Meter does not exist")
        return Answer(200, {"code": 0, "reason": "success", "result": {"token": token}})

    def _v2_daily(self, row: Mapping[str, Any]) -> Answer:
        meter = self.field.meters.get(str(row.get("meterId")))
        try:
            first, last = (datetime.fromisoformat(text).date() for text in row["updateDateRange"])
        except (KeyError, TypeError, ValueError):
            return self._v2_refused("Parameter error")
        rows = []
        for ahead in range(min((last - first).days + 1, 62) if meter is not None else 0):
            day = first + timedelta(days=ahead)
            assert meter is not None
            hours = meter.hours(day)
            if not any(hours):  # days with no consumption are left out
                continue
            found: dict[str, Any] = {"currentDate": f"{day:%Y-%m-%d}", "meterId": meter.serial, "totalT1": meter.energy}
            found |= {f"hourT1_{hour:02}": used for hour, used in enumerate(hours, start=1)}
            found |= {f"hourT2_{hour:02}": 0 for hour in range(1, 25)}
            names = ("Battery", "Magnetic", "Cover_Terminal", "Cover_Box", "Current_Direction", "Current_Unbalance")
            rows.append(
                found
                | {"remainT1": meter.credit, "totalT2": 0, "remainT2": 0, "demand": meter.power()}
                | {f"status_{name}": False for name in names}
                | {"status_Relay": not meter.is_on, "status_Cover_Upper": meter.tamper}  # Choice: set means open
            )
        return self._v2_rows(rows)

    def _v2_provision(self, call: str, row: Mapping[str, Any], request: Request) -> Answer:
        """Section 7. Choice: a confirmed change answers with a row that repeats what was changed."""
        serial = str(row.get("meterId"))
        concentrator = str(row.get("concentratorId", row.get("ConcentratorId")))
        entries = self.concentrators.get(concentrator)
        done = False
        match call:
            case "account/create":
                done = serial not in self.accounts and serial in self.field.meters
                self.accounts |= {serial} if done else set()
            case "account/delete":
                done = serial in self.accounts and not any(serial in f.values() for f in self.concentrators.values())
                self.accounts -= {serial} if done else set()
            case "concentratorfile/create":
                done = entries is not None and serial in self.accounts and serial not in entries.values()
                if done:
                    self._add_to_file(concentrator, serial)
            case "concentratorfile/read":
                numbers = [number for number, meter in (entries or {}).items() if meter == serial]
                return self._v2_rows([{"concentratorId": concentrator, "meterId": serial, "pn": n} for n in numbers])
            case "concentratorfile/delete":
                number = row.get("pn")
                done = entries is not None and isinstance(number, int) and entries.pop(number, None) is not None
            case "concentrator/updatestatusfile":
                done = entries is not None
            case "concentrator/create":
                done = entries is None and isinstance(row.get("name"), str)
                if done:
                    self.concentrators[concentrator] = {}
            case "concentrator/delete":
                done = entries == {}
                if done:
                    del self.concentrators[concentrator]
            case _:
                raise self._not_found(request)
        if not done:
            return Answer(200, {"code": 1, "reason": "Operation failed", "result": []})
        confirmed = {"meterId": serial, "concentratorId": concentrator}
        return Answer(200, {"code": 0, "reason": "success", "result": [confirmed]})


# --------------------------------------------------------------------------------------------------------- command line


def _task_number(text: str) -> int:
    """Raises ValueError."""
    if re.fullmatch(r"[1-9][0-9]{0,8}", text) is None:
        raise ValueError(text)
    return int(text)


async def _serve(version: int, options: SimOptions, announce: Announce) -> None:
    found = read_extra(
        options.extra,
        {
            "meters": count,
            "time_scale": seconds,
            "latency_s": seconds,
            "execute_s": seconds,
            "jwt_s": seconds,
            "first_task": _task_number,
            "control": yes,
        },
    )
    clock = SimClock(time_scale=found.pop("time_scale", 1.0))
    meters = demo_field(found.pop("meters", 4), clock=clock, seed=options.seed)
    config = replace(
        VendorConfig(version=version, port=options.port, faults=options.faults, seed=options.seed), **found
    )
    async with CalinVendorSimulator(meters, config) as sim:
        announce(
            {
                "sim": sim.name,
                "host": sim.host,
                "port": sim.port,
                "url": sim.url,
                "company": config.company,
                "customer_id": config.customer_id,
                "accounts": {
                    config.admin_user: config.admin_password,
                    config.pos_user: config.pos_password,
                    config.maintenance_user: config.maintenance_password,
                },
                "meters": list(meters.meters),
                "concentrators": list(sim.concentrators),
            }
        )
        await asyncio.get_running_loop().create_future()


async def serve_v1(options: SimOptions, announce: Announce) -> None:
    """Run version 1 until cancelled; see ``catalog.ServeFunction``.

    Known ``extra`` names: meters (a count), time_scale, latency_s, execute_s, jwt_s (numbers), first_task (a whole
    number), control (yes or no).
    """
    await _serve(1, options, announce)


async def serve_v2(options: SimOptions, announce: Announce) -> None:
    """Run version 2 until cancelled; settings as ``serve_v1``."""
    await _serve(2, options, announce)
