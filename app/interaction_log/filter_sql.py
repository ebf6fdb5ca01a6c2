"""A filter's terms as SQL over the columns of table ``interaction``. Values are parameters, never part of the text.

Every condition is 0 or 1, never NULL, so that ``not`` means what it says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from app.interaction_log import filter_nodes as n
from app.interaction_log.filter_nodes import Bytes, Cell, Compare, Contains, Kind, Match, Node, Op, Path, Text
from app.interaction_log.rows import fold, to_us

Parameters: TypeAlias = list[Any]

HAS_TEXT: Final = "EXISTS (SELECT 1 FROM log_text WHERE log_text MATCH ? AND log_text.rowid = interaction.id)"
_FAILED_MARKS: Final = ", ".join("?" * len(n.FAILED_TEXTS))
_OPERATORS: Final = {
    Op.EQUAL: "=",
    Op.DIFFERENT: "<>",
    Op.BELOW: "<",
    Op.AT_MOST: "<=",
    Op.ABOVE: ">",
    Op.AT_LEAST: ">=",
}
_ATTEMPTS: Final = "FROM attempt WHERE attempt.interaction = interaction.id"
_ANSWERED: Final = (
    "max(CASE WHEN attempt.end_w = (SELECT word.id FROM word WHERE word.text = 'ANSWERED') THEN attempt.ended END)"
)
_COMPARED: Final = {
    "finished": "interaction.finished",
    "duration": "interaction.finished - interaction.created",
    "waited": f"(SELECT min(attempt.started) {_ATTEMPTS}) - interaction.created",
    "latency": f"(SELECT {_ANSWERED} - min(attempt.started) {_ATTEMPTS})",
}
# A part of the tree is a node of a kind and all that hangs below it.
_PART: Final = (
    "WITH RECURSIVE part(id) AS (SELECT device.id FROM device WHERE device.kind = ? AND {test}"
    " UNION SELECT device.id FROM part CROSS JOIN device ON device.parent = part.id) SELECT part.id FROM part"
)
_CHAIN: Final = (
    "interaction.id IN (WITH RECURSIVE chain(id) AS (SELECT first.id FROM interaction AS first"
    " WHERE first.followup_of = ? UNION SELECT next.id FROM chain JOIN interaction AS next"
    " ON next.followup_of = chain.id) SELECT chain.id FROM chain)"
)


def condition(node: Node, parameters: Parameters) -> str:
    """The condition; its parameters are appended."""
    match node:
        case n.Everything():
            return "1"
        case Match() | Contains():
            return _text_field(node, parameters)
        case n.Span(field, low, high):
            column = f"interaction.{n.NUMBER_FIELDS[field]}"
            tests = [f"{column} IS NOT NULL"]
            if low is not None:
                tests.append(f"{column} >= ?")
                parameters.append(low)
            if high is not None:
                tests.append(f"{column} <= ?")
                parameters.append(high)
            return f"({' AND '.join(tests)})"
        case n.Since(at):
            parameters.append(to_us(at))
            return "interaction.created >= ?"
        case n.Until(at):
            parameters.append(to_us(at))
            return "interaction.created < ?"
        case n.Is("open"):
            return "interaction.is_open = 1"
        case n.Is("finished"):
            return "interaction.is_open = 0"
        case n.Is(_):
            parameters.extend(n.FAILED_TEXTS)
            return f"interaction.status_w IN (SELECT word.id FROM word WHERE text IN ({_FAILED_MARKS}))"
        case Text():
            parameters.append(match_query(node))
            return "interaction.id IN (SELECT rowid FROM log_text WHERE log_text MATCH ?)"
        case Compare(field, Op.EXISTS):
            return f"({_COMPARED[field]}) IS NOT NULL"
        case Compare(field, op, us):
            parameters.append(us)
            return f"coalesce(({_COMPARED[field]}) {_OPERATORS[op]} ?, 0)"
        case Cell():
            return _cell(node, parameters)
        case Bytes():
            return f"EXISTS (SELECT 1 FROM {frames_with(node, parameters)} AND frame.interaction = interaction.id)"
        case n.Follows(number):
            parameters.append(number)
            return _CHAIN
        case n.Not(item):
            return f"NOT {condition(item, parameters)}"
        case n.And(items):
            return "(" + " AND ".join([condition(item, parameters) for item in items]) + ")"
        case n.Or(items):
            return "(" + " OR ".join([condition(item, parameters) for item in items]) + ")"


def match_query(node: Text) -> str:
    """The FTS5 query of a text term: one quoted phrase."""
    return '"' + node.value.replace("\0", " ").replace('"', '""') + '"' + ("*" if node.is_prefix else "")


# ---------------------------------------------------------------- texts of fields


def like_pattern(beginning: str) -> str:
    """A LIKE pattern (escape character ``\\``) for texts that begin so."""
    return re.sub(r"([\\%_])", r"\\\1", beginning) + "%"


def _text_test(node: Match | Contains, column: str, parameters: Parameters) -> str:
    if isinstance(node, Contains):
        parameters.append(fold(node.value))
        return f"instr(lower({column}), ?) > 0"
    parameters.append(like_pattern(node.value) if node.is_prefix else node.value)
    return f"{column} LIKE ? ESCAPE '\\'" if node.is_prefix else f"{column} = ? COLLATE NOCASE"


def _words(node: Match | Contains, parameters: Parameters) -> str:
    return f"SELECT word.id FROM word WHERE {_text_test(node, 'word.text', parameters)}"


def _text_field(node: Match | Contains, parameters: Parameters) -> str:
    field = node.field
    if field in n.WORD_FIELDS:
        column = f"interaction.{n.WORD_FIELDS[field]}"
        return f"({column} IS NOT NULL AND {column} IN ({_words(node, parameters)}))"
    if field in n.TREE_FIELDS:
        wanted = devices_with(node, parameters)
        return f"interaction.device_w IN (SELECT word.id FROM word WHERE word.text IN ({wanted}))"
    if field == "finding":
        test = f"finding.code_w IN ({_words(node, parameters)})"
        return f"EXISTS (SELECT 1 FROM finding WHERE finding.interaction = interaction.id AND {test})"
    if field == "actor":
        test = f"step.actor_w IN ({_words(node, parameters)})"
    else:
        numbers = [number for title, group in n.STEP_NUMBERS.items() if n.text_matches(node, title) for number in group]
        test = f"step.step IN ({', '.join(map(str, numbers))})"
    return f"EXISTS (SELECT 1 FROM step WHERE step.interaction = interaction.id AND {test})"


def devices_with(node: Match | Contains, parameters: Parameters) -> str:
    """A query for the ids of the devices that a field of the tree means."""
    match node.field:
        case "meter":
            tests = [_text_test(node, f"device.{column}", parameters) for column in ("id", "name")]
            tests.append(f"device.serial <> '' AND {_text_test(node, 'device.serial', parameters)}")
            return f"SELECT device.id FROM device WHERE device.kind = 'meter' AND ({' OR '.join(tests)})"
        case "serial":
            test = _text_test(node, "device.serial", parameters)
            return f"SELECT device.id FROM device WHERE device.serial <> '' AND {test}"
        case kind:
            parameters.append(kind)
            return _PART.format(test=_text_test(node, "device.id", parameters))


# ---------------------------------------------------------------- bytes


def frames_with(node: Bytes, parameters: Parameters) -> str:
    """The frames that hold the octets: a table and its condition."""
    tests: list[str] = []
    _head, _dot, direction = node.field.partition(".")
    if direction:
        parameters.append(direction)
        tests.append("frame.direction_w = (SELECT word.id FROM word WHERE word.text = ?)")
    runs = node.runs()
    if not runs:
        parameters.append(len(node.octets))
        tests.append("length(frame.data) >= ?")
    elif None not in node.octets:
        parameters.append(runs[0][1])
        tests.append("instr(frame.data, ?) > 0")
    else:
        digits = "".join("??" if octet is None else f"{octet:02X}" for octet in node.octets)
        anchor, longest = max(runs, key=lambda run: len(run[1]))
        # Most frames are told by the first test, which also finds octets that begin between two; then every place of
        # the longest run is tried.
        parameters += [f"*{digits}*", longest, longest, anchor, len(node.octets) - anchor - 1]
        places = ["hit.at > ? AND hit.at + ? <= length(frame.data)"]
        for at, run in runs:
            places.append("substr(frame.data, hit.at + ?, ?) = ?")
            parameters += [at - anchor, len(run), run]
        tests.append(
            "hex(frame.data) GLOB ? AND EXISTS (WITH RECURSIVE hit(at) AS (SELECT instr(frame.data, ?) UNION ALL SELECT"
            " hit.at + nullif(instr(substr(frame.data, hit.at + 1), ?), 0) FROM hit WHERE hit.at > 0)"
            f" SELECT 1 FROM hit WHERE {' AND '.join(places)})"
        )
    return f"frame WHERE {' AND '.join(tests)}"


# ---------------------------------------------------------------- parameters and results

def json_path(path: Path) -> str:
    """SQLite's spelling of a path."""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f'."{part}"' for part in path)


def _cell(node: Cell, parameters: Parameters) -> str:
    column = f"interaction.{n.CELL_FIELDS[node.head]}"
    path = json_path(node.path)
    names = [part for part in node.path if isinstance(part, str)]
    test = "1"
    if names:  # spares reading the JSON of rows without the name
        parameters.append(f'"{names[-1]}"')
        test = f"instr({column}, ?) > 0"
    if node.op is Op.EXISTS:
        parameters.append(path)
        return f"coalesce({test} AND json_type({column}, ?) <> 'null', 0)"
    taken = f"CASE json_type({column}, ?) WHEN 'object' THEN {{0}}({column}, ?) ELSE {{0}}({column}, ?) END"
    paths = (path, f"{path}.value", path)
    parameters += paths

    def has_type(*types: str) -> str:
        parameters.extend(paths)
        listed = ", ".join(f"'{one}'" for one in types)
        return f"{taken.format('json_type')} IN ({listed})"

    return (
        f"coalesce({test} AND EXISTS (SELECT 1 FROM (SELECT {taken.format('json_extract')} AS value) AS cell"
        f" WHERE {_cell_test(node.op, node.value, parameters, has_type)}), 0)"
    )


def _cell_test(op: Op, value: n.Literal, parameters: Parameters, has_type: Callable[..., str]) -> str:
    """The test of ``cell.value``. Its type comes last: asking for it reads the JSON again."""
    if op is Op.DIFFERENT:
        same = _cell_test(Op.EQUAL, value, parameters, has_type)
        return f"NOT coalesce({same}, 0) AND {has_type('integer', 'real', 'text', 'true', 'false')}"
    if value.kind is Kind.FLAG:
        is_flag = has_type(value.text)
        parameters.append(value.text)
        return f"({is_flag} OR (lower(cell.value) = ? AND {has_type('text')}))"
    if value.kind is Kind.NUMBER:
        parameters.append(value.text)
        test = f"cell.value {_OPERATORS[op]} CAST(? AS NUMERIC)"
        # Compared so, a text that is a number becomes one; other texts are above all numbers.
        if op in (Op.ABOVE, Op.AT_LEAST):
            test += " AND cell.value <= CAST('9e999' AS REAL)"
        return f"({test} AND {has_type('integer', 'real', 'text')})"
    parameters.append(fold(value.text))
    text = "lower(CAST(cell.value AS TEXT))"
    match op:
        case Op.CONTAINS:
            test = f"instr({text}, ?) > 0"
        case Op.BEGINS:
            test = f"instr({text}, ?) = 1"
        case _:
            test = f"{text} {_OPERATORS[op]} ?"
    return f"({test} AND typeof(cell.value) <> 'real' AND {has_type('text', 'integer')})"
