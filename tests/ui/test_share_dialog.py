"""Sharing a part of a log, and a support bundle: what goes in, what is shown of it, what is written, what is left."""

from __future__ import annotations

import re
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QSize, Qt, QUrl
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from app.config import Profile
from app.doctor import Check
from app.errors import StoreError
from app.interaction_log import share
from app.interaction_log.pseudonyms import Kind
from app.interaction_log.reader import LogReader
from app.interaction_log.share import Form
from app.ports import Snapshot
from app.secrets import SessionSecrets
from tests.ui.log_fakes import until
from tests.unit.interaction_log.logs import START
from tests.unit.interaction_log.planted import CUSTOMER, HOST, MAIL, OWNER, SECRETS, SERIAL, SITE, betrayals, plant
from ui.dialogs import share as share_dialog
from ui.dialogs.lab import Errand
from ui.dialogs.share import HIDDEN, ShareDialog, What, kind_word
from ui.theme import Theme, ThemeMode
from ui.widgets.chart.curve import to_us

COUNT = 4
WIDE = QSize(1080, 640)
NOTE = "Passwords and other secrets are hidden in any case."


class Gated(LogReader):
    """Waits with the devices, which are read before anything else, until it is let through."""

    came: threading.Event
    go_on: threading.Event

    def snapshot(self) -> Snapshot:
        self.came.set()
        assert self.go_on.wait(30)
        return super().snapshot()


def gated() -> type[Gated]:
    """A reader of its own gate, closed."""

    class Mine(Gated):
        came = threading.Event()
        go_on = threading.Event()

    return Mine


@pytest.fixture(autouse=True)
def _no_wait_for_typing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share_dialog, "TYPING_MS", 1)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planted") / "bench.mwk"
    plant(path, COUNT)
    return path


@pytest.fixture
def workspace(planted: Path, tmp_path: Path) -> Path:
    path = tmp_path / "work" / "bench.mwk"
    path.parent.mkdir()
    shutil.copy(planted, path)
    return path


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    made = Profile(tmp_path / "config", tmp_path / "data", tmp_path / "logs").make()
    (made.logs / "meterwright.log").write_text(f"connected to {HOST} with {SECRETS[0]}\n", "utf-8")
    return made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode.LIGHT)


def doctor() -> Sequence[Check]:
    return [Check("clock", "ok", f"The clock of {HOST} is right.")]


def keyring() -> SessionSecrets:
    secrets = SessionSecrets()
    secrets.set("lem-7.password", SECRETS[0])
    return secrets


Make = Callable[..., ShareDialog]


@pytest.fixture
def make(qtbot: QtBot, theme: Theme, workspace: Path, profile: Profile, out: Path) -> Iterator[Make]:
    """A shown dialog; what its threads hold ends with the test."""

    def show(path: Path | None = workspace, wanted: str = "", *, look: Theme = theme, **more: Any) -> ShareDialog:
        settings: dict[str, Any] = {"words": SECRETS[1:], "profile": profile, "folder": out, "checks": doctor}
        settings |= {"open_url": lambda _url: True} | more
        dialog = ShareDialog(look, path, wanted, keyring(), **settings)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
        qtbot.addWidget(dialog)
        dialog.show()
        return dialog

    yield show
    qtbot.waitUntil(until(lambda: not Errand.under_way), timeout=20_000)


def looked(qtbot: QtBot, dialog: ShareDialog) -> None:
    qtbot.waitUntil(until(lambda: dialog._looked is not None), timeout=20_000)


def written(qtbot: QtBot, dialog: ShareDialog) -> Path:
    with qtbot.waitSignal(dialog.taken, timeout=20_000) as taken:
        qtbot.mouseClick(dialog.go, Qt.MouseButton.LeftButton)  # type: ignore[no-untyped-call]
    assert taken.args is not None
    path = taken.args[0]
    assert isinstance(path, Path)
    return path


def rows(dialog: ShareDialog) -> dict[str, tuple[str, ...]]:
    return {row[1]: row for row in dialog.replaced.model.rows()}


# ---------------------------------------------------------------- a part of the log


def test_what_was_seen_is_what_is_written(make: Make, qtbot: QtBot, out: Path) -> None:
    dialog = make()
    looked(qtbot, dialog)
    assert dialog.counted.text() == f"All {COUNT} interactions."
    seen = rows(dialog)
    assert {SERIAL, OWNER, SITE, HOST, CUSTOMER, MAIL} <= seen.keys()
    assert seen[SERIAL][0] == kind_word(Kind.SERIALS)
    assert not any(secret in text for row in seen.values() for text in row for secret in SECRETS)
    file = written(qtbot, dialog)
    assert file == out / "bench, a part.mwk"
    assert [one.name for one in out.iterdir()] == [file.name]
    assert betrayals(file, *SECRETS, SERIAL, OWNER, MAIL) == []
    with closing(LogReader(file)) as reader:
        assert reader.count() == COUNT
        names = {device.name for device in reader.snapshot().devices}
        serials = {device.serial for device in reader.snapshot().devices}
    assert seen[OWNER][2] in names
    assert seen[SERIAL][2] in serials
    said = dialog.box.sentences.text()
    assert said.startswith(f"{COUNT} interactions were written to {file}. ")
    assert " attachments were left out: what stands in a picture cannot be replaced. Replaced in it: " in said
    assert dialog.look_title.text() == "What was replaced"
    assert dialog.file.raw() == str(out / "bench, a part 2.mwk"), "and the next one has another name"
    again = written(qtbot, dialog)
    with closing(LogReader(again)) as reader:
        assert not names & {device.name for device in reader.snapshot().devices}, (
            "two files cannot be laid side by side"
        )


def test_a_kind_that_is_not_replaced(make: Make, qtbot: QtBot) -> None:
    dialog = make()
    looked(qtbot, dialog)
    dialog.kinds[Kind.SERIALS].click()
    assert dialog._looked is None, "what was seen is of another choice"
    assert not rows(dialog)
    looked(qtbot, dialog)
    assert SERIAL not in rows(dialog)
    assert OWNER in rows(dialog)
    dialog.forms.setCurrentIndex(dialog.forms.findData(Form.JSONL))
    file = written(qtbot, dialog)
    assert betrayals(file, *SECRETS, OWNER) == []
    assert SERIAL in file.read_text("utf-8")


def test_without_pseudonyms_secrets_are_hidden_all_the_same(make: Make, qtbot: QtBot) -> None:
    dialog = make()
    for check in dialog.kinds.values():
        check.setChecked(False)
    looked(qtbot, dialog)
    assert dialog.replaced.empty_text() == f"Nothing would be replaced. {NOTE}"
    dialog.forms.setCurrentIndex(dialog.forms.findData(Form.HTML))
    file = written(qtbot, dialog)
    assert betrayals(file, *SECRETS) == []
    assert OWNER.split("'")[0] in file.read_text("utf-8")
    assert dialog.box.sentences.text() == f"{COUNT} interactions were written to {file}."


@pytest.mark.parametrize("form", list(Form))
def test_every_form(make: Make, qtbot: QtBot, form: Form) -> None:
    dialog = make(wanted="id:2")
    dialog.forms.setCurrentIndex(dialog.forms.findData(form))
    assert dialog.samples.isEnabled() == (form in (Form.MWK, Form.JSONL))
    dialog.samples.setChecked(True)
    file = written(qtbot, dialog)
    assert file.suffix == f".{form}"
    assert file.stat().st_size
    assert betrayals(file, *SECRETS, SERIAL, OWNER) == []
    assert ("frames" if form is Form.PCAPNG else "1 interactions") in dialog.box.sentences.text()
    if form is Form.JSONL:
        assert '"samples"' in file.read_text("utf-8")


def test_samples_of_a_time(make: Make, qtbot: QtBot) -> None:
    """Of the two that are an hour apart the first one goes along."""
    dialog = make(wanted="id:2")
    assert dialog.ranged.isHidden()
    dialog.samples.setChecked(True)
    dialog.ranged.setChecked(True)
    qtbot.waitUntil(until(lambda: dialog.since.t_us() > 0), timeout=20_000)
    assert dialog.since.t_us() <= to_us(START)
    dialog.since.set_us(to_us(START))
    dialog.until.set_us(to_us(START))
    dialog.until.edited.emit()
    assert "behind their beginning" in dialog.missing.text()
    assert not dialog.go.isEnabled()
    dialog.until.set_us(to_us(START + timedelta(minutes=30)))
    dialog.until.edited.emit()
    with closing(LogReader(written(qtbot, dialog))) as shared:
        (series,) = shared.series()
        times, values = shared.samples(series.device, "voltage")
        assert (list(values), len(times)) == ([230.0], 1)


def test_the_filter_is_counted(make: Make, qtbot: QtBot) -> None:
    dialog = make(wanted="id:2")
    qtbot.waitUntil(until(lambda: dialog.counted.text() == f"1 of {COUNT} interactions."))
    dialog.filter.setText("id:2 status:")
    assert dialog.filter.wrong_at() >= 0
    assert dialog.counted.text() == dialog._filter_fault != ""
    assert dialog.filter.accessibleDescription() == dialog.counted.text()
    assert not dialog.go.isEnabled()
    assert not dialog.look.isEnabled()
    assert dialog.missing.text() == "Still needed: a filter that can be read."
    dialog.filter.setText("id:999")
    qtbot.waitUntil(until(lambda: dialog.counted.text() == f"None of {COUNT} interactions matches."))
    assert not dialog.go.isEnabled()
    dialog.filter.clear()
    qtbot.waitUntil(until(lambda: dialog.counted.text() == f"All {COUNT} interactions."))
    assert dialog.go.isEnabled()


def test_a_large_log_is_looked_at_when_asked(make: Make, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share_dialog, "LOOKS_AT_ONCE", COUNT - 1)
    dialog = make()
    qtbot.waitUntil(until(lambda: dialog._matching == COUNT))
    assert dialog._look is None
    assert "Press “Look now”" in dialog.replaced.empty_text()
    dialog.look.click()
    assert dialog.look.text() == "Stop loo&king"
    dialog.look.click()
    assert "Press “Look now”" in dialog.replaced.empty_text()
    dialog.look.click()
    looked(qtbot, dialog)
    assert SERIAL in rows(dialog)


def test_what_is_replaced_is_searched_and_hidden(make: Make, qtbot: QtBot) -> None:
    dialog = make()
    looked(qtbot, dialog)
    every = len(rows(dialog))
    assert dialog.replaced.found.text().startswith(f"{every} different words, ")
    qtbot.keyClick(dialog, Qt.Key.Key_F, Qt.KeyboardModifier.ControlModifier)  # type: ignore[no-untyped-call]
    assert dialog.focusWidget() is dialog.replaced.search
    dialog.replaced.search.setText(SERIAL[2:])
    assert SERIAL in rows(dialog)
    assert len(rows(dialog)) < every
    assert dialog.replaced.found.text() == f"{len(rows(dialog))} of {every} different words"
    dialog.replaced.hide_originals.click()
    assert not rows(dialog), "a search does not tell what is hidden"
    dialog.replaced.search.clear()
    assert set(rows(dialog)) == {HIDDEN}
    assert len(dialog.replaced.model.rows()) == every


# ---------------------------------------------------------------- the file


def test_the_file_has_the_end_of_its_form(make: Make, out: Path) -> None:
    dialog = make()
    dialog.file.set_value("mine.mwk")
    dialog.file.edited.emit()
    dialog.forms.setCurrentIndex(dialog.forms.findData(Form.CSV))
    assert dialog.file.value() == out / "mine.csv"
    dialog.what_bundle.click()
    assert dialog.file.value() == out / "mine.zip"


def test_a_file_that_cannot_be_is_said_beforehand(make: Make, workspace: Path, out: Path) -> None:
    dialog = make()
    (out / "there.mwk").write_text("mine")
    for name, fault in (
        ("", "Still needed: a file."),
        ("x.txt", "The name must end with .mwk."),
        ("there.mwk", "there.mwk exists already. Choose another name."),
        (str(workspace), "bench.mwk exists already. Choose another name."),
        (str(out / "no" / "x.mwk"), f"There is no folder {out / 'no'}. Choose another one."),
    ):
        dialog.file.set_value(name)
        dialog.file.edited.emit()
        assert dialog.missing.text() == fault
        assert not dialog.go.isEnabled()
        assert dialog.file.error.text() == (fault if name else "")
    assert (out / "there.mwk").read_text() == "mine"


def test_a_file_that_came_meanwhile_stays(make: Make, qtbot: QtBot, out: Path) -> None:
    reader = gated()
    dialog = make(open_reader=reader)
    dialog.go.click()
    qtbot.waitUntil(reader.came.is_set)
    (out / "bench, a part.mwk").write_text("mine")
    reader.go_on.set()
    qtbot.waitUntil(until(lambda: "exists already" in dialog.box.sentences.text()), timeout=20_000)
    assert (out / "bench, a part.mwk").read_text() == "mine"
    assert [one.name for one in out.iterdir()] == ["bench, a part.mwk"]


def test_a_failure_names_the_file_that_was_chosen(
    make: Make, qtbot: QtBot, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_reader: LogReader, file: Path, *_args: object, **_more: object) -> None:
        file.write_text("half")
        raise StoreError(f"{file.parent / '.x.part' / file.name}: the disk is full.")

    monkeypatch.setattr(share_dialog, "share", full)
    dialog = make()
    dialog.go.click()
    wanted = f"{out / 'bench, a part.mwk'}: the disk is full."
    qtbot.waitUntil(until(lambda: dialog.box.sentences.text() == wanted))
    assert list(out.iterdir()) == []
    assert dialog.go.isEnabled(), "to try again"
    assert not dialog.show_folder.isVisible()


def test_a_workspace_that_cannot_be_read(make: Make, qtbot: QtBot, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.mwk"
    damaged.write_bytes(b"no database" * 100)
    dialog = make(damaged)
    qtbot.waitUntil(until(lambda: "damaged.mwk" in dialog.counted.text()))
    dialog.look.click()
    qtbot.waitUntil(until(lambda: "damaged.mwk" in dialog.replaced.empty_text()))
    dialog.go.click()
    qtbot.waitUntil(until(lambda: "damaged.mwk" in dialog.box.sentences.text() and dialog._write is None))


def test_the_folder_is_shown(make: Make, qtbot: QtBot, out: Path) -> None:
    asked: list[QUrl] = []

    def no_desktop(url: QUrl) -> bool:
        asked.append(url)
        return False

    dialog = make(open_url=no_desktop)
    file = written(qtbot, dialog)
    assert dialog.focusWidget() is dialog.show_folder
    dialog.show_folder.click()
    assert [Path(url.toLocalFile()) for url in asked] == [out]
    assert str(file) in dialog.box.sentences.text()


# ---------------------------------------------------------------- stopping


def test_nothing_is_left_of_what_was_stopped(make: Make, qtbot: QtBot, out: Path) -> None:
    reader = gated()
    dialog = make(open_reader=reader)
    got: list[object] = []
    dialog.taken.connect(got.append)
    dialog.go.click()
    assert not dialog.page.isEnabled()
    qtbot.waitUntil(reader.came.is_set)
    dialog.box.show_progress()
    dialog.box.stop.click()
    assert dialog.box.sentences.text() == "Stopping…"
    reader.go_on.set()
    qtbot.waitUntil(
        until(lambda: dialog.box.sentences.text() == "It was stopped. Nothing was written."), timeout=20_000
    )
    assert list(out.iterdir()) == []
    assert got == []
    assert dialog.page.isEnabled()
    assert written(qtbot, dialog).exists(), "and it can be begun again"


def test_it_may_be_stopped_until_the_file_has_its_name(
    make: Make, qtbot: QtBot, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, whole, go_on = share.share, threading.Event(), threading.Event()

    def slow(*args: object, **more: object) -> object:
        done = real(*args, **more)  # type: ignore[arg-type]
        whole.set()
        assert go_on.wait(30)
        return done

    monkeypatch.setattr(share_dialog, "share", slow)
    dialog = make()
    dialog.go.click()
    qtbot.waitUntil(whole.is_set, timeout=20_000)
    dialog.box.stop.click()
    go_on.set()
    qtbot.waitUntil(until(lambda: dialog._write is None), timeout=20_000)
    assert list(out.iterdir()) == []


def test_escape_stops_then_leaves(make: Make, qtbot: QtBot, out: Path) -> None:
    reader = gated()
    dialog = make(open_reader=reader)
    dialog.go.click()
    qtbot.waitUntil(reader.came.is_set)
    qtbot.keyClick(dialog, Qt.Key.Key_Escape)  # type: ignore[no-untyped-call]
    assert dialog.isVisible()
    assert dialog.box.sentences.text() == "Stopping…"
    qtbot.keyClick(dialog, Qt.Key.Key_Escape)  # type: ignore[no-untyped-call]
    assert not dialog.isVisible()
    reader.go_on.set()
    qtbot.waitUntil(until(lambda: not Errand.under_way), timeout=20_000)
    assert list(out.iterdir()) == []


def test_a_dialog_that_is_gone_hears_nothing(
    make: Make, qtbot: QtBot, theme: Theme, out: Path, workspace: Path
) -> None:
    reader = gated()
    dialog = ShareDialog(theme, workspace, "", keyring(), folder=out, open_reader=reader)
    dialog.show()
    dialog.look.click()
    qtbot.waitUntil(reader.came.is_set)
    with qtbot.waitSignal(dialog.destroyed):
        dialog.reject()
    reader.go_on.set()
    qtbot.waitUntil(until(lambda: not Errand.under_way), timeout=20_000)


# ---------------------------------------------------------------- a support bundle


def test_a_support_bundle(make: Make, qtbot: QtBot, out: Path) -> None:
    dialog = make(what=What.BUNDLE, log_texts=[f"polled {SERIAL}"])
    assert dialog.windowTitle() == "Share: support bundle"
    assert not dialog.log_fields.isVisible()
    dialog.about.set_value(f"{OWNER} shows nothing.")
    dialog.about.edited.emit()
    assert dialog._look is None, "the doctor is not called unasked"
    dialog.look.click()
    looked(qtbot, dialog)
    seen = rows(dialog)
    assert {SERIAL, OWNER, HOST} <= seen.keys()
    assert list(out.iterdir()) == [], "nothing is written for that"
    file = written(qtbot, dialog)
    assert betrayals(file, *SECRETS, SERIAL, OWNER, HOST) == []
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        assert seen[OWNER][2] in archive.read("about.txt").decode()
        assert seen[SERIAL][2] in archive.read("log.txt").decode()
    assert {"README.txt", "devices.json", "doctor.json", "logs/meterwright.log"} <= names
    assert "log.mwk" not in names
    assert rows(dialog) == seen, "counted once, though it was made twice"
    assert dialog.box.sentences.text().endswith("Look through it before you send it.")


def test_a_bundle_with_a_part_of_the_log(make: Make, qtbot: QtBot, out: Path) -> None:
    dialog = make(what=What.BUNDLE, wanted="id:2")
    assert dialog.choice().part is None
    dialog.with_log.click()
    assert dialog.log_fields.isVisible()
    assert not dialog.samples.isVisible()
    dialog.forms.setCurrentIndex(dialog.forms.findData(Form.CSV))
    assert dialog.file.value() is not None
    assert Path(str(dialog.file.raw())).suffix == ".zip"
    file = written(qtbot, dialog)
    with zipfile.ZipFile(file) as archive:
        assert len(archive.read("log.csv").decode().splitlines()) == 2
    assert [one.name for one in out.iterdir()] == [file.name]


def test_a_bundle_without_a_workspace(make: Make, qtbot: QtBot) -> None:
    dialog = make(None)
    assert dialog.what() is What.BUNDLE
    assert not dialog.what_log.isEnabled()
    assert not dialog.with_log.isEnabled()
    with zipfile.ZipFile(written(qtbot, dialog)) as archive:
        assert "devices.json" not in archive.namelist()


def test_without_a_profile_there_is_no_bundle(make: Make) -> None:
    dialog = make(profile=None, what=What.BUNDLE)
    assert dialog.what() is What.LOG
    assert not dialog.what_bundle.isVisible()


# ---------------------------------------------------------------- keyboard, names, pictures


def test_everything_is_reached_and_has_a_name(make: Make, qtbot: QtBot) -> None:
    dialog = make(what=What.BUNDLE)
    dialog.with_log.click()
    reached: list[QWidget] = []
    widget = dialog.filter.nextInFocusChain()
    while widget is not None and widget is not dialog.filter:
        if widget.focusPolicy() & Qt.FocusPolicy.TabFocus and widget.isVisible() and widget.isEnabled():
            reached.append(widget)
        widget = widget.nextInFocusChain()
    for wanted in (
        dialog.what_bundle, dialog.with_log, dialog.forms, *dialog.kinds.values(), dialog.about.editor,
        dialog.file.editor, dialog.look, dialog.leave, dialog.go,
    ):  # fmt: skip
        assert wanted in reached
    letters = [
        found[1].casefold()
        for one in dialog.findChildren(QWidget)
        if (found := re.search("&([^&])", getattr(one, "text", str)())) is not None
    ]
    assert len(letters) == len(set(letters)) > 5, "one letter, one place"
    for one in (*reached, dialog.filter, dialog.replaced.search, dialog.replaced.table):
        name = getattr(one, "text", str)() or one.accessibleName()
        parent = one.parentWidget()
        assert name or (parent is not None and parent.accessibleName()), one
    assert not dialog.box.stop.autoDefault()


@pytest.mark.parametrize("mode", [ThemeMode.LIGHT, ThemeMode.DARK])
def test_pictures(qtbot: QtBot, qapp: QApplication, make: Make, artifacts: Path, mode: ThemeMode) -> None:
    palette, style = qapp.palette(), qapp.style().name()
    theme = Theme(qapp, mode)
    theme.install()
    try:
        log, done, bundle = make(look=theme, wanted="id<4"), make(look=theme), make(look=theme, what=What.BUNDLE)
        bundle.with_log.click()
        log.samples.click()
        log.ranged.click()
        looked(qtbot, log)
        written(qtbot, done)
        told = "4 interactions were written to bench, a part.mwk. Replaced in it: 2 serial numbers, 3 names."
        done.box.say(told, True)
        qtbot.waitUntil(until(lambda: done.replaced.table.columnWidth(1) > done.replaced.table.columnWidth(0)))
        qtbot.waitUntil(until(lambda: done.box.icon.width() >= done.fontMetrics().height()))
        for name, dialog in {"log": log, "done": done, "bundle": bundle}.items():
            dialog.file.set_value(Path(str(dialog.file.raw())).name)  # no folder of this machine in a picture
            assert not dialog.area.horizontalScrollBar().isVisible(), "nor on a small screen"
            dialog.resize(WIDE if name != "done" else dialog.size())
            assert dialog.grab().save(str(artifacts / f"share-{name}-{mode.value}.png"))
            dialog.reject()
    finally:
        qapp.styleHints().unsetColorScheme()
        qapp.setStyle(style)
        qapp.setPalette(palette)
