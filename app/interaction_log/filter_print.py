"""A filter's tree as its canonical text, which parses to the same tree at any time."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from app.interaction_log import filter_nodes as n
from app.interaction_log.filter_nodes import Kind, Node, Op
from app.interaction_log.filter_values import duration_text, literal_of, path_text
from app.interaction_log.rows import from_us

_PLAIN: Final = re.compile(r"[^\s()\"\\*]+")
_LIKE_COMPARISON: Final = re.compile(r"[=!<>~:]")


def quoted(value: str) -> str:
    """``value`` as it must be written to be taken literally."""
    if _PLAIN.fullmatch(value) and value.lower() not in n.KEYWORDS:
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def printed(node: Node) -> str:
    match node:
        case n.Everything():
            return ""
        case n.Match(field, value, is_prefix):
            star = "*" if is_prefix else ""
            return f"{field}:{quoted(value) if value or not is_prefix else ''}{star}"
        case n.Contains(field, value):
            return f"{field} ~ {quoted(value)}"
        case n.Span(field, None, None):
            return f"{field}:*"
        case n.Span(field, low, high):
            if low is not None and low == high:
                return f"{field}:{low}"
            return f"{field}:{'' if low is None else low}..{'' if high is None else high}"
        case n.Since(at):
            return f"since:{_moment(at)}"
        case n.Until(at):
            return f"until:{_moment(at)}"
        case n.Is(state):
            return f"is:{state}"
        case n.Text(value, is_prefix):
            plain = quoted(value)
            if not plain.startswith('"') and _LIKE_COMPARISON.search(plain):
                plain = f'"{plain}"'
            return plain + ("*" if is_prefix else "")
        case n.Compare(field, Op.EXISTS):
            return f"{field}:*"
        case n.Compare(field, op, us):
            return f"{field} {op.value} {_moment(from_us(us)) if field in n.MOMENT_FIELDS else duration_text(us)}"
        case n.Cell():
            return _cell(node)
        case n.Bytes(field, octets):
            return f'{field} ~ "{" ".join("??" if octet is None else f"{octet:02x}" for octet in octets)}"'
        case n.Follows(number):
            return f"follows:{number}"
        case n.Not(item):
            return f"not {_bracketed(item) if isinstance(item, (n.And, n.Or)) else printed(item)}"
        case n.And(items):
            return " ".join([_bracketed(item) if isinstance(item, n.Or) else printed(item) for item in items])
        case n.Or(items):
            return " or ".join([printed(item) for item in items])


def _cell(node: n.Cell) -> str:
    name, text = f"{node.head}{path_text(node.path)}", node.value.text
    if node.op is Op.EXISTS:
        return f"{name}:*"
    if node.op is Op.BEGINS:
        return f"{name}:{quoted(text)}*"
    # In quotes a value is a text whatever it looks like; what is contained always is.
    is_text = node.op is not Op.CONTAINS and node.value.kind is Kind.TEXT
    value = f'"{text}"' if is_text and literal_of(text).kind is not Kind.TEXT else quoted(text)
    return f"{name} {node.op.value} {value}"


def _bracketed(node: Node) -> str:
    return f"({printed(node)})"


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
