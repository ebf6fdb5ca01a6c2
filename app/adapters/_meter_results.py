"""What readouts, load profiles and registers become in results, whichever adapter brought the text.

The keys are those the views know: see ``readout``, ``profile`` and ``register``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from app.errors import RemoteProtocolError
from app.model.reading import Quantity, SampleSet
from app.protocols import iec62056_21 as iec
from app.protocols import obis

MAX_ROWS: Final = 20_000  # of one readout or load profile in a result
CUT_ROWS: Final = f"Only the first {MAX_ROWS} rows are shown; the frames hold all of them."
MAX_TEXT: Final = 1 << 20  # characters of a result's text
MAX_DAMAGES: Final = 50
MAX_OTHERS: Final = 1000
NO_END: Final = "The closing ! of the data is missing: older firmware drops it, or the text was cut."
_FATAL: Final = (obis.LETTERS["F"], obis.LETTERS["F"])  # F.F


def visible(text: str) -> str:
    """``text`` in a sentence: CR LF as one line end, other control characters as their symbols, bounded."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    shown = re.sub(r"[\x00-\x09\x0b-\x1f]", lambda found: chr(0x2400 + ord(found[0])), plain).replace("\x7f", "\u2421")
    return bounded(shown)


def bounded(text: str) -> str:
    """What is kept of a text; whoever shows it makes control characters visible."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}\n[cut here; the frames hold all of it]"


def register(one: iec.DataSet) -> dict[str, Any]:
    """A data set as a row: ``obis``, ``name``, ``value``, ``unit``, ``values``, ``raw``, and ``flags`` of a status."""
    meaning = one.meaning if one.values else None
    first = one.values[0] if one.values else iec.Value("")
    row: dict[str, Any] = {
        "obis": one.address,
        "name": meaning.title if meaning is not None else "",
        "value": first.text,
        "unit": first.unit or "",
        "values": [str(value) for value in one.values],
        "raw": str(one),
    }
    code = one.code
    if code is not None and code.key[:2] == _FATAL and (flags := iec.mass_status(first.text)) is not None:
        row["flags"] = list(flags)
    return row


def readout(parsed: iec.Readout, *, identification: str, check: str) -> dict[str, Any]:
    """The parts of a readout's result that come from its data sets."""
    return {
        "identification": visible(identification),
        "meter_serial": iec.serial_of(parsed.data_sets, is_turkish=_is_turkish(identification)),
        "rows": [register(one) for one in parsed.data_sets[:MAX_ROWS]],
        "bcc": check,
        "damages": [str(damage) for damage in parsed.damages[:MAX_DAMAGES]],
    }


def _is_turkish(identification: str) -> bool:
    try:
        return bool(identification) and iec.parse_identification(identification).mass is not None
    except RemoteProtocolError:
        return False


def readout_samples(
    sets: Sequence[iec.DataSet], device: str, now: datetime, interaction: int | None
) -> tuple[SampleSet, ...]:
    """What of a readout belongs into charts, as of ``now``."""
    values = iec.samples(sets)
    if not values:
        return ()
    clock = iec.meter_time(sets)
    text = "" if clock is None else clock.isoformat(" ")
    return (SampleSet(device=device, received=now, values=values, interaction=interaction, meter_time_text=text),)


def profile(parsed: iec.Profile, tables: Sequence[iec.ProfileTable], *, check: str) -> dict[str, Any]:
    """The parts of a load profile's result that come from its text; ``tables`` are those of ``parsed``."""
    found: dict[str, Any] = {
        "profile": "", "channels": [], "period_min": None, "rows": [], "missing": 0, "bcc": check,
        "others": [register(one) for one in parsed.others[:MAX_OTHERS]],
    }  # fmt: skip
    told = [_table(table, parsed.sections) for table in tables]
    if told:
        found.update(told[0])
    if told[1:]:
        found["further_profiles"] = told[1:]
    return found


def _table(table: iec.ProfileTable, sections: Sequence[iec.ProfileSection]) -> dict[str, Any]:
    period = next((one.interval_min for one in sections if one.profile == table.profile), None)
    return {
        "profile": table.profile,
        "channels": [
            {"obis": channel.id, "name": _channel_title(channel), "unit": channel.unit} for channel in table.columns
        ],
        "period_min": period,
        "missing": table.missing,
        "rows": [_profile_row(row) for row in table.rows[:MAX_ROWS] if not row.is_gap],
    }


def _profile_row(row: iec.TableRow) -> dict[str, Any]:
    told: dict[str, Any] = {
        "time": "" if row.at is None else row.at.isoformat(" "),
        "status": row.status,
        "values": [None if value is None else value.text for value in row.values],
    }
    if flags := iec.status_flags(row.status):
        told["flags"] = list(flags)
    return told


def _channel_title(channel: iec.Channel) -> str:
    code = obis.find(channel.id)
    meaning = None if code is None else obis.meaning_of(code, channel.unit or None)
    return "" if meaning is None else meaning.title


def profile_samples(
    tables: Sequence[iec.ProfileTable], device: str, interaction: int | None
) -> tuple[SampleSet, ...]:
    """Rows as samples at the meter's time, which is taken as this computer's local time."""
    made = []
    for table in tables:
        measured = [_measured(channel) for channel in table.columns]
        for row in table.rows[:MAX_ROWS]:
            if row.at is None or row.is_gap:
                continue
            values = []
            for quantity, value in zip(measured, row.values, strict=False):
                if quantity is not None and value is not None and value.number is not None:
                    values.append((quantity[0], quantity[1].to_base(value.number)))
            if values:
                moment = row.at.astimezone()
                made.append(
                    SampleSet(device=device, received=moment, meter_time=moment, values=tuple(values),
                              meter_time_text=row.at.isoformat(" "), interaction=interaction)
                )  # fmt: skip
    return tuple(made)


def _measured(channel: iec.Channel) -> tuple[Quantity, obis.Scale] | None:
    code = obis.find(channel.id)
    scale = obis.scale_of(channel.unit)
    meaning = None if code is None or scale is None else obis.meaning_of(code, channel.unit)
    if meaning is None or scale is None or meaning.kind not in obis.CHARTED:
        return None
    quantity = Quantity(f"profile_{meaning.name}", meaning.unit, f"{meaning.title} (load profile)", channel.id)
    return quantity, scale


def damage_doubts(damages: Sequence[iec.Damage]) -> list[str]:
    """What to say of places that cannot be read."""
    return [f"{len(damages)} places of the text cannot be read, the first: {damages[0]}"] if damages else []


def readout_summary(found: Mapping[str, Any]) -> str:
    """What came, in the words of a row of the log."""
    return f"{len(found['rows'])} values"


def profile_summary(found: Mapping[str, Any]) -> str:
    missing = f", {found['missing']} missing" if found["missing"] else ""
    period = f" of {found['period_min']} min" if found["period_min"] else ""
    return f"{len(found['rows'])} periods{period}{missing}"
