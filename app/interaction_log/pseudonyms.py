"""Pseudonyms in place of what tells meters, customers and places: the same word gets the same pseudonym everywhere.

A ``Redaction`` first learns what stands in the records to be shared (``learn``): by the field it stands in, by the name
of a JSON member, and by its form. Then it replaces what it learnt, whatever encoding it is in: text, UTF-16, hex,
packed decimal digits, base64, URL and JSON escapes. Secrets become ``[redacted]``, whichever kinds are chosen.

What is kept: serials, references, tokens and keys keep their length and separators; digits stay digits, capitals
capitals, and a hex text stays hex. Private IPv4 addresses stay in their network's range, others become ones of
240.0.0.0/4, which nobody has. Check digits and checksums of frames are not computed again, and a length told inside a
frame stays what it was. A name, a place and what has fewer than ``SHORTEST_INSIDE`` characters is replaced only where
it stands as a whole word, what has fewer than ``SHORTEST`` only where it is the whole value.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import ipaddress
import json
import math
import re
import secrets as random_source
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, TypeVar

import numpy as np

from app.errors import StoreError
from app.interaction_log.redaction import MARK, Redactor
from app.model.device import Device, NodeKind
from app.model.flow import FlowStepRun
from app.model.interaction import Origin, StepEntry

T = TypeVar("T")

SHORTEST: Final = 4  # bytes of what is looked for inside longer texts
SHORTEST_INSIDE: Final = 6  # characters of what is replaced inside longer words too
SHORTEST_PACKED: Final = 8  # digits of what is looked for as packed decimal or as the bytes of its hex
SHORTEST_LEARNT: Final = 3
LONGEST: Final = 200  # characters of a value that is learnt as a whole
MAX_TERMS: Final = 20_000  # different originals of one export
KEY_BYTES: Final = 32
DRAWS: Final = 16  # keys tried until no pseudonym is another one's original
DEPTH: Final = 4  # base64 inside base64
CACHED: Final = 16_384  # short texts whose replacement is remembered
CACHED_LENGTH: Final = 256
ROUNDS: Final = 8
HIDDEN: Final = MARK.decode("ascii")


class Kind(StrEnum):
    """What can be replaced; where a word is of several kinds the first one counts."""

    KEYS = "keys"
    TOKENS = "tokens"
    SERIALS = "serials"
    CUSTOMERS = "customers"
    ADDRESSES = "addresses"
    NAMES = "names"
    PLACES = "places"


TITLES: Final[Mapping[Kind, str]] = {
    Kind.KEYS: "keys",
    Kind.TOKENS: "tokens of 20 digits",
    Kind.SERIALS: "serial numbers of meters, modules and SIM cards",
    Kind.CUSTOMERS: "customer and order references",
    Kind.ADDRESSES: "addresses of hosts and network cards",
    Kind.NAMES: "names of devices and people",
    Kind.PLACES: "names of sites and grids, and other places",
}
ALL_KINDS: Final = frozenset(Kind)
_RANK: Final = {kind: rank for rank, kind in enumerate(Kind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """One original, what stands in its place, and how often it was replaced."""

    kind: Kind
    original: str
    pseudonym: str
    count: int


# ---------------------------------------------------------------- what a member's name says of its value

_MEMBERS: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.KEYS: frozenset({"kek", "guek", "gak", "ekey", "akey", "masterkey"}),
    Kind.TOKENS: frozenset({"token", "ststoken"}),
    Kind.SERIALS: frozenset(
        {
            "serial", "serialnumber", "serialno", "meterserial", "meterid", "meterno", "meternumber", "metersn", "sn",
            "deveui", "eui", "iccid", "ccid", "imei", "imsi", "msisdn", "sim", "simnumber", "systemtitle",
            "logicaldevicename", "deviceid", "devicenumber", "gatewayid", "gatewayserial", "concentrator",
            "concentratorid", "chargepointid", "evseid",
        }
    ),
    Kind.CUSTOMERS: frozenset(
        {
            "customer", "customerid", "customerref", "customerreference", "customernumber", "order", "orderid",
            "orderref", "reference", "account", "accountid", "accountnumber", "contract", "contractid", "tenantid",
        }
    ),
    Kind.ADDRESSES: frozenset(
        {"ip", "ipaddress", "mac", "macaddress", "server", "broker", "endpoint", "url", "uri", "host", "hostname"}
    ),
    Kind.NAMES: frozenset(
        {
            "person", "operator", "owner", "contact", "contactname", "technician", "installer", "username", "user",
            "login", "email", "phone", "fullname", "firstname", "lastname", "customername", "company", "companyname",
            "actor", "engineer",
        }
    ),
    Kind.PLACES: frozenset(
        {
            "place", "location", "city", "town", "village", "street", "zip", "postcode", "region", "latitude",
            "longitude", "lat", "lon", "lng", "gps", "coordinates", "geo",
        }
    ),
}  # fmt: skip
_BY_MEMBER: Final = {name: kind for kind, names in _MEMBERS.items() for name in names}
# Words that stand in such places and tell nobody anything.
_GENERIC: Final = frozenset(
    {
        "", "none", "null", "true", "false", "unknown", "default", "user", "app", "admin", "demo", "tour", "site",
        "grid", "gateway", "meter", "device", "import", "replay", "gatekeeper", "triage", "reconciler", "localhost",
        "engine", "person", "customer", "operator", "public", "http", "https",
        *(origin.value.lower() for origin in Origin),
    }
)  # fmt: skip
_BATCH_ACTOR: Final = re.compile(r"(?:batch|flow) \d+")
_PLAIN: Final = frozenset(
    {
        "int", "bool", "float", "datetime", "Decimal", "Status", "CommandKind", "Origin", "Step", "Delivery",
        "AttemptEnd", "Direction", "Severity", "LinkState", "NodeKind", "FlowStatus", "DeliveryStatus", "RunStatus",
        "StepStatus",
    }
)  # fmt: skip
_FIXED: Final = frozenset({"command", "adapter", "event", "code", "unit", "obis"})


@lru_cache(maxsize=4096)
def kind_of_member(name: str) -> Kind | None:
    """What the value under this name of a JSON object, setting or parameter is; None: nothing to hide."""
    plain = re.sub("[^a-z0-9]", "", name.lower())
    known = _BY_MEMBER.get(plain)
    if known is not None:
        return known
    if plain.endswith(("url", "host", "hostname", "ipaddress", "macaddress")):
        return Kind.ADDRESSES
    if plain.endswith("key") and "public" not in plain and len(plain) > 3:
        return Kind.KEYS
    return None


@lru_cache(maxsize=4096)
def names_a_secret(name: str) -> bool:
    """Whether a value under this name is hidden without being known: the list of such names is the redactor's."""
    return HIDDEN in Redactor().redact_text(json.dumps({name: "a word"}))


@lru_cache(maxsize=64)
def _telling(noun: type[Any]) -> tuple[tuple[str, Kind | None], ...]:
    """The fields of a noun that may tell something, and what they are; words of the program, numbers and times not."""
    return tuple(
        (one.name, kind_of_member(one.name))
        for one in fields(noun)
        if one.name not in _FIXED and str(one.type).removesuffix(" | None") not in _PLAIN
    )


# ---------------------------------------------------------------- what can be told by its form

_IPV4: Final = re.compile(rb"(?<![\d.])(?<!\d:)(?:\d{1,3}\.){3}\d{1,3}(?![\d]|\.\d)")
_IPV6: Final = re.compile(rb"(?<![0-9A-Za-z:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![0-9A-Za-z:.])")
_MAC: Final = re.compile(
    rb"(?<![0-9A-Fa-f:-])[0-9A-Fa-f]{2}(?P<dash>[:-])(?:[0-9A-Fa-f]{2}(?P=dash)){4}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:-])"
)
_HOST: Final = re.compile(
    rb"(?:://(?:[^\s/@\"']{0,256}@)?|\n[Hh]ost:[ \t]{0,8})(?P<host>[A-Za-z0-9][A-Za-z0-9.-]{2,253})"
)
_EMAIL: Final = re.compile(
    rb"(?<![A-Za-z0-9._%+/-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}"
)
_TOKEN: Final = re.compile(rb"(?<!\d)(?:\d{20}|\d{4}(?:[ -]\d{4}){4})(?!\d)")
_KEY: Final = re.compile(rb"(?<![0-9A-Za-z])[0-9A-Fa-f]{32}(?![0-9A-Za-z])")
_MEMBER: Final = re.compile(
    rb"\"(?P<name>[A-Za-z][A-Za-z0-9_-]{1,40})\\{0,3}\"\s{0,8}:\s{0,8}"
    rb"(?:\\{0,3}\"(?P<text>[^\"\\]{1,200})\\{0,3}\"|(?P<number>-?\d[\d.]{0,30}))"
)
_PARAMETER: Final = re.compile(
    rb"(?<![A-Za-z0-9_-])(?P<name>[A-Za-z][A-Za-z0-9_-]{1,40})=(?P<text>[^&\s;\"'<>]{1,200})"
)
_BASE64: Final = re.compile(rb"[A-Za-z0-9]*(?:[+/][A-Za-z0-9+/]*|[_-][A-Za-z0-9_-]*)?={0,2}")  # of one alphabet
_HEX: Final = re.compile("[0-9A-Fa-f]+")
_CODED: Final = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")
_UNPRINTABLE: Final = bytes({*range(9), *range(14, 32), *range(0x7F, 0x100)})


def _is_inner(byte: int) -> bool:
    return 0x30 <= byte <= 0x39 or 0x41 <= byte <= 0x5A or 0x61 <= byte <= 0x7A or byte >= 0x80


@dataclass(frozen=True, slots=True)
class _Spelling:
    """How one original may stand in bytes: what takes its place there, and what that has to do with the word."""

    kind: Kind | None  # None: a secret
    original: str
    pseudonym: bytes
    is_word: bool = False  # only between characters that are no letters and digits
    shift: int = -1  # of base64: octets of the group before the word


@dataclass(frozen=True, slots=True)
class _Run:
    """A base64 text taken apart."""

    octets: bytes
    is_url: bool
    has_padding: bool

    def coded(self, octets: bytes) -> bytes:
        """Other octets, written the same way."""
        text = base64.urlsafe_b64encode(octets) if self.is_url else base64.b64encode(octets)
        return text if self.has_padding else text.rstrip(b"=")


def _base64_run(data: bytes, start: int, floor: int, shift: int) -> tuple[_Run, int, int] | None:
    """The base64 text from the group on in which a word begins, with its start and end.

    None where it cannot be taken apart: its beginning is not there.
    """
    begin = start - (0, 2, 3)[shift]
    found = _BASE64.match(data, begin) if begin >= floor else None
    if found is None or found.end() <= start:
        return None
    letters = found[0].rstrip(b"=")
    has_padding = len(found[0]) % 4 == 0
    end = found.end()
    if len(letters) % 4 == 1:
        letters, end, has_padding = letters[:-1], begin + len(letters) - 1, False
    is_url = b"-" in letters or b"_" in letters
    padded = letters + b"=" * (-len(letters) % 4)
    octets = base64.urlsafe_b64decode(padded) if is_url else base64.b64decode(padded)
    return _Run(octets, is_url, has_padding), begin, end


def _coded_texts(data: bytes) -> Iterator[tuple[int, int, bytes, Callable[[bytes], bytes]]]:
    """Longer texts that stand there in base64 or hex: start, end, the text, and how to write another one so."""
    for found in _CODED.finditer(data):
        run, text = found[0], b""
        write: Callable[[bytes], bytes]
        if len(run) % 2 == 0 and _HEX.fullmatch(run.decode()):
            text, write = bytes.fromhex(run.decode()), _as_hex
        elif len(run.rstrip(b"=")) % 4 != 1:
            whole = _base64_run(data, found.start(), found.start(), 0)
            if whole is not None and whole[2] == found.end():
                text, write = whole[0].octets, whole[0].coded
        if text and _is_printable(text):
            yield found.start(), found.end(), text, write


def _is_printable(data: bytes) -> bool:
    """Whether it is a text, but for a few octets."""
    return len(data.translate(None, _UNPRINTABLE)) >= 0.9 * len(data)


def _as_hex(data: bytes) -> bytes:
    return data.hex().encode()


class _Finder:
    """All spellings, found in one look over the bytes."""

    def __init__(self, spellings: Mapping[bytes, _Spelling]) -> None:
        self.spellings = spellings
        lengths: dict[bytes, set[int]] = {}
        for spelling in spellings:
            lengths.setdefault(spelling[:SHORTEST], set()).add(len(spelling))
        self._lengths = {start: tuple(sorted(found, reverse=True)) for start, found in lengths.items()}
        bits = min(24, max(12, len(lengths).bit_length() + 5))
        self._shift = np.uint32(32 - bits)
        self._begins = np.zeros(1 << bits, dtype=np.bool_)
        for start in self._lengths:
            self._begins[self._hashed(np.frombuffer(start, dtype="<u4"))] = True

    def _hashed(self, words: Any) -> Any:
        return (words * np.uint32(2654435761)) >> self._shift

    def find(self, data: bytes) -> Iterator[tuple[int, int, _Spelling]]:
        """Start, end and spelling, the longest first where several begin, in ascending order; they may overlap."""
        if len(data) < SHORTEST or not self._lengths:
            return
        octets = np.frombuffer(data, dtype=np.uint8).astype(np.uint32)
        words = octets[:-3] | octets[1:-2] << np.uint32(8) | octets[2:-1] << np.uint32(16) | octets[3:] << np.uint32(24)
        for start in np.flatnonzero(self._begins[self._hashed(words)]).tolist():
            for length in self._lengths.get(data[start : start + SHORTEST], ()):
                found = self.spellings.get(data[start : start + length])
                if found is not None:
                    yield start, start + length, found


class Redaction:
    """What is replaced in one export, and by what. For one thread at a time.

    Args:
        kinds: what gets pseudonyms; secrets are hidden in any case.
        secrets: known ones, hidden in every encoding. What stands in the place of a secret is hidden as well.
        key: makes the pseudonyms; a random one unless given, so that two exports cannot be laid side by side.

    Attributes:
        counts: how often each (kind, original) was replaced so far.
    """

    def __init__(
        self, kinds: Iterable[Kind] = ALL_KINDS, *, secrets: Iterable[str] = (), key: bytes | None = None
    ) -> None:
        self.kinds = frozenset(kinds)
        self.counts: Counter[tuple[Kind, str]] = Counter()
        self._key = random_source.token_bytes(KEY_BYTES) if key is None else key
        self._is_key_fixed = key is not None
        self._redactor = Redactor()
        self._secrets: set[str] = set()
        self._terms: dict[str, Kind] = {}
        self._pseudonyms: dict[str, str] = {}
        self._seen: set[tuple[Kind | None, str]] = set()
        self._finder: _Finder | None = None
        self._cache: dict[str, tuple[str, tuple[tuple[Kind, str], ...]]] = {}
        self.hide(*secrets)

    def __repr__(self) -> str:
        return f"Redaction({', '.join(sorted(self.kinds))}; {len(self._terms)} originals)"

    def hide(self, *secrets: str) -> None:
        """More secrets."""
        for secret in secrets:
            if len(secret) >= SHORTEST and secret not in self._secrets:
                self._secrets.add(secret)
                self._redactor.add(secret)
                self._finder = None

    # ---------------------------------------------------------------- learning

    def learn(self, record: Any) -> None:
        """Look at a record (a noun, mapping, text or bytes) that is going to be shared.

        Raises:
            StoreError: more than ``MAX_TERMS`` different originals.
        """
        if self.kinds:
            self._learn(record, None)

    def add(self, kind: Kind, original: str) -> None:
        """One more original, wherever it stands; nothing happens when the kind is not chosen."""
        if kind not in self.kinds:
            return
        word = original.strip()
        known = self._terms.get(word)
        if known is not None and _RANK[known] <= _RANK[kind]:
            return
        if word.casefold() in _GENERIC or word.startswith(("keyring:", HIDDEN)) or not any(map(str.isalnum, word)):
            return
        if _BATCH_ACTOR.fullmatch(word) or HIDDEN in self._redactor.redact_text(word):
            return
        if known is None and len(self._terms) >= MAX_TERMS:
            raise StoreError(
                f"There are more than {MAX_TERMS} different words to replace. Share a smaller part (a filter), or "
                "choose fewer kinds."
            )
        self._terms[word] = kind
        self._finder = None

    def _learn(self, record: Any, kind: Kind | None) -> None:
        of = type(record)
        if of is str:
            self._learn_text(record, kind)
        elif of is bytes:
            self._learn_forms(self._redactor.redact(record))
        elif of is int or of is float:
            if kind is not None:
                self._learn_value(kind, str(record))
        elif of is list or of is tuple:
            for value in record:
                self._learn(value, kind)
        elif isinstance(record, Mapping):
            for name, value in record.items():
                self._learn_text(str(name), None)
                self._learn(value, kind_of_member(str(name)))
        elif is_dataclass(of):
            if of is Device:
                self._learn_device(record)
            elif of is StepEntry and record.inputs is not None:
                self._learn_inputs(record.inputs)
            elif of is FlowStepRun:
                self.add(Kind.NAMES, record.by)
            for name, told in _telling(of):
                value = getattr(record, name)
                if name == "device" and value not in self._terms:
                    self.add(Kind.NAMES, value)  # one that the tree does not know any more
                elif value:
                    self._learn(value, told)

    def _learn_device(self, device: Device) -> None:
        kind = Kind.PLACES if device.kind in (NodeKind.SITE, NodeKind.GRID) else Kind.NAMES
        self.add(kind, device.id)
        self.add(kind, device.name)
        if device.serial:
            self.add(Kind.SERIALS, device.serial)

    def _learn_inputs(self, inputs: Mapping[str, Any]) -> None:
        """The grid and the gateways that a verdict looked at; the tree may not know them any more."""
        grid = inputs.get("grid")
        told = grid if isinstance(grid, Mapping) else {}
        gateways = told.get("gw")
        named = [one[0] for one in gateways if isinstance(one, list) and one] if isinstance(gateways, list) else []
        for kind, name in (
            (Kind.PLACES, told.get("id")),
            (Kind.NAMES, inputs.get("gateway")),
            *((Kind.NAMES, one) for one in named),
        ):
            if isinstance(name, str) and name not in self._terms:
                self.add(kind, name)

    def _learn_text(self, text: str, kind: Kind | None) -> None:
        if (kind, text) in self._seen:
            return
        if len(text) <= CACHED_LENGTH:
            if len(self._seen) >= CACHED:
                self._seen.clear()
            self._seen.add((kind, text))
        if kind is not None:
            self._learn_value(kind, text)
        if len(text) >= SHORTEST_LEARNT:
            self._learn_forms(self._redactor.redact(text.encode("utf-8", "replace")))

    def _learn_value(self, kind: Kind, value: str) -> None:
        value = value.strip()
        if not SHORTEST_LEARNT <= len(value) <= LONGEST:
            return
        if kind is Kind.ADDRESSES:
            self._learn_address(value)
        elif kind in (Kind.KEYS, Kind.SERIALS) and not any(map(str.isdigit, value)):
            return  # a word in such a place: "ready", "default"
        elif kind is Kind.KEYS:
            if len(value) >= SHORTEST_PACKED:
                self.add(kind, value)
        elif kind is not Kind.TOKENS or _TOKEN.fullmatch(value.encode("utf-8", "replace")):
            self.add(kind, value)

    def _learn_address(self, value: str) -> None:
        if "://" in value:
            self._learn_forms(value.encode("utf-8", "replace"))
            return
        host = value.partition("/")[0]
        if re.fullmatch(r"[^:]+:\d{1,5}", host):
            host = host.rpartition(":")[0]
        if not _is_common_address(host):
            self.add(Kind.ADDRESSES, host)

    def _learn_forms(self, data: bytes, depth: int = 0) -> None:
        """What tells itself by its form, in redacted bytes."""
        if depth < DEPTH:
            for _start, _end, inside, _write in _coded_texts(data):
                self._learn_forms(inside, depth + 1)
        kinds = self.kinds
        if Kind.ADDRESSES in kinds:
            for form in (_IPV4, _IPV6):
                for found in form.finditer(data):
                    if _is_ip(found[0].decode()) and not _is_common_address(found[0].decode()):
                        self.add(Kind.ADDRESSES, found[0].decode())
            for found in _MAC.finditer(data):
                self.add(Kind.ADDRESSES, found[0].decode())
            for found in _HOST.finditer(data):
                host = found["host"].decode().rstrip(".-")
                if not _is_common_address(host):
                    self.add(Kind.ADDRESSES, host)
        if Kind.NAMES in kinds and b"@" in data:
            for found in _EMAIL.finditer(data):
                self.add(Kind.NAMES, found[0].decode())
        if Kind.TOKENS in kinds:
            for found in _TOKEN.finditer(data):
                self.add(Kind.TOKENS, found[0].decode())
        if Kind.KEYS in kinds:
            for found in _KEY.finditer(data):
                if not _is_printable(bytes.fromhex(found[0].decode())):  # else it is a text in hex
                    self.add(Kind.KEYS, found[0].decode())
        if b'"' in data:
            for found in _MEMBER.finditer(data):
                kind = kind_of_member(found["name"].decode())
                if kind is not None:
                    self._learn_value(kind, (found["text"] or found["number"]).decode("utf-8", "replace"))
        if b"=" in data:
            for found in _PARAMETER.finditer(data):
                kind = kind_of_member(found["name"].decode())
                if kind is not None:
                    self._learn_value(kind, urllib.parse.unquote_plus(found["text"].decode("utf-8", "replace")))

    # ---------------------------------------------------------------- replacing

    def text(self, text: str) -> str:
        """Text without secrets, pseudonyms in place of what was learnt."""
        if not text:
            return text
        if self._finder is None:
            self._prepare()
        known = self._cache.get(text)
        if known is not None:
            self.counts.update(known[1])
            return known[0]
        met: list[tuple[Kind, str]] = []
        whole = self._pseudonyms.get(text)
        if whole is not None:
            met.append((self._terms[text], text))
            shown = whole
        else:
            data = text.encode("utf-8", "surrogatepass")
            clean = self._redactor.redact(self._replaced(data, met, 0))
            shown = text if clean == data else clean.decode("utf-8", "replace")
        self.counts.update(met)
        if len(text) <= CACHED_LENGTH:
            if len(self._cache) >= CACHED:
                self._cache.clear()
            self._cache[text] = (shown, tuple(met))
        return shown

    def data(self, data: bytes) -> bytes:
        """Bytes without secrets, pseudonyms in place of what was learnt."""
        if self._finder is None:
            self._prepare()
        met: list[tuple[Kind, str]] = []
        clean = self._redactor.redact(self._replaced(data, met, 0))
        self.counts.update(met)
        return clean

    def value(self, value: Any) -> Any:
        """A JSON value; texts, numbers and the names of members are looked at."""
        of = type(value)
        if of is str:
            return self.text(value)
        if of is bytes:
            return self.data(value)
        if of is int or of is float:
            return self._number(value) if len(str(value)) >= SHORTEST_INSIDE else value
        if of is list or of is tuple:
            return of(map(self.value, value))
        if isinstance(value, Mapping):
            return {self.text(str(name)): self._member(str(name), item) for name, item in value.items()}
        return self.record(value) if is_dataclass(of) else value

    def record(self, noun: T) -> T:
        """A noun with all its texts, values and bytes replaced; words of the program (commands, codes) stay."""
        changed: dict[str, Any] = {}
        of: Any = type(noun)
        for name, _kind in _telling(of):
            old = getattr(noun, name)
            if old:
                new = self.value(old)
                if new is not old and new != old:
                    changed[name] = new
        return replace(noun, **changed) if changed else noun  # type: ignore[type-var]

    def found(self) -> list[Replacement]:
        """What was replaced so far, by kind and original."""
        return [
            Replacement(kind=kind, original=original, pseudonym=self._pseudonyms[original], count=count)
            for (kind, original), count in sorted(self.counts.items(), key=lambda item: (_RANK[item[0][0]], item[0][1]))
        ]

    def _member(self, name: str, value: Any) -> Any:
        if isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != "":
            if names_a_secret(name):
                return HIDDEN
            if not isinstance(value, str) and kind_of_member(name) is not None:
                return self._number(value)
        return self.value(value)

    def _number(self, value: float) -> Any:
        if self._finder is None:
            self._prepare()
        text = str(value)
        pseudonym = self._pseudonyms.get(text)
        if pseudonym is None:
            return value
        self.counts[self._terms[text], text] += 1
        is_whole = isinstance(value, int) and pseudonym.isdecimal() and str(int(pseudonym)) == pseudonym
        return int(pseudonym) if is_whole else pseudonym

    def _replaced(self, data: bytes, met: list[tuple[Kind, str]], depth: int) -> bytes:
        assert self._finder is not None
        parts: list[bytes] = []
        done = 0
        for start, end, spelling in self._finder.find(data):
            if start < done:
                continue
            if spelling.is_word and (
                (start and _is_inner(data[start - 1])) or (end < len(data) and _is_inner(data[end]))
            ):
                continue
            shown = spelling.pseudonym
            run = None if spelling.shift < 0 else _base64_run(data, start, done, spelling.shift)
            if run is not None and depth < DEPTH:
                inside, start, end = run
                clean = self._replaced(inside.octets, met, depth + 1)
                if clean == inside.octets:
                    continue
                shown = inside.coded(clean)
            elif spelling.kind is not None:
                met.append((spelling.kind, spelling.original))
            parts += (data[done:start], shown)
            done = end
        if parts:
            parts.append(data[done:])
            data = b"".join(parts)
        return self._replaced_inside(data, met, depth) if depth < DEPTH else data

    def _replaced_inside(self, data: bytes, met: list[tuple[Kind, str]], depth: int) -> bytes:
        """The same in texts that are coded as a whole, whose words may be coded once more."""
        parts: list[bytes] = []
        done = 0
        for start, end, inside, write in _coded_texts(data):
            clean = self._redactor.redact(self._replaced(inside, met, depth + 1))
            if clean != inside:
                parts += (data[done:start], write(clean))
                done = end
        return b"".join((*parts, data[done:])) if parts else data

    # ---------------------------------------------------------------- pseudonyms

    def pseudonym(self, kind: Kind, original: str) -> str:
        """What stands in place of a word; the same for the same word and key."""
        match kind:
            case Kind.NAMES if "@" in original:
                return f"{self._tag('name', original)}@example.invalid"
            case Kind.NAMES:
                return self._tag("name", original)
            case Kind.PLACES:
                return self._tag("place", original)
            case Kind.ADDRESSES if not _MAC.fullmatch(original.encode("utf-8", "replace")):
                return self._address(original)
            case _ if original.isascii():
                return self._shaped(original)
            case _:
                return self._tag(kind.value.rstrip("s"), original)

    def _digest(self, purpose: str, data: bytes) -> bytes:
        return hashlib.blake2b(data, key=self._key, person=purpose.encode()[:16], digest_size=32).digest()

    def _tag(self, word: str, original: str) -> str:
        digest = self._digest("tag", original.encode("utf-8", "replace"))
        return f"{word}-{base64.b32encode(digest[:5]).decode().lower()}"

    def _address(self, original: str) -> str:
        try:
            ip = ipaddress.ip_address(original)
        except ValueError:
            return f"{self._tag('host', original.lower())}.invalid"
        if isinstance(ip, ipaddress.IPv6Address):
            digest = self._digest("ip", ip.packed)
            return str(ipaddress.IPv6Address(b"\xfd" + digest[:15]))
        number = int(ip)
        for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"):
            inside = ipaddress.IPv4Network(network)
            if ip in inside:
                first = int(inside.network_address)
                return str(ipaddress.IPv4Address(first + self._permuted(number - first, inside.num_addresses, network)))
        return str(ipaddress.IPv4Address(0xF0000000 + self._permuted(number, 1 << 32, "ip") % 0x0FFFFFFF))

    def _shaped(self, original: str) -> str:
        """Digits for digits, capitals for capitals; two originals of one shape never get the same pseudonym."""
        is_hex = len(original) >= SHORTEST_PACKED and bool(_HEX.fullmatch(re.sub("[:-]", "", original)))
        letters = 6 if is_hex else 26
        sizes = [10 if c.isdigit() else letters if c.isalpha() else 1 for c in original]
        number = 0
        for c, size in zip(original, sizes, strict=True):
            number = number * size + (0 if size == 1 else int(c) if c.isdigit() else ord(c.lower()) - 97)
        shape = "".join("0" if c.isdigit() else "A" if c.isupper() else "a" if c.isalpha() else c for c in original)
        number = self._permuted(number, math.prod(sizes), shape)
        shown: list[str] = []
        for c, size in zip(reversed(original), reversed(sizes), strict=True):
            number, digit = divmod(number, size)
            letter = chr(97 + digit)
            shown.append(c if size == 1 else str(digit) if c.isdigit() else letter.upper() if c.isupper() else letter)
        return "".join(reversed(shown))

    def _permuted(self, number: int, size: int, purpose: str) -> int:
        """A keyed permutation of 0..size-1: a Feistel network, walked until it is back inside."""
        if size < 2:
            return number
        half = ((size - 1).bit_length() + 1) // 2
        mask = (1 << half) - 1
        octets = (half + 7) // 8
        tweak = hashlib.blake2b(purpose.encode(), digest_size=8).digest()
        while True:
            left, right = number >> half, number & mask
            for turn in range(ROUNDS):
                digest = self._digest("turn", tweak + bytes((turn,)) + right.to_bytes(octets, "big"))
                while len(digest) < octets:
                    digest += self._digest("more", digest)
                left, right = right, left ^ (int.from_bytes(digest[:octets], "big") & mask)
            number = left << half | right
            if number < size:
                return number

    # ---------------------------------------------------------------- spellings

    def _prepare(self) -> None:
        """Pseudonyms and spellings of all that was learnt."""
        self._cache.clear()
        terms = self._without_padded()
        self._pseudonyms = {word: self.pseudonym(kind, word) for word, kind in terms.items()}
        for _draw in range(0 if self._is_key_fixed else DRAWS):
            if self._pseudonyms.keys().isdisjoint(self._pseudonyms.values()):
                break
            self._key = random_source.token_bytes(KEY_BYTES)
            self._pseudonyms = {word: self.pseudonym(kind, word) for word, kind in terms.items()}
        self._is_key_fixed = self._is_key_fixed or bool(terms)  # what was shown once stays
        spellings: dict[bytes, _Spelling] = {}
        for secret in sorted(self._secrets, key=len, reverse=True):
            for spelling, found in _spelled(None, secret, HIDDEN):
                spellings.setdefault(spelling, found)
        for word in sorted(self._pseudonyms, key=len, reverse=True):
            for spelling, found in _spelled(terms[word], word, self._pseudonyms[word]):
                spellings.setdefault(spelling, found)
        self._finder = _Finder(spellings)

    def _without_padded(self) -> dict[str, Kind]:
        """A serial that is another one with zeros around it (a DevEUI) is replaced through that one."""
        serials = {word for word, kind in self._terms.items() if kind is Kind.SERIALS}
        return {
            word: kind
            for word, kind in self._terms.items()
            if kind is not Kind.SERIALS
            or not any(
                word[zeros:] in serials and len(word) - zeros >= SHORTEST_PACKED
                for zeros in range(1, len(word) - len(word.lstrip("0")) + 1)
            )
        }


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_common_address(host: str) -> bool:
    """Addresses that are the same everywhere tell nothing."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() in _GENERIC or not any(map(str.isalpha, host)) or host.lower().endswith(".localhost")
    is_no_host = ip.version == 4 and ip.packed[0] in (0, 255)  # a version, a mask
    return ip.is_loopback or ip.is_unspecified or ip.is_multicast or is_no_host


def _spelled(kind: Kind | None, original: str, pseudonym: str) -> Iterator[tuple[bytes, _Spelling]]:
    """Every spelling of at least ``SHORTEST`` bytes with what takes its place."""
    is_word = kind in (Kind.NAMES, Kind.PLACES) or len(original) < SHORTEST_INSIDE
    is_secret = kind is None

    def one(spelling: bytes, shown: bytes, *, word: bool = False, shift: int = -1) -> Iterator[tuple[bytes, _Spelling]]:
        if len(spelling) >= SHORTEST:
            yield spelling, _Spelling(kind, original, MARK if is_secret and shift < 0 else shown, word, shift)

    cases = {original: pseudonym, original.lower(): pseudonym.lower(), original.upper(): pseudonym.upper()}
    for word, shown in cases.items():
        raws: dict[bytes, bytes] = {}
        raw = word.encode("utf-8", "replace")
        for encoding in ("utf-8", "utf-16-le", "utf-16-be", "latin-1"):
            with contextlib.suppress(UnicodeEncodeError):
                raws[word.encode(encoding)] = shown.encode(encoding)
        raws |= _packed(word, shown)
        for octets, into in raws.items():
            yield from one(octets, into, word=is_word and not is_secret and octets == raw)
            yield from _encoded(octets, into, one)
        for escape in () if word.isascii() and word.isalnum() else _ESCAPES:
            spelled = escape(word).encode("utf-8", "replace")
            if spelled != raw:
                yield from one(spelled, escape(shown).encode("utf-8", "replace"))


_One = Callable[..., Iterator[tuple[bytes, _Spelling]]]
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def _encoded(octets: bytes, into: bytes, one: _One) -> Iterator[tuple[bytes, _Spelling]]:
    """Hex, percent signs and base64 of some bytes."""
    if len(octets) < SHORTEST:
        return
    for between in ("", " ", "%"):
        spelled, shown = (between.strip() + (data.hex(between) if between else data.hex()) for data in (octets, into))
        yield from one(spelled.encode(), shown.encode())
        if spelled.upper() != spelled:
            yield from one(spelled.upper().encode(), shown.upper().encode())
    for shift in range(3):
        first = (0, 2, 3)[shift]
        spelled64 = base64.b64encode(b"\0" * shift + octets)[first : (shift + len(octets)) * 8 // 6]
        shown64 = base64.b64encode(b"\0" * shift + into)[first : (shift + len(into)) * 8 // 6]
        yield from one(spelled64, shown64, shift=shift)
        if b"+" in spelled64 or b"/" in spelled64:
            yield from one(spelled64.translate(_URL_SAFE), shown64.translate(_URL_SAFE), shift=shift)


def _packed(word: str, shown: str) -> dict[bytes, bytes]:
    """A number as packed decimal digits, a hex text as its bytes, in both orders."""
    plain, other = re.sub("[:-]", "", word), re.sub("[:-]", "", shown)
    if len(plain) < SHORTEST_PACKED or not _HEX.fullmatch(plain) or (len(plain) % 2 and not plain.isdecimal()):
        return {}
    odd = "0" if len(plain) % 2 else ""
    octets = bytes.fromhex(odd + plain)
    if not (len(other) == len(plain) and _HEX.fullmatch(other)):
        return {octets: MARK, octets[::-1]: MARK}
    into = bytes.fromhex(odd + other)
    return {octets: into, octets[::-1]: into[::-1]}


def _json_escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


def _json_escaped_twice(text: str) -> str:
    return _json_escaped(_json_escaped(text))


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="", errors="replace")


def _quoted_small(text: str) -> str:
    return re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), _quoted(text))


def _quoted_path(text: str) -> str:
    return urllib.parse.quote(text, safe="/:@!$&'()*+,;=", errors="replace")


def _quoted_form(text: str) -> str:
    return urllib.parse.quote_plus(text, errors="replace")


_ESCAPES: Final = (
    html.escape, _json_escaped, _json_escaped_twice, _quoted, _quoted_small, _quoted_path, _quoted_form,
)  # fmt: skip
