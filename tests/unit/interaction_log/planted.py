"""What must not be found in anything that leaves the house, in every encoding that could hold it."""

from __future__ import annotations

import base64
import html
import json
import re
import urllib.parse
import zipfile
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from pypdf import PdfReader

from app.interaction_log.reader import LogReader
from app.interaction_log.writer import LogWriter
from app.model.device import Device, NodeKind
from app.model.flow import Order
from app.model.interaction import Attempt, AttemptEnd, Direction, Failure, Frame, Step, StepEntry
from app.model.reading import DeviceState, Finding, LinkState, SampleSet, Severity
from app.model.records import Attachment, Change, Setting
from app.model.status import Delivery, Event, Status
from tests.unit.interaction_log.logs import START, VOLTAGE, line, message, queued


def encodings(word: str) -> dict[str, bytes]:
    """Name of an encoding -> the bytes that give ``word`` away."""
    found: dict[str, bytes] = {}
    for charset in ("utf-8", "utf-16-le", "utf-16-be"):
        raw = word.encode(charset)
        found[charset] = raw
        found[f"hex {charset}"] = raw.hex().encode()
        found[f"HEX {charset}"] = raw.hex().upper().encode()
        found[f"spaced hex {charset}"] = raw.hex(" ").encode()
        for shift in range(3):
            coded = base64.b64encode(b"\0" * shift + raw)
            inner = coded[(0, 2, 3)[shift] : (shift + len(raw)) * 8 // 6]
            found[f"base64 at {shift} {charset}"] = inner
            found[f"url base64 at {shift} {charset}"] = inner.translate(bytes.maketrans(b"+/", b"-_"))
    found["url"] = urllib.parse.quote(word, safe="").encode()
    found["url, small"] = re.sub("%[0-9A-F]{2}", lambda m: m[0].lower(), urllib.parse.quote(word, safe="")).encode()
    found["form"] = urllib.parse.quote_plus(word).encode()
    found["url, all"] = "".join(f"%{octet:02X}" for octet in word.encode()).encode()
    found["json"] = json.dumps(word)[1:-1].encode()
    found["json in json"] = json.dumps(json.dumps(word))[3:-3].encode()
    found["html"] = html.escape(word).encode()
    return found


def carriers(word: str) -> list[bytes]:
    """The word inside something, as frames carry it."""
    raw = word.encode()
    return [
        b"<" + raw + b">",
        *(base64.b64encode(before + raw + b" and more") for before in (b"", b":", b"u:", b"us:")),
        *(base64.urlsafe_b64encode(before + raw).rstrip(b"=") for before in (b"\xff:", b"\xff\xfe:", b"\xff\xfe\xfd:")),
        b"68 " + raw.hex(" ").encode() + b" 16",
        raw.hex().upper().encode(),
        b"GET /q?x=" + urllib.parse.quote(word, safe="").encode() + b" HTTP/1.1",
        b"GET /q?x=" + urllib.parse.quote_plus(word).encode() + b"&y=1 HTTP/1.1",
        json.dumps({"said": word, "again": json.dumps([word])}).encode(),
        word.encode("utf-16-le"),
        b"\0" + word.encode("utf-16-be"),
        base64.b64encode(b"x" + word.encode("utf-16-le")),
        base64.b64encode(json.dumps({"data": base64.b64encode(b"\1" + raw).decode()}).encode()),
    ]


def contents(file: Path) -> dict[str, bytes]:
    """Everything a file holds: its bytes, what a ZIP or PDF holds unpacked, and every cell of a workspace."""
    found = {file.name: file.read_bytes()}
    if found[file.name].startswith(b"%PDF"):
        pdf = PdfReader(file)
        found[f"{file.name} text"] = "\n".join(page.extract_text() for page in pdf.pages).encode()
        found |= {f"{file.name}/{name}": data for name, (data,) in pdf.attachments.items()}
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                found[f"{file.name}/{name}"] = name.encode() + b"\n" + archive.read(name)
    if found[file.name].startswith(b"SQLite format 3"):
        found[f"{file.name} cells"] = b"\n".join(_cells(file))
    return found


def _cells(file: Path) -> list[bytes]:
    cells: list[bytes] = []
    with LogReader(file) as reader:
        tables = [name for (name,) in reader.query("SELECT name FROM main.sqlite_master WHERE type = 'table'")]
        for table in tables:
            if table.startswith("log_text"):
                continue
            for row in reader.query(f'SELECT * FROM main."{table}"'):
                cells += [cell if isinstance(cell, bytes) else str(cell).encode() for cell in row]
        cells += [str(term).encode() for (term,) in reader.query("SELECT term FROM temp.log_terms")]
    return cells


def betrayals(file: Path, *words: str) -> list[str]:
    """Where a word is in a file, in which encoding; empty when it is nowhere."""
    return [
        f"{word!r} as {encoding} in {place}"
        for place, data in contents(file).items()
        for word in words
        for encoding, spelled in encodings(word).items()
        if len(spelled) >= 4 and spelled in data
    ]


# ---------------------------------------------------------------- a workspace full of such words

SECRETS: tuple[str, ...] = (
    "Pa55/wörd+geheim", "eyJhbGciOi.QmVhcmVy.c2ln", "0F1E2D3C4B5A69788796A5B4C3D2E1F0", "k3y-in-url-77",
    "line\nbreak\t9",
)  # fmt: skip
STS_TOKEN = "58491023847561029384"
SERIAL, CUSTOMER, HOST, ADDRESS = "00471100815", "K-1044/ä", "head.example.org", "192.168.7.13"
CARD, OWNER, SITE, MAIL = "02:42:AC:11:00:0B", "Väinölä's meter", "Nordhof", "someone@example.org"
ORIGINALS: tuple[str, ...] = (SERIAL, CUSTOMER, HOST, ADDRESS, CARD, OWNER, SITE, MAIL, STS_TOKEN)


def plant(path: Path, count: int = 12) -> None:
    """Write a workspace with each word in every place and encoding; ``<script>`` stands in some texts as well."""
    devices = [
        Device(id="nord-1", name=SITE, kind=NodeKind.SITE),
        Device(
            id="lem-7", name=OWNER, parent="nord-1", adapter="lem-dcbm", serial=SERIAL, model="<script>x</script>",
            settings={"host": HOST, "password": "keyring:lem-7.password", "customer": CUSTOMER},
            attributes={"mac": CARD, "contact_email": MAIL, "dev_eui": f"00000{SERIAL}"},
        ),
        Device(id="other-9", name="Another place", parent="nord-1", adapter="dlms", serial="77001234"),
    ]  # fmt: skip
    with LogWriter(path) as writer:
        writer.put(*devices)
        facts = {"iccid": SERIAL}
        writer.put(DeviceState(device="lem-7", link=LinkState.ONLINE, link_text=f"at {ADDRESS}", facts=facts))
        writer.put(Setting(key="team:address", value=f"postgresql://u:{SECRETS[0]}@{HOST}/db"))
        times: dict[str, Any] = {"created": START, "updated": START}
        writer.put(Order(id=1, reference=CUSTOMER, device="lem-7", kwh=Decimal(1), customer=MAIL, **times))
        polled = f"@{CARD} {ADDRESS}".encode()
        for number in range(1, count + 1):
            writer.put(*_life(number))
        writer.put(
            Frame(at=START, device="lem-7", link=f"http {HOST}:80", direction=Direction.IN, data=polled),
            Finding(at=START, device="lem-7", severity=Severity.INFO, code="HELLO", text=f"{SERIAL} at {HOST}"),
            SampleSet(device="lem-7", received=START, values=((VOLTAGE, Decimal(230)),)),
            SampleSet(device="lem-7", received=START + timedelta(hours=1), values=((VOLTAGE, Decimal(231)),)),
        )
        for word in (*SECRETS, *ORIGINALS):
            for data in carriers(word):
                writer.put(Attachment.of(f"{word}.txt", "text/plain", START, data))
        writer.flush(text=True)


def _life(number: int) -> list[Change]:
    words = (*SECRETS, *ORIGINALS)
    word = words[number % len(words)]
    note = f"for {word} </pre><script>alert('{number}')</script>"
    item = queued(
        number, device="lem-7", adapter="lem-dcbm", command="READ_STATUS", order=CUSTOMER, token=STS_TOKEN,
        params={"customer_id": CUSTOMER, "note": note, "latitude": 47.123},
    )  # fmt: skip
    done = item.after(Event.SEND, item.created, attempts=1).after(
        Event.FAIL, item.created,
        failure=Failure(code="REFUSED", text=f"Meter {SERIAL} at {HOST} ({ADDRESS}) said {word}.", at=item.created),
        result={"serial": SERIAL, word: [word, {"raw": word.encode().hex()}], "api_key": SECRETS[3]},
    )  # fmt: skip
    job = message(number, item, lane=f"lane {ADDRESS}", ref=f"ref {SERIAL}", attempt=1, state=Delivery.DELIVERY_FAILED)
    attempt = Attempt(
        interaction=number, message=number, number=1, started=item.created, end=AttemptEnd.FAILED, ended=item.created,
        text=f"refused by {OWNER}", ref=word,
    )  # fmt: skip
    finding = Finding(
        at=item.created, device="lem-7", severity=Severity.BAD, code="OWNER", text=f"{OWNER} in {SITE}",
        interaction=number,
    )  # fmt: skip
    steps = [
        line(
            item, Event.ADMIT,
            inputs={"v": 1, "no": f"{MAIL} said {word}.", "said": word, "grid": {"id": SITE, "gw": [[OWNER, 1, -5]]}},
        ),
        line(done, Event.SEND, changed=False),
        StepEntry(interaction=number, at=item.created, step=Step.UPDATED, event=Event.SEND, status=Status.PROCESSING),
        line(done, Event.FAIL, text=f"{MAIL} knows {word}", actor=MAIL),
    ]
    datas = [
        *carriers(word),
        f"GET /x?api_key={SECRETS[3]}&meterId={SERIAL} HTTP/1.1\r\nHost: {HOST}\r\n"
        f"Authorization: Bearer {SECRETS[1]}\r\n\r\n".encode(),
        b"\x68" + bytes.fromhex("0" + SERIAL)[::-1] + b"\x68" + bytes.fromhex(SECRETS[2]),
    ]
    frames = [
        Frame(
            at=item.created, device="lem-7", link=f"http {HOST}:80", direction=Direction.OUT if n % 2 else Direction.IN,
            data=data, interaction=number, attempt=1, note=f"from {ADDRESS}",
        )
        for n, data in enumerate(datas)
    ]  # fmt: skip
    return [done, *steps, job, attempt, finding, *frames]
