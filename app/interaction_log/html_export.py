"""Interactions as one page to read and to print: no script, nothing that is fetched, every text escaped."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import IO, Any, Final

from app.interaction_log.reader import Story
from app.model.device import Device
from app.model.interaction import Direction, Frame, Interaction

SHOWN_OCTETS: Final = 4_096  # of one frame
ROW: Final = 16  # octets of a line
SHOWN_JSON: Final = 20_000  # characters of a result

# Control characters stand there as their symbols; what turns the direction of writing is named.
_CONTROLS: Final = {
    **{code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)},
    **dict.fromkeys(range(0x7F, 0xA0), "\N{SYMBOL FOR DELETE}"),
}
_TURNING: Final = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; border-top: 1px solid #888; padding-top: .8rem; }
h3 { font-size: .9rem; margin: .8rem 0 .2rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .15rem .6rem
.15rem 0; overflow-wrap: anywhere; } th { font-weight: 600; } tbody tr { border-top: 1px solid #8884; }
td.time, td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
pre { margin: .2rem 0; white-space: pre-wrap; overflow-wrap: anywhere; font: 12px/1.4 ui-monospace, monospace; }
.status { font-weight: 600; } .bad { color: #b3261e; } .good { color: #1b6e3c; } .note { color: #777; }
@media (prefers-color-scheme: dark) { .bad { color: #ff8a80; } .good { color: #7fd8a0; } }
@media print { body { margin: 0; max-width: none; font-size: 10pt; } h2 { break-after: avoid; }
tr { break-inside: avoid; } pre { font-size: 8pt; } }
"""


def printable(text: object) -> str:
    """Text to be read: no control characters but line ends and tabulators, nothing that reverses the line."""
    plain = _TURNING.sub(lambda found: f"[U+{ord(found[0]):04X}]", str(text).translate(_CONTROLS))
    return plain.encode("utf-8", "replace").decode()


def escaped(text: object) -> str:
    """Text for the page: as ``printable``, and no markup."""
    return html.escape(printable(text))


def write_html(out: IO[str], stories: Iterable[Story], devices: Iterable[Device], about: str) -> int:
    """Write the page; returns the interactions.

    Args:
        stories: taken one at a time.
        about: the filter's text; empty: everything.
    """
    exported = datetime.now(UTC)
    out.write(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Meterwright log</title>\n<style>{_STYLE}</style></head><body>\n<h1>Meterwright log</h1>\n"
        f"<p>Exported {_time(exported)}. Filter: {escaped(about) if about else 'none, everything'}. "
        "All times are UTC.</p>\n"
    )
    _table(
        out,
        "Devices",
        ("Device", "Name", "Kind", "Below", "Adapter", "Serial", "Model"),
        ((d.id, d.name, d.kind, d.parent, d.adapter, d.serial, d.model) for d in devices),
    )
    count = 0
    for story in stories:
        _story(out, story)
        count += 1
    out.write(f"<p>{count} interactions.</p>\n</body></html>\n")
    return count


def _story(out: IO[str], story: Story) -> None:
    i = story.interaction
    mood = "bad" if i.failure is not None else "good" if i.is_settled else ""
    out.write(
        f'<section id="i{i.id}"><h2>#{i.id} {escaped(i.command)} on {escaped(i.device)} '
        f'<span class="status {mood}">{escaped(i.status)}</span></h2>\n'
    )
    out.write(f"<p>{escaped(_sentence(i))}</p>\n")
    if i.failure is not None:
        words = " ".join(part for part in (i.failure.text, i.failure.release, i.failure.detail) if part)
        out.write(f'<p class="bad">{escaped(i.failure.code)}: {escaped(words)}</p>\n')
    for title, value in (("Parameters", i.params), ("Result", i.result)):
        if value:
            out.write(f"<h3>{title}</h3><pre>{escaped(_shown_json(value))}</pre>\n")
    _table(
        out,
        "History",
        ("Time", "Step", "Event", "Status", "Code", "Attempt", "By", "Words"),
        (
            (s.at, int(s.step), s.event, s.status or "", s.code, s.attempt or "", s.actor, s.text)
            for s in story.steps
        ),
    )
    _table(
        out,
        "Attempts",
        ("Number", "Began", "Ended", "End", "Code", "Reference", "Words"),
        ((a.number, a.started, a.ended or "", a.end, a.code, a.ref, a.text) for a in story.attempts),
    )
    _table(
        out,
        "Findings",
        ("Time", "Severity", "Code", "Words"),
        ((f.at, f.severity, f.code, f.text) for f in story.findings),
    )
    if story.frames:
        out.write("<h3>Frames</h3>\n")
        for frame in story.frames:
            _frame(out, frame)
    out.write("</section>\n")


def _sentence(i: Interaction) -> str:
    took = "" if i.finished is None else f", done after {(i.finished - i.created).total_seconds():.3f} s"
    text = f"Asked {i.created:%Y-%m-%d %H:%M:%S.%f} by {i.origin} through {i.adapter}{took}; {i.attempts} attempts."
    more = {
        "follow-up of": i.followup_of, "batch": i.batch, "commissioning": i.commissioning, "order": i.order,
        "replay of": i.replay_of, "shares the downlink of": i.shared_with,
    }  # fmt: skip
    said = ", ".join(f"{name} {value}" for name, value in more.items() if value is not None)
    return f"{text} {said[0].upper()}{said[1:]}." if said else text


def _frame(out: IO[str], frame: Frame) -> None:
    way = "to the device" if frame.direction is Direction.OUT else "from the device"
    told = f"{frame.at:%H:%M:%S.%f} {way}, {len(frame.data)} octets on {frame.link}"
    if frame.attempt is not None:
        told += f", attempt {frame.attempt}"
    if frame.note:
        told += f": {frame.note}"
    if frame.truncated:
        told += " (cut when it was kept)"
    lines = [dump_line(frame.data, at) for at in range(0, min(len(frame.data), SHOWN_OCTETS), ROW)]
    if len(frame.data) > SHOWN_OCTETS:
        lines.append(f"... and {len(frame.data) - SHOWN_OCTETS} octets more")
    dump = "\n".join(lines)
    out.write(f'<p class="note">{escaped(told)}</p><pre>{escaped(dump)}</pre>\n')


def dump_line(data: bytes, at: int) -> str:
    """The ``ROW`` octets from ``at`` on: offset, hex, and what of them is ASCII."""
    octets = data[at : at + ROW]
    letters = "".join(chr(octet) if 0x20 <= octet < 0x7F else "." for octet in octets)
    return f"{at:06x}  {octets.hex(' '):{ROW * 3}} {letters}"


def _shown_json(value: Mapping[str, Any]) -> str:
    text = json.dumps(dict(value), ensure_ascii=False, indent=1, default=str)
    return text if len(text) <= SHOWN_JSON else f"{text[:SHOWN_JSON]}\n... and {len(text) - SHOWN_JSON} characters more"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"


def _table(out: IO[str], title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Nothing is written where there are no rows."""
    begun = False
    for row in rows:
        if not begun:
            begun = True
            heads = "".join(f"<th>{escaped(name)}</th>" for name in columns)
            out.write(f"<h3>{title}</h3><table><thead><tr>{heads}</tr></thead><tbody>\n")
        out.write(f"<tr>{''.join(map(_cell, row))}</tr>\n")
    if begun:
        out.write("</tbody></table>\n")


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return f'<td class="time">{_time(value)}</td>'
    if isinstance(value, int):
        return f'<td class="number">{value}</td>'
    return f"<td>{escaped(value)}</td>"
