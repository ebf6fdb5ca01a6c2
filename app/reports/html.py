"""A report as one HTML file: no script, nothing that is fetched, every text escaped, made to be printed on A4."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final, assert_never

from app.interaction_log.html_export import escaped
from app.reports import blocks as b
from app.reports.charts import mark_colour, mark_svg

_STYLE: Final = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 13px/1.4 "Segoe UI", "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; color: #181c21; background: #fff;
margin: 2rem auto; max-width: 54rem; padding: 0 1.2rem; }
header { border-bottom: 2px solid #181c21; padding-bottom: .5rem; margin-bottom: 1rem; }
header p { margin: .1rem 0; color: #525b66; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 1.6rem 0 .4rem; }
h3 { font-size: .95rem; margin: 1.1rem 0 .3rem; } h2, h3 { break-after: avoid; }
p { margin: .3rem 0; overflow-wrap: anywhere; } .dimmed { color: #525b66; }
.verdict { display: flex; gap: .8rem; align-items: center; border: 1.5px solid; border-radius: 4px;
padding: .6rem .9rem; margin: .8rem 0; } .verdict svg { width: 30px; height: 30px; }
.verdict b { font-size: 1.35rem; } .verdict span { color: #181c21; }
dl { display: grid; grid-template-columns: repeat(2, minmax(7rem, max-content) 1fr); gap: .15rem .8rem;
margin: .4rem 0; } dl div { display: contents; } dt { color: #525b66; } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; margin: .5rem 0; }
th { text-align: left; font-weight: 600; color: #525b66; border-bottom: 1.5px solid #525b66; }
th, td { padding: .2rem .5rem .2rem 0; vertical-align: top; overflow-wrap: anywhere; white-space: pre-line; }
td { border-top: 1px solid #e2e5e9; } tr.begins td { border-top: 1px solid #8a94a0; }
tr { break-inside: avoid; } thead { display: table-header-group; }
.number { text-align: right; font-variant-numeric: tabular-nums; } small { display: block; color: #525b66; }
td svg, h2 svg, h3 svg { width: 11px; height: 11px; margin-right: .35rem; vertical-align: -1px; }
figure { margin: .6rem 0; break-inside: avoid; } figure svg { width: 100%; height: auto; }
.pictures { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; } .pictures img { max-width: 100%;
max-height: 22rem; } figcaption { color: #525b66; font-size: .85em; overflow-wrap: anywhere; }
pre { font: 11px/1.35 "DejaVu Sans Mono", Consolas, Menlo, monospace; margin: .1rem 0 .6rem; white-space: pre-wrap;
overflow-wrap: anywhere; } .dump { color: #525b66; margin: .4rem 0 0; break-after: avoid; }
.sign { display: grid; grid-template-columns: 1fr 1fr 1fr; gap: 0 1.2rem; break-inside: avoid; margin-bottom: 1rem; }
.sign b { grid-column: 1 / -1; } .sign span { border-bottom: 1px solid #181c21; height: 2.6rem; }
.sign small { padding-top: .15rem; }
footer { border-top: 1px solid #8a94a0; margin-top: 2rem; padding-top: .4rem; color: #525b66; font-size: .85em;
overflow-wrap: anywhere; }
@media print { body { margin: 0; max-width: none; padding: 0; font-size: 9.5pt; } .new { break-before: page; }
pre { font-size: 7.5pt; } footer { display: none; } }
"""
_PAPER: Final = (
    '@page { size: A4; margin: 16mm 15mm 20mm; @bottom-left { content: "SHA-256 of the JSON: %s"; '
    'font: 7pt monospace; color: #525b66; } @bottom-right { content: "Page " counter(page) " of " counter(pages); '
    "font: 8pt sans-serif; color: #525b66; } }"
)


def html_page(report: Mapping[str, Any]) -> str:
    """The report as a page; photos stand in it as data."""
    shown = b.document(report)
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(shown.title)}: {escaped(shown.subject)}</title>\n"
        f"<style>{_STYLE}{_PAPER % shown.sha256}</style></head><body>\n"
        f"<header><h1>{escaped(shown.title)}</h1><p>{escaped(shown.subject)}</p></header>\n<main>\n"
    ]
    is_new = False
    for block in shown.blocks:
        if isinstance(block, b.NewPage):
            is_new = True
            continue
        parts.append(_block(block, is_new=is_new))
        is_new = False
    parts.append(
        f"</main>\n<footer>{escaped(shown.program)}. SHA-256 of the JSON: <code>{shown.sha256}</code></footer>\n"
        "</body></html>\n"
    )
    return "".join(parts)


def _block(block: b.Block, *, is_new: bool) -> str:
    match block:
        case b.Heading():
            level = block.level + 1
            starts = ' class="new"' if is_new else ""
            mark = mark_svg(block.mark) if block.mark else ""
            return f"<h{level}{starts}>{mark}{escaped(block.text)}</h{level}>\n"
        case b.Words():
            return f"<p{_tone(block.tone)}>{escaped(block.text).replace(chr(10), '<br>')}</p>\n"
        case b.Verdict():
            colour = mark_colour(block.status)
            return (
                f'<div class="verdict" style="border-color: {colour}; color: {colour}">{mark_svg(block.status)}'
                f"<b>{escaped(block.word.upper())}</b><span>{escaped(block.text)}</span></div>\n"
            )
        case b.Facts():
            rows = (f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in block.rows)
            return f"<dl>{''.join(rows)}</dl>\n"
        case b.Table():
            return _table(block)
        case b.Drawing():
            return f"<figure>{block.svg}</figure>\n"
        case b.Pictures():
            return f'<div class="pictures">{"".join(map(_picture, block.items))}</div>\n'
        case b.Dump():
            dump = escaped("\n".join(block.lines))
            return f'<p class="dump">{escaped(block.title)}</p><pre>{dump}</pre>\n'
        case b.Signatures():
            return "".join(
                f'<div class="sign"><b>{escaped(role)}</b><span></span><span></span><span></span>'
                "<small>Name</small><small>Signature</small><small>Place, date</small></div>\n"
                for role in block.roles
            )
        case b.NewPage():
            return ""
        case _:
            assert_never(block)


def _tone(tone: str) -> str:
    if tone in ("", "dimmed"):
        return f' class="{tone}"' if tone else ""
    return f' style="color: {mark_colour(tone)}"'


def _table(table: b.Table) -> str:
    whole = sum(column.share for column in table.columns)
    widths = "".join(f'<col style="width: {100 * column.share / whole:.4g}%">' for column in table.columns)
    classes = [' class="number"' if column.is_number else "" for column in table.columns]
    heads = "".join(
        f'<th scope="col"{name}>{escaped(column.title)}</th>'
        for column, name in zip(table.columns, classes, strict=True)
    )
    rows = []
    for row in table.rows:
        cells = "".join(f"<td{name}>{_cell(cell)}</td>" for cell, name in zip(row.cells, classes, strict=True))
        begins = ' class="begins"' if row.begins else ""
        rows.append(f"<tr{begins}>{cells}</tr>\n")
    head = f"<table><colgroup>{widths}</colgroup><thead><tr>{heads}</tr></thead><tbody>\n"
    return f"{head}{''.join(rows)}</tbody></table>\n"


def _cell(cell: b.Cell) -> str:
    text = escaped(cell.text)
    if cell.is_bold:
        text = f"<b>{text}</b>"
    if cell.mark:
        text = f'<span style="color: {mark_colour(cell.mark)}">{mark_svg(cell.mark)}{text}</span>'
    return f"{text}<small>{escaped(cell.note)}</small>" if cell.note else text


def _picture(picture: b.Picture) -> str:
    coded = base64.b64encode(picture.data).decode("ascii")
    shown = f'<img alt="{escaped(picture.caption)}" src="data:{escaped(picture.media_type)};base64,{coded}">'
    told = f"{escaped(picture.caption)}<br>SHA-256 {escaped(picture.sha256)}"
    return f"<figure>{shown}<figcaption>{told}</figcaption></figure>\n"
