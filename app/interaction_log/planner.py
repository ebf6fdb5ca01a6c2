"""From a filter to SQL that reads few rows, however many the log holds.

A filter becomes a list of conjunctions. For each one an index leads (the rarest of those that fit, found by probing),
the other terms are checked row by row, and everything runs in the order of ids, so that the newest page comes first.
Where no index fits, rows are read in the order of ids until the page is full.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from app.interaction_log import filter_nodes as f
from app.interaction_log.filter_sql import HAS_TEXT, condition, devices_with, frames_with, match_query
from app.interaction_log.filters import Filter
from app.interaction_log.rows import Run, WordTexts, to_us

MAX_CONJUNCTIONS: Final = 16
MAX_WORDS: Final = 40  # an index leads for so many words of one field at most
MAX_ENDINGS: Final = 16  # words a beginning may stand for before it is left to full text
PROBE: Final = 256  # entries an index is probed for; a rarer one is certainly good enough

# The words a column holds, by hopping over its index.
_USED: Final = (
    "WITH RECURSIVE used(n) AS (SELECT min({column}) FROM interaction WHERE {column} IS NOT NULL UNION ALL"
    " SELECT (SELECT min({column}) FROM interaction WHERE {column} > used.n AND {column} IS NOT NULL) FROM used"
    " WHERE used.n IS NOT NULL) SELECT n FROM used WHERE n IS NOT NULL"
)
_BY_WORD: Final = (*f.WORD_FIELDS, *f.TREE_FIELDS)


@dataclass(frozen=True, slots=True)
class Lead:
    """The index that leads: ``branches`` are conditions of disjoint sets of rows, each answered by one index range.

    ``is_listed``: the ids are not in an index but found beforehand, at a cost; better only than reading every row.
    """

    branches: tuple[tuple[str, tuple[Any, ...]], ...]
    is_text: bool = False  # the index of full text
    is_finding: bool = False  # the index of codes of findings
    is_listed: bool = False

    @property
    def table(self) -> str:
        """Whose index it is."""
        return "log_text" if self.is_text else "finding" if self.is_finding else "interaction"

    @property
    def key(self) -> str:
        """The column of ``table`` that holds the interaction's id."""
        return {"log_text": "log_text.rowid", "finding": "finding.interaction"}.get(self.table, "interaction.id")


@dataclass(slots=True)
class Conjunction:
    """Terms that must all hold. ``low`` <= id < ``high`` is the span of ids that can match."""

    low: int | None = None
    high: int | None = None
    lead: Lead | None = None
    rest: list[str] = field(default_factory=list)
    parameters: list[Any] = field(default_factory=list)
    is_empty: bool = False
    is_bulk: bool = False  # holds a test that is prepared once for the whole query: ask for many rows at a time


def normalised(node: f.Node, *, negate: bool = False) -> f.Node:
    """``not`` only before leaves."""
    match node:
        case f.Not(item):
            return normalised(item, negate=not negate)
        case f.And(items) | f.Or(items):
            parts = [normalised(item, negate=negate) for item in items]
            return f.all_of(parts) if isinstance(node, f.And) is not negate else f.any_of(parts)
        case _:
            return f.Not(node) if negate else node


def conjunctions(node: f.Node) -> list[list[f.Node]] | None:
    """The filter as "one of these, each of which needs all of its terms"; None when that would be too many."""
    match node:
        case f.Or(items):
            found: list[list[f.Node]] = []
            for item in items:
                some = conjunctions(item)
                if some is None or len(found) + len(some) > MAX_CONJUNCTIONS:
                    return None
                found += some
            return found
        case f.And(items):
            product: list[list[f.Node]] = [[]]
            for item in items:
                some = conjunctions(item)
                if some is None or len(product) * len(some) > MAX_CONJUNCTIONS:
                    return None
                product = [[*left, *right] for left in product for right in some]
            return product
        case _:
            return [[node]]


class Planner:
    """Plans filters against one read connection.

    Args:
        span_of_time: ids that can hold rows created in [since_us, until_us): (low, high), None for an open side.
    """

    def __init__(
        self,
        words: WordTexts,
        run: Run,
        span_of_time: Callable[[int | None, int | None], tuple[int | None, int | None]],
    ) -> None:
        self._words = words
        self._run = run
        self._span_of_time = span_of_time
        self._bulk = False

    def plan(self, where: Filter | None, *, bulk: bool = False) -> list[Conjunction]:
        """Conjunctions of which one must hold; an empty list means that nothing can match.

        ``bulk`` is for queries that read everything, not a page.
        """
        self._bulk = bulk
        node = f.Everything() if where is None else normalised(where.node)
        parts = conjunctions(node)
        if parts is None:
            sql, parameters = Filter(node).sql()
            return [Conjunction(rest=[sql], parameters=parameters, is_bulk=True)]
        planned = [self._conjunction(part) for part in parts]
        return [one for one in planned if not one.is_empty]

    def _conjunction(self, terms: list[f.Node]) -> Conjunction:
        plan = Conjunction()
        since: int | None = None
        until: int | None = None
        leads: list[tuple[Lead, str, list[Any]]] = []
        texts = [term for term in terms if isinstance(term, f.Text)]
        if texts:
            leads.append(self._text(texts))
        for term in terms:
            match term:
                case f.Text():
                    continue
                case f.Everything():
                    continue
                case f.Since(at):
                    since = to_us(at) if since is None else max(since, to_us(at))
                case f.Until(at):
                    until = to_us(at) if until is None else min(until, to_us(at))
                case f.Span("id", low, high):
                    plan.low = low if plan.low is None else max(plan.low, low or 0)
                    if high is not None:
                        plan.high = min(high, f.MAX_ID - 1) + 1 if plan.high is None else min(plan.high, high + 1)
                case _:
                    sql, parameters, lead = self._term(term)
                    plan.is_bulk |= "SELECT rowid FROM log_text" in sql or "SELECT frame.interaction FROM" in sql
                    if sql == "0":
                        plan.is_empty = True
                        return plan
                    if lead is None:
                        plan.rest.append(sql)
                        plan.parameters += parameters
                    else:
                        leads.append((lead, sql, parameters))
        if since is not None or until is not None:
            self._add_time(plan, since, until)
        if any(not lead.is_listed for lead, _sql, _parameters in leads):
            plan.rest += [sql for lead, sql, _parameters in leads if lead.is_listed]
            plan.parameters += [value for lead, _sql, values in leads if lead.is_listed for value in values]
            leads = [one for one in leads if not one[0].is_listed]
        if leads:
            if any(term.is_prefix for term in texts):  # looked up row by row, a beginning costs too much
                best = leads[0][0]
            else:
                best = self._rarest([lead for lead, _sql, _parameters in leads], plan)
            for lead, sql, parameters in leads:
                if lead is best:
                    plan.lead = lead
                else:
                    plan.rest.append(sql)
                    plan.parameters += parameters
        return plan

    def _add_time(self, plan: Conjunction, since: int | None, until: int | None) -> None:
        if since is not None and until is not None and since >= until:
            plan.is_empty = True
            return
        low, high = self._span_of_time(since, until)
        if low is not None:
            plan.low = low if plan.low is None else max(plan.low, low)
        if high is not None:
            plan.high = high if plan.high is None else min(plan.high, high)
        if since is not None:
            plan.rest.append("+interaction.created >= ?")
            plan.parameters.append(since)
        if until is not None:
            plan.rest.append("+interaction.created < ?")
            plan.parameters.append(until)

    def _term(self, term: f.Node) -> tuple[str, list[Any], Lead | None]:
        """The test of one row (kept away from indexes), its parameters, and the index that could lead."""
        parameters: list[Any]
        match term:
            case f.Match() | f.Contains() if term.field in _BY_WORD:
                return self._match(term, wanted=True)
            case f.Not(f.Match() | f.Contains() as inner) if inner.field in _BY_WORD:
                return self._match(inner, wanted=False)
            case f.Match("finding") | f.Contains("finding"):
                return self._finding(term)
            case f.Follows():
                parameters = []
                sql = condition(term, parameters)
                return sql, parameters, Lead(((sql, tuple(parameters)),))
            case f.Bytes() if self._bulk:  # all frames in their order
                parameters = []
                ids = f"interaction.id IN (SELECT frame.interaction FROM {frames_with(term, parameters)})"
                return ids, parameters, None
            case f.Is("failed"):
                texts = frozenset(f.FAILED_TEXTS)
                return self._words_lead("status_w", [n for n, text in self._words.items() if text in texts])
            case f.Is(state):
                value = int(state == "open")
                lead = Lead((("interaction.is_open = 1", ()),)) if value else None
                return f"+interaction.is_open = {value}", [], lead
            case f.Span(name, low, high) if low is not None and low == high:
                column = f.NUMBER_FIELDS[name]
                lead = Lead(((f"interaction.{column} = ?", (low,)),)) if name in f.INDEXED_NUMBERS else None
                return f"+interaction.{column} IS ?", [low], lead
            case f.Not(f.Text() as inner) if not (inner.is_prefix or self._bulk):
                return f"NOT {HAS_TEXT}", [match_query(inner)], None
            case _:
                parameters = []
                return condition(term, parameters), parameters, None

    def _text(self, terms: list[f.Text]) -> tuple[Lead, str, list[Any]]:
        """All words of a conjunction as one full-text query."""
        query = " AND ".join(self._query(term) for term in terms)
        return Lead((("log_text MATCH ?", (query,)),), is_text=True), HAS_TEXT, [query]

    def _query(self, term: f.Text) -> str:
        """A beginning is spelt out when few words have it: full text reads whole words lazily, beginnings at once."""
        if not (term.is_prefix and term.value.isascii()):
            return match_query(term)
        *whole, last = f.words_of(term.value)
        found: list[str] = []
        at = last
        while len(found) <= MAX_ENDINGS:
            rows = self._run("SELECT term FROM temp.log_terms WHERE term >= ? LIMIT 1", (at,))
            if not rows or not rows[0][0].startswith(last):
                break
            found.append(rows[0][0])
            at = rows[0][0] + "\x01"
        if not found or len(found) > MAX_ENDINGS:
            return match_query(term)
        return "(" + " OR ".join(f'"{" ".join([*whole, word])}"' for word in found) + ")"

    def _match(self, node: f.Match | f.Contains, *, wanted: bool) -> tuple[str, list[Any], Lead | None]:
        self._words.refresh()
        column = f.WORD_FIELDS.get(node.field, "device_w")
        found = self._word_ids(node)
        if wanted:
            is_used = node.field in f.TREE_FIELDS  # devices of the tree: to ask which have entries costs more
            return self._words_lead(column, found, can_lead=node.field != "adapter", is_used=is_used)
        choices = frozenset(f.CHOICES.get(node.field, ()))
        if choices:  # "not" over a short list is the rest of the list
            others = [n for n, text in self._words.items() if text in choices and n not in set(found)]
            return self._words_lead(column, others)
        if not found:
            return "1", [], None
        return f"(interaction.{column} IS NULL OR interaction.{column} NOT IN ({_listed(found)}))", [], None

    def _finding(self, node: f.Match | f.Contains) -> tuple[str, list[Any], Lead | None]:
        self._words.refresh()
        found = self._word_ids(node)
        if not found:
            return "0", [], None
        of_code = f"finding.code_w IN ({_listed(found)})"
        listed = f"SELECT finding.interaction FROM finding WHERE {of_code}"
        test = f"EXISTS (SELECT 1 FROM finding WHERE finding.interaction = interaction.id AND {of_code})"
        if len(found) == 1:  # the index has them in the order of ids; of several findings of one code the first counts
            same = f"f.code_w = {found[0]} AND f.interaction = finding.interaction"
            led = f"finding.code_w = {found[0]} AND finding.interaction IS NOT NULL AND finding.id ="
            led += f" (SELECT min(f.id) FROM finding AS f WHERE {same})"
            return test, [], Lead(((led, ()),), is_finding=True)
        return test, [], Lead(((f"interaction.id IN ({listed})", ()),), is_listed=True)

    def _word_ids(self, node: f.Match | f.Contains) -> list[int]:
        """Ids of the words a field may hold to be meant."""
        if node.field in f.TREE_FIELDS:
            parameters: list[Any] = []
            devices = devices_with(node, parameters)
            return [number for (number,) in self._run(f"SELECT id FROM word WHERE text IN ({devices})", parameters)]
        if isinstance(node, f.Contains):
            return [number for number, text in self._words.items() if f.text_matches(node, text)]
        return (self._words.that_begin if node.is_prefix else self._words.that_are)(node.value)

    def _words_lead(
        self, column: str, found: list[int], *, can_lead: bool = True, is_used: bool = False
    ) -> tuple[str, list[Any], Lead | None]:
        if can_lead and not is_used and len(found) > MAX_WORDS:
            found = sorted({number for (number,) in self._run(_USED.format(column=column), ())}.intersection(found))
        if not found:
            return "0", [], None
        lead = None
        if can_lead and len(found) <= MAX_WORDS:
            # A word of another field may be among them; an index range without entries costs nothing.
            lead = Lead(tuple((f"interaction.{column} = {number}", ()) for number in found))
        elif can_lead:  # one branch for all of them: SQLite leaves each word's range where the newest page is full
            lead = Lead(((f"interaction.{column} IN ({_listed(found)})", ()),), is_listed=True)
        return f"+interaction.{column} IN ({_listed(found)})", [], lead

    def _rarest(self, leads: list[Lead], plan: Conjunction) -> Lead:
        """The lead with the fewest entries, or else the one whose newest entries reach back furthest."""
        if len(leads) == 1:
            return leads[0]
        best, best_score = leads[0], (2, 0.0)
        for lead in leads:
            score = self._score(lead, plan)
            if score < best_score:
                best, best_score = lead, score
            if not score[0]:
                break
        return best

    def _score(self, lead: Lead, plan: Conjunction) -> tuple[int, float]:
        total, reach = 0, 0.0
        for branch in lead.branches:
            sql, parameters = source(lead, branch, plan, "count(*), min(id)", PROBE)
            ((count, oldest),) = self._run(sql, parameters)
            if count >= PROBE:
                reach = max(reach, float(oldest))
            total += count
        return (1, reach) if reach else (0, float(total))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def source(
    lead: Lead, branch: tuple[str, tuple[Any, ...]], plan: Conjunction, what: str, limit: int
) -> tuple[str, list[Any]]:
    """An aggregate over the newest ``limit`` entries of one index range, without looking at the rows."""
    test, values = branch
    parameters = list(values)
    table, key = lead.table, lead.key
    tests = [test]
    if plan.low is not None:
        tests.append(f"{key} >= ?")
        parameters.append(plan.low)
    if plan.high is not None:
        tests.append(f"{key} < ?")
        parameters.append(plan.high)
    inner = f"SELECT {key} AS id FROM {table} WHERE {' AND '.join(tests)} ORDER BY {key} DESC LIMIT {limit}"
    return f"SELECT {what} FROM ({inner})", parameters


def select(
    plan: Sequence[Conjunction],
    columns: str,
    *,
    after: int | None = None,
    before: int | None = None,
    descending: bool = True,
    limit: int | None = None,
    offset: int = 0,
) -> tuple[str, list[Any]] | None:
    """The query for matching rows in the order of ids; None when nothing can match.

    Args:
        columns: of table ``interaction``; ``id`` must be the first where there is more than one branch.
        after, before: bounds of the id, both excluded.
    """
    branches: list[tuple[str, list[Any]]] = []
    for part in plan:
        leads: tuple[tuple[str, tuple[Any, ...]], ...] = part.lead.branches if part.lead is not None else (("", ()),)
        branches += [_branch(part, lead, after, before) for lead in leads]
    if not branches:
        return None
    order = "DESC" if descending else "ASC"
    tail = "" if limit is None else f" LIMIT {limit}" + (f" OFFSET {offset}" if offset else "")
    if len(branches) == 1:
        source_sql, parameters = branches[0]
        key = _key(plan[0])
        return f"SELECT {columns} FROM {source_sql} ORDER BY {key} {order}{tail}", parameters
    inner: list[str] = []
    values: list[Any] = []
    cut = "" if limit is None else f" LIMIT {limit + offset}"
    at = 0
    for part in plan:
        for _ in part.lead.branches if part.lead is not None else (None,):
            source_sql, parameters = branches[at]
            at += 1
            ids = f"SELECT interaction.id AS id FROM {source_sql} ORDER BY {_key(part)} {order}{cut}"
            inner.append(f"SELECT * FROM ({ids})")
            values += parameters
    joined = " UNION ".join(inner)
    if columns == "interaction.id":
        return f"SELECT id FROM ({joined}) ORDER BY id {order}{tail}", values
    wanted = f"SELECT id FROM ({joined}) ORDER BY id {order}{tail}"
    return (
        f"SELECT {columns} FROM interaction WHERE interaction.id IN ({wanted}) ORDER BY interaction.id {order}",
        values,
    )


def _key(part: Conjunction) -> str:
    return part.lead.key if part.lead is not None else "interaction.id"


def _branch(
    part: Conjunction, lead: tuple[str, tuple[Any, ...]], after: int | None, before: int | None
) -> tuple[str, list[Any]]:
    """Tables and conditions of one branch."""
    key = _key(part)
    parameters: list[Any] = []
    tests: list[str] = []
    if lead[0]:
        tests.append(lead[0])
        parameters += lead[1]
    low = max((n for n in (part.low, None if after is None else after + 1) if n is not None), default=None)
    high = min((n for n in (part.high, before) if n is not None), default=None)
    if low is not None:
        tests.append(f"{key} >= ?")
        parameters.append(low)
    if high is not None:
        tests.append(f"{key} < ?")
        parameters.append(high)
    tests += part.rest
    parameters += part.parameters
    table = "interaction"
    if part.lead is not None and key != "interaction.id":
        table = f"{part.lead.table} CROSS JOIN interaction ON interaction.id = {key}"
    where = f" WHERE {' AND '.join(tests)}" if tests else ""
    return table + where, parameters


def interrupted(error: sqlite3.Error) -> bool:
    """Whether ``error`` is the end of a query that was cancelled."""
    return getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT"
