"""Keep the translations of the window: find the texts, hand them out, take them back, compile them.

``python packaging/translations.py update|pieces|merge|check``; ``--help`` says what each does.

Texts of ``ui`` are found by walking its syntax trees: ``self.tr``, ``translate``, ``QCoreApplication.translate`` and
``QT_TRANSLATE_NOOP``. Titles and sentences that ``app`` declares for people (commands, parameters, quantities, the
wizard's cards, flows) go into the context ``Model``. What cannot be found this way (an f-string, a sum of texts, a
variable) is a defect and ends the run.

Exit status: 0 done, 1 something is wrong or refused, 2 wrong use.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import hashlib
import importlib
import json
import re
import string
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "resources" / "translations"
SOURCE: Final = "en"  # its file has the plural forms only
LANGUAGES: Final[Mapping[str, int]] = {SOURCE: 2, "de": 2, "fr": 2, "tr": 1}  # and Qt's number of plural forms
MODEL: Final = "Model"
PIECE: Final = 250  # entries
_CALLS: Final = frozenset(("translate", "QT_TRANSLATE_NOOP"))
_MODULES: Final = frozenset(("QCoreApplication", "QApplication"))
_ENDS: Final = ".…:?!,;"
_KEPT: Final = {"tags": r"</?[a-z]+[^<>]*>", "file patterns": r"\*\.\w+", "tabs": r"\t", "doubled &&": "&&"}


class Trouble(Exception):
    """What a person must mend; the text is one or more sentences."""


@dataclass(frozen=True, slots=True)
class Key:
    """What makes a text one of its own: the context and the English text, as Qt looks it up."""

    context: str
    source: str

    @property
    def id(self) -> str:
        return hashlib.sha256(f"{self.context}\0{self.source}".encode()).hexdigest()[:12]


@dataclass(slots=True)
class Text:
    """One text that was found; ``files`` are relative to the repository, ``hint`` tells a translator more."""

    key: Key
    is_plural: bool = False
    files: list[str] = field(default_factory=list)
    hint: str = ""


Texts = dict[Key, Text]  # in the order of the sources
Forms = tuple[str, ...]  # a translation: one form, or as many as the language has plurals


# --- finding ----------------------------------------------------------------------------------------------------------


def texts_of_module(code: str, file: str) -> tuple[list[Text], list[str]]:
    """Return what one module of ``ui`` shows, and its defects as "file:line: sentence"."""
    walk = _Walk(file)
    try:
        walk.visit(ast.parse(code, file))
    except SyntaxError as exc:
        return [], [f"{file}:{exc.lineno}: {exc.msg}"]
    return walk.found, walk.faults


class _Walk(ast.NodeVisitor):
    """Collects the texts of one module; knows the class and the annotated parameters it is in."""

    def __init__(self, file: str) -> None:
        self.found: list[Text] = []
        self.faults: list[str] = []
        self._file = file
        self._classes: list[ast.ClassDef] = []
        self._functions: list[tuple[dict[str, str], ast.AST]] = []  # those that are open: parameter -> class, the body

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._classes.append(node)
        self.generic_visit(node)
        self._classes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._functions.append((_parameter_types(node), node))
        self.generic_visit(node)
        self._functions.pop()

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._functions.append((_parameter_types(node), node))
        self.generic_visit(node)
        self._functions.pop()

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func
        if isinstance(called, ast.Attribute) and called.attr == "tr":
            self._tr(node, called.value)
        elif (isinstance(called, ast.Name) and called.id in _CALLS) or (
            isinstance(called, ast.Attribute)
            and called.attr in _CALLS
            and isinstance(called.value, ast.Name)
            and called.value.id in _MODULES
        ):
            self._translate(node, called.id if isinstance(called, ast.Name) else called.attr)
        self.generic_visit(node)

    def _tr(self, node: ast.Call, of: ast.expr) -> None:
        context = self._class_of(of)
        if not context:
            self._fault(node, f"the context of {ast.unparse(node.func)} is not known; use translate(...)")
        elif not node.args or (source := _constant(node.args[0])) is None:
            self._fault(node, "tr() takes one text that is written out: no f-string, no sum, no variable")
        else:
            self._add(node, context, source, node.args[1:])

    def _translate(self, node: ast.Call, name: str) -> None:
        context = _constant(node.args[0]) if node.args else None
        source = _constant(node.args[1]) if len(node.args) > 1 else None
        if context is not None and source is not None:
            self._add(node, context, source, node.args[2:])
        elif source is not None or len(node.args) < 2:
            self._fault(node, f"{name}() takes a context that is written out, and a text")
        elif name != "translate" or any(
            isinstance(part, ast.JoinedStr | ast.BinOp) or (isinstance(part, ast.Attribute) and part.attr == "format")
            for part in ast.walk(node.args[1])
        ):
            self._fault(node, f"{name}() takes a text that is written out, or one that stands in QT_TRANSLATE_NOOP")

    def _add(self, node: ast.Call, context: str, source: str, more: Sequence[ast.expr]) -> None:
        if more and _constant(more[0]) != "":
            self._fault(node, "a comment that tells equal texts apart is not supported; use another context")
        elif source.strip():
            self.found.append(Text(Key(context, source), len(more) > 1, [self._file]))

    def _class_of(self, of: ast.expr) -> str:
        """The class whose name Qt takes as the context: of ``self``, of a parameter, of ``self.x = parameter``."""
        if isinstance(of, ast.Name):
            if of.id == "self":
                return self._classes[-1].name if self._classes else ""
            for types, function in reversed(self._functions):
                if of.id in types:
                    return types[of.id]
                for line in (one for one in ast.walk(function) if isinstance(one, ast.Assign)):
                    if isinstance(line.value, ast.Attribute) and any(ast.unparse(to) == of.id for to in line.targets):
                        return self._class_of(line.value)
            return ""
        if not (self._classes and isinstance(of, ast.Attribute) and ast.unparse(of.value) == "self"):
            return ""
        for function in (one for one in ast.walk(self._classes[-1]) if isinstance(one, ast.FunctionDef)):
            types = _parameter_types(function)
            for line in (one for one in ast.walk(function) if isinstance(one, ast.Assign)):
                if isinstance(line.value, ast.Name) and ast.unparse(of) in map(ast.unparse, line.targets):
                    return types.get(line.value.id, "")
        return ""

    def _fault(self, node: ast.AST, text: str) -> None:
        self.faults.append(f"{self._file}:{getattr(node, 'lineno', 0)}: {text}")


def _parameter_types(node: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, str]:
    """Parameters that are annotated with a plain class name, also a quoted one."""
    found = {}
    for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
        name = _constant(one.annotation) if one.annotation is not None else None
        if name is None and isinstance(one.annotation, ast.Name):
            name = one.annotation.id
        if name is not None and name.isidentifier():
            found[one.arg] = name
    return found


def _constant(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def texts_of_model(root: Path) -> Iterator[Text]:
    """Yield the titles and sentences that ``app`` declares for people, in the order of its modules."""
    from app.adapters.registry import BUILT_IN, Registry
    from app.flow_files import load_flows
    from app.interaction_log import pseudonyms, share
    from app.protocols.obis import CODES, Kind

    for package in ("adapters", "protocols", "finding", "pipeline"):
        for path in sorted((root / "app" / package).glob("*.py")):
            name = ".".join(("app", package, path.stem)).removesuffix(".__init__")
            yield from _of_model(vars(importlib.import_module(name)), path.relative_to(root).as_posix())
    for key, kind in Registry(BUILT_IN).items():
        yield _text_of_model(kind.title, "system", f"adapter {key}")
        yield _text_of_model(kind.summary, "what a system is", f"adapter {key}")
        yield from _of_model(_all_of_adapter(kind), f"adapter {key}")
        for reason in sorted(_refusals_of_adapter(kind)):
            yield _text_of_model(reason, "why a device does not have a command", f"adapter {key}")
        for name in sorted(_names_of_adapter(kind)):  # as ui/model_words.py makes them into words
            yield _text_of_model(name.replace("_", " ").capitalize(), "command, by its name", f"adapter {key}")
    usual = (Kind.ENERGY, Kind.POWER, Kind.VOLTAGE, Kind.CURRENT, Kind.FREQUENCY, Kind.POWER_FACTOR)
    for meaning in CODES.values():  # of demands the sums only; tariffs are counted by ui/model_words.py
        is_of_line = re.search(r" L[123]| quadrant |absolute|, tariff ", meaning.title) is not None
        if not is_of_line or (meaning.kind in usual and ", tariff " not in meaning.title):
            yield _text_of_model(meaning.title, "quantity", "app/protocols/obis.py")
    yield from _of_model(load_flows().flows, "resources/flows")
    for title in share.TITLES.values():
        yield _text_of_model(title, "form of a file", "app/interaction_log/share.py")
    for title in pseudonyms.TITLES.values():
        yield _text_of_model(title, "what may be hidden in a file that is shared", "app/interaction_log/pseudonyms.py")


#: What is declared for people: by the name of its class (in one of _DECLARING) the fields that are shown.
_SHOWN: Final[Mapping[str, tuple[str, ...]]] = {
    "CommandSpec": ("title", "verb", "help", "warning"),
    "ParamSpec": ("title", "help"),
    "Quantity": ("title",),
    "Kind": ("title", "text"),
    "FlowSpec": ("title", "text"),
    "StepSpec": ("title", "text"),
    "Question": ("text",),
    "Expectation": ("title",),
    "Evidence": ("title",),
}
_DECLARING: Final = frozenset(("app.model.command", "app.model.reading", "app.model.flow_spec", "app.finding.kinds"))


def _of_model(root: Any, file: str) -> Iterator[Text]:
    """Yield what is shown of the declarations inside ``root``, whatever collections they stand in."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, str | bytes | type):
            continue
        seen.add(id(one))
        what = type(one).__name__ if type(one).__module__ in _DECLARING else ""
        for name in _SHOWN.get(what, ()):
            yield _text_of_model(getattr(one, name), f"{what}.{name}", file)
        if what == "ParamSpec":
            for value, title in one.choices:
                if title != str(value):
                    yield _text_of_model(title, f"choice of {one.title}", file)
        if isinstance(one, Mapping):
            waiting += reversed(list(one.values()))
        elif isinstance(one, tuple | list):
            waiting += reversed(one)
        elif dataclasses.is_dataclass(one):
            waiting += [getattr(one, part.name, None) for part in reversed(dataclasses.fields(one))]


def _devices_of_adapter(kind: Any) -> list[Any]:
    """A device of every sort that an adapter type can have: of each node, one for each choice of its form."""
    from app.model.device import Device, NodeKind

    form = kind.form()
    plain = {spec.name: spec.default for spec in form if spec.default is not None}
    sorts = [plain, *({**plain, spec.name: value} for spec in form for value, _title in spec.choices)]
    return [
        Device(id=f"{node}-{number}", name="", kind=node, adapter=kind.key, settings=settings)
        for node in NodeKind
        for number, settings in enumerate(sorts)
    ]


def _all_of_adapter(kind: Any) -> list[Any]:
    """Forms and commands of an adapter type."""
    from app.errors import WorkbenchError
    from app.model.device import NodeKind

    found: list[Any] = [kind.form()]
    if hasattr(kind, "attribute_form"):
        found += [kind.attribute_form(node) for node in NodeKind]
    for device in _devices_of_adapter(kind):
        with contextlib.suppress(WorkbenchError):  # of a sort that cannot be
            found.append(kind.commands(device, {}))
    return found


def _refusals_of_adapter(kind: Any) -> set[str]:
    """Why devices of an adapter type do not have commands, in sentences."""
    from app.errors import WorkbenchError

    found: set[str] = set()
    for device in _devices_of_adapter(kind):
        with contextlib.suppress(WorkbenchError):
            found |= set(kind.unsupported(device, {}).values())
    return found


def _names_of_adapter(kind: Any) -> set[str]:
    """Names of the commands that devices of an adapter type have, and of those that they lack."""
    from app.errors import WorkbenchError

    found: set[str] = set()
    for device in _devices_of_adapter(kind):
        with contextlib.suppress(WorkbenchError):
            found |= {spec.name for spec in kind.commands(device, {})} | set(kind.unsupported(device, {}))
    return found


def _text_of_model(text: str, what: str, file: str) -> Text:
    return Text(Key(MODEL, text), files=[file], hint=what)


def collect(root: Path = ROOT) -> Texts:
    """Return every text of the window and of the model.

    Raises:
        Trouble: something is shown in a way that cannot be found, with every place.
    """
    texts: Texts = {}
    faults: list[str] = []
    for path in sorted((root / "ui").rglob("*.py")):
        file = path.relative_to(root).as_posix()
        found, wrong = texts_of_module(path.read_text("utf-8"), file)
        faults += wrong
        for one in found:
            known = texts.setdefault(one.key, one)
            if known.is_plural != one.is_plural:
                faults.append(f"{file}: {one.key.source!r} is used with and without a number")
            if file not in known.files:
                known.files.append(file)
    if faults:
        raise Trouble("\n".join(faults))
    for one in texts_of_model(root):
        if re.search("[A-Za-z]{2}", one.key.source):
            texts.setdefault(one.key, one)
    return texts


# --- the files of Qt --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a .ts file. ``forms`` is empty while nobody has translated it."""

    forms: Forms
    is_plural: bool
    is_vanished: bool  # no longer in the sources; kept, for it may come back


def ts_path(language: str) -> Path:
    return FOLDER / f"meterwright_{language}.ts"


def read_ts(path: Path) -> dict[Key, Entry]:
    """Read a .ts file; one that does not exist is empty."""
    if not path.exists():
        return {}
    found = {}
    for context in ET.parse(path).getroot().iter("context"):
        for message in context.iter("message"):
            key = Key(context.findtext("name", ""), message.findtext("source", ""))
            translation = message.find("translation")
            assert translation is not None
            is_plural = message.get("numerus") == "yes"
            forms = (
                tuple(one.text or "" for one in translation.iter("numerusform"))
                if is_plural
                else (translation.text or "",)
            )
            found[key] = Entry(forms if all(forms) else (), is_plural, translation.get("type") == "vanished")
    return found


def ts_text(language: str, texts: Texts, entries: Mapping[Key, Entry]) -> str:
    """Write a .ts file in Qt's own layout, in an order that does not hang on lines and files."""
    gone = {key: one for key, one in entries.items() if key not in texts and one.forms}
    keys = sorted({*texts, *gone}, key=lambda key: (key.context, key.source))
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<!DOCTYPE TS>"]
    lines.append(f'<TS version="2.1" language="{language}" sourcelanguage="{SOURCE}">')
    context = None
    for key in keys:
        if key.context != context:
            if context is not None:
                lines.append("</context>")
            context = key.context
            lines += ["<context>", f"    <name>{escape(context)}</name>"]
        entry = entries.get(key)
        text = texts.get(key)
        is_plural = text.is_plural if text is not None else gone[key].is_plural
        forms = entry.forms if entry is not None and entry.is_plural == is_plural else ()
        kind = ' type="vanished"' if text is None else "" if forms else ' type="unfinished"'
        lines.append('    <message numerus="yes">' if is_plural else "    <message>")
        lines += [f'        <location filename="../../{file}"/>' for file in (text.files if text is not None else ())]
        lines.append(f"        <source>{_xml(key.source)}</source>")
        if is_plural:
            shown = forms or ("",) * LANGUAGES[language]
            lines.append(f"        <translation{kind}>")
            lines += [f"            <numerusform>{_xml(form)}</numerusform>" for form in shown]
            lines.append("        </translation>")
        else:
            lines.append(f"        <translation{kind}>{_xml(forms[0]) if forms else ''}</translation>")
        lines.append("    </message>")
    if context is not None:
        lines.append("</context>")
    return "\n".join([*lines, "</TS>", ""])


def _xml(text: str) -> str:
    return escape(text, {"'": "&apos;", '"': "&quot;"})


def texts_for(language: str, texts: Texts) -> Texts:
    """What a language's file holds: all, and of English the plurals only."""
    return texts if language != SOURCE else {key: one for key, one in texts.items() if one.is_plural}


def compile_ts(language: str) -> None:
    """Write the .qm file beside the .ts file with Qt's own lrelease.

    Raises:
        Trouble: lrelease does not run here, or refuses the file.
    """
    import PySide6

    source = ts_path(language)
    fresh = source.with_suffix(".qm.new")  # a window that is open has the old one mapped into its memory
    program = Path(PySide6.__file__).parent / ("lrelease.exe" if sys.platform == "win32" else "lrelease")
    try:
        done = subprocess.run(
            [str(program), "-silent", str(source), "-qm", str(fresh)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Trouble(f"Qt's lrelease does not run ({exc}); {program} comes with PySide6-Essentials.") from exc
    if done.returncode != 0:
        raise Trouble(f"Qt's lrelease refused {source.name}: {done.stderr.decode('utf-8', 'replace').strip()}")
    fresh.replace(source.with_suffix(".qm"))


# --- the work of translators ------------------------------------------------------------------------------------------


def fields_of(text: str) -> Counter[str]:
    """Count the fields of ``str.format`` with their conversions; those without a name count by their order.

    Raises:
        ValueError: braces that do not match.
    """
    fields: Counter[str] = Counter()
    for _literal, name, spec, conversion in string.Formatter().parse(text):
        if name is not None:
            shown = name or f"#{sum(count for key, count in fields.items() if key.startswith('#'))}"
            fields[shown + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")] += 1
    return fields


def mnemonics(text: str) -> int:
    """Count the letters that are marked with & (a doubled one is a sign, and so is an HTML entity)."""
    return len(re.findall(r"&(?=\w)", re.sub(r"&#?\w+;", "", text.replace("&&", ""))))


def faults_of(source: str, translation: str, *, is_plural: bool = False) -> list[str]:
    """Say in words what is wrong with a translation; nothing when it may be shown instead of the source."""
    faults = []
    with contextlib.suppress(ValueError):  # braces that no .format() ever sees
        wanted = fields_of(source)
        try:
            found = fields_of(translation)
        except ValueError as exc:
            faults.append(f"its braces do not match ({exc})")
        else:
            faults += [f"{{{name}}} is missing" for name in sorted(set(wanted) - set(found))]
            faults += [f"{{{name}}} is not in the source" for name in sorted(set(found) - set(wanted))]
    places, present = (set(re.findall(r"%(?:L?\d+|n)", text)) for text in (source, translation))
    if is_plural:
        places.discard("%n")
        present.discard("%n")
    faults += [f"{place} is missing" for place in sorted(places - present)]
    faults += [f"{place} is not in the source" for place in sorted(present - places)]
    if mnemonics(source) != mnemonics(translation):
        faults.append(f"it needs {mnemonics(source)} letter(s) marked with &, and has {mnemonics(translation)}")
    for what, pattern in _KEPT.items():
        if sorted(re.findall(pattern, source)) != sorted(re.findall(pattern, translation)):
            faults.append(f"its {what} differ from those of the source")
    for what, part in (("begins", r"^\s*"), ("ends", r"\s*$")):
        want, have = (re.search(part, text) for text in (source, translation))
        if want is not None and have is not None and want.group() != have.group():
            faults.append(f"it {what} with {have.group()!r} where the source has {want.group()!r}")
    want_end, have_end = (text.rstrip()[-1:] for text in (source, translation))
    if want_end != have_end and (want_end in _ENDS or have_end in _ENDS) and want_end:
        faults.append(f"it ends with {have_end!r} where the source ends with {want_end!r}")
    if "..." in source and "..." not in translation:
        faults.append("the three dots are missing")
    return faults


def write_pieces(folder: Path, language: str, texts: Texts, size: int = PIECE) -> list[Path]:
    """Write what is neither translated nor in a piece yet as new pieces; pieces that are there stay as they are.

    A text of several contexts is asked for once: ``also`` names the other ones, which get the same words unless
    ``other`` ({"context": "words"}) says otherwise. Words that another context has already stand there to be checked.
    """
    entries = read_ts(ts_path(language))
    folder.mkdir(parents=True, exist_ok=True)
    pieces = sorted(folder.glob("[0-9][0-9].json"))
    known: set[tuple[str, str]] = set()
    for path in pieces:
        for done in _rows(path):
            known |= {(name, done["source"]) for name in (done["context"], *done.get("also", ()))}
    said = {(key.source, one.is_plural): one.forms for key, one in entries.items() if one.forms}  # in some context
    rows: dict[tuple[str, bool], dict[str, Any]] = {}
    for key, text in texts_for(language, texts).items():
        entry = entries.get(key)
        if (entry is not None and entry.forms) or (key.context, key.source) in known:
            continue
        same = key.source, text.is_plural
        if same in rows:
            rows[same].setdefault("also", []).append(key.context)
            continue
        row: dict[str, Any] = {"id": key.id, "context": key.context, "where": ", ".join(text.files)}
        if text.hint:
            row["hint"] = text.hint
        row["source"] = key.source
        forms = said.get(same) or ("",) * (LANGUAGES[language] if text.is_plural else 1)
        row["translation"] = list(forms) if text.is_plural else forms[0]
        rows[same] = row
    wanted = list(rows.values())
    first = int(pieces[-1].stem) + 1 if pieces else 1
    written = []
    for number, start in enumerate(range(0, len(wanted), size), first):
        path = folder / f"{number:02d}.json"
        path.write_text(json.dumps(wanted[start : start + size], ensure_ascii=False, indent=1) + "\n", "utf-8")
        written.append(path)
    return written


def _rows(path: Path) -> list[dict[str, Any]]:
    """Read one piece.

    Raises:
        Trouble: it is no JSON, or not a list of entries; it says where.
    """
    try:
        rows = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise Trouble(f"{path.name} cannot be read: {exc}") from exc
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and all(isinstance(row.get(name), str) for name in ("id", "context", "source"))
        for row in rows
    ):
        raise Trouble(f"{path.name} is not a list of entries with id, context and source")
    return rows


@dataclass(slots=True)
class Merged:
    """What became of the pieces: words that were taken, entries that are empty, what was refused and why."""

    taken: dict[Key, Forms] = field(default_factory=dict)
    empty: int = 0
    gone: int = 0
    refused: list[str] = field(default_factory=list)


def merge(language: str, paths: Iterable[Path], texts: Texts) -> Merged:
    """Check what translators wrote against the texts of the program."""
    merged = Merged()
    for path in paths:
        try:
            rows = _rows(path)
        except Trouble as exc:
            merged.refused.append(str(exc))
            continue
        for row in rows:
            _merge_row(language, row, path.name, texts, merged)
    return merged


def _merge_row(language: str, row: Mapping[str, Any], file: str, texts: Texts, merged: Merged) -> None:
    given = row.get("translation", "")
    forms = tuple(given) if isinstance(given, list) else (given,)
    where = f"{file} {row['id']} {row['source'][:60]!r}"
    other = row.get("other", {})
    if not all(isinstance(form, str) for form in forms) or not isinstance(other, dict):
        merged.refused.append(f"{where}: a translation is a text, or a list of texts for a plural")
        return
    if not any(forms):
        merged.empty += 1
        return
    if Key(row["context"], row["source"]).id != row["id"]:
        merged.refused.append(f"{where}: context or source were changed; change the translation only")
        return
    for context in (row["context"], *row.get("also", ())):
        text = texts.get(Key(context, row["source"]))
        if text is None:
            merged.gone += 1
            continue
        words = (str(other[context]),) if context in other else forms
        wanted = LANGUAGES[language] if text.is_plural else 1
        faults = [fault for form in words for fault in faults_of(row["source"], form, is_plural=text.is_plural)]
        if len(words) != wanted:
            faults.append(f"{language} has {wanted} form(s), {len(words)} are given")
        elif text.is_plural and "%n" in row["source"] and "%n" not in words[-1]:
            faults.append("%n is missing in the last form")
        if faults:
            merged.refused.append(f"{where}: {'; '.join(dict.fromkeys(faults))}")
        else:
            merged.taken[text.key] = words


# --- verbs ------------------------------------------------------------------------------------------------------------


def write(language: str, texts: Texts, taken: Mapping[Key, Forms] | None = None) -> int:
    """Write .ts and .qm of a language; return how many texts are not translated."""
    own = texts_for(language, texts)
    entries = read_ts(ts_path(language))
    for key, forms in (taken or {}).items():
        entries[key] = Entry(forms, own[key].is_plural, False)
    FOLDER.mkdir(parents=True, exist_ok=True)
    fresh = ts_path(language).with_suffix(".ts.new")
    fresh.write_text(ts_text(language, own, entries), "utf-8", newline="\n")
    fresh.replace(ts_path(language))
    compile_ts(language)
    return sum(1 for key in own if key not in entries or not entries[key].forms)


def verb_update(options: argparse.Namespace) -> int:
    """Bring the .ts files up to the sources, and the .qm files up to them."""
    texts = collect()
    for language in options.languages or LANGUAGES:
        left = write(language, texts)
        print(f"{language}: {len(texts_for(language, texts))} texts, {left} not translated")
    return 0


def verb_pieces(options: argparse.Namespace) -> int:
    """Write what is to be translated as new pieces FOLDER/LANGUAGE/NN.json."""
    texts = collect()
    for language in options.languages or [name for name in LANGUAGES if name != SOURCE]:
        written = write_pieces(options.folder / language, language, texts)
        print(f"{language}: {', '.join(path.name for path in written) or 'nothing new'}")
    return 0


def verb_merge(options: argparse.Namespace) -> int:
    """Take over the pieces of a folder that are filled; refused entries are named and change nothing."""
    texts = texts_for(options.language, collect())
    paths = sorted(options.folder.glob("*.json"))
    if not paths:
        raise Trouble(f"There are no pieces (*.json) in {options.folder}.")
    merged = merge(options.language, paths, texts)
    left = write(options.language, texts, merged.taken)
    for fault in merged.refused:
        print(fault)
    print(
        f"{options.language}: {len(merged.taken)} taken, {merged.empty} empty, {len(merged.refused)} refused, "
        f"{merged.gone} no longer in the program; {left} of {len(texts)} not translated"
    )
    return 1 if merged.refused else 0


def verb_check(options: argparse.Namespace) -> int:
    """Say whether the .ts files are up to the sources, and how much is translated."""
    texts = collect()
    status = 0
    for language in options.languages or LANGUAGES:
        own = texts_for(language, texts)
        entries = read_ts(ts_path(language))
        if ts_path(language).exists() and ts_path(language).read_text("utf-8") == ts_text(language, own, entries):
            left = sum(1 for key in own if not entries[key].forms)
            print(f"{language}: {len(own)} texts, {left} not translated")
            status = 1 if left and options.complete else status
        else:
            print(f"{language}: {ts_path(language).name} is not up to the sources; run update")
            status = 1
    return status


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="translations.py", description="Keep the translations of the window.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="update|pieces|merge|check")
    for name, verb in VERBS.items():
        one = verbs.add_parser(name, help=verb.__doc__, description=verb.__doc__)
        if name == "merge":
            one.add_argument("language", choices=sorted(LANGUAGES))
            one.add_argument("folder", type=Path)
            continue
        if name == "pieces":
            one.add_argument("folder", type=Path)
        if name == "check":
            one.add_argument("--complete", action="store_true", help="fail while something is not translated")
        one.add_argument("languages", nargs="*", help="default: all")
    return top


VERBS: Final = {"update": verb_update, "pieces": verb_pieces, "merge": verb_merge, "check": verb_check}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    options = parser().parse_args(arguments)
    if unknown := set(getattr(options, "languages", ())) - set(LANGUAGES):
        print(f"There is no language {', '.join(sorted(unknown))}; there are {', '.join(LANGUAGES)}.")
        return 2
    try:
        return VERBS[options.verb](options)
    except Trouble as exc:
        print(exc)
        return 1


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
