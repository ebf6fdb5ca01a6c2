"""``meterwright``: the window. With a verb it runs headless and imports no Qt (design.md section 5).

The composition root of the window: it builds theme, window, workspace and workbench once, runs them on one qasync loop,
and takes them apart in the opposite order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import sys
import time
from collections.abc import Coroutine, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.config import Profile, profile
from app.errors import StoreError, WorkbenchError

if TYPE_CHECKING:
    from PySide6.QtCore import QSettings, QtMsgType
    from PySide6.QtWidgets import QApplication

    from app.crash_file import Crash
    from app.demo import DemoSite
    from app.workbench import Workbench
    from ui.caretaker import Caretaker
    from ui.log_access import LogAccess
    from ui.main_window import MainWindow
    from ui.single_instance import HandOver
    from ui.theme import Theme

_log = logging.getLogger(__name__)

SWITCH_S: Final = 0.001  # the loop and the writer thread take turns quickly (perf-baselines section 3)

FIRST_PAINT_S: Final = 3.0  # a window that is started hidden is never painted; what it shows is opened all the same
TOUR_SIZE: Final = (1440, 900)
WITHOUT_SCREEN: Final = ("offscreen", "minimal")  # platforms on which nobody could close a dialog


def main(argv: list[str] | None = None) -> int:
    """Entry point ``meterwright``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if _has_verb(arguments):
        from app.__main__ import main as headless

        headless(arguments, prog_name="meterwright", obj={"pdf": _write_pdf})
        return 0
    return _window(_parse(arguments))


def _write_pdf(report: Mapping[str, Any], path: Path) -> None:
    """A report as a PDF, for a verb: the only one that needs Qt."""
    from ui.report_pdf import write_pdf

    write_pdf(report, path)


def _has_verb(arguments: list[str]) -> bool:
    """The first word that is no option decides; ``--help`` and ``--version`` alone belong to the verbs' page."""
    skip = False
    for word in arguments:
        if skip:
            skip = False
        elif word in ("--profile", "--offscreen-tour", "--read", "--replay"):
            skip = True
        elif word in ("--help", "--version"):
            return True
        elif not word.startswith("-"):
            if word.endswith(".mwk"):
                return False  # the window alone must not wait for the verbs' imports
            from app.__main__ import VERBS

            return word in VERBS
    return False


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="meterwright", add_help=False)
    parser.add_argument("file", nargs="?", type=Path, help="a workspace (*.mwk)")
    parser.add_argument("--demo", action="store_true", help="open a simulated site")
    parser.add_argument("--read", type=Path, metavar="LOG", help="open a log for reading")
    parser.add_argument("--replay", type=Path, metavar="LOG", help="replay a kept log")
    parser.add_argument("--profile", type=Path, metavar="DIR", help="keep settings and data below this folder")
    parser.add_argument("--offscreen-tour", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--first-paint", action="store_true", help=argparse.SUPPRESS)  # bench: say when, and leave
    parser.add_argument("-v", "--verbose", action="count", default=0)
    return parser.parse_args(arguments)


def _qt_says(kind: QtMsgType, _context: object, text: str) -> None:
    """Qt's own words go to the log, but for what its offscreen platform says of every window."""
    if "propagateSizeHints" in text:
        return
    levels = {"QtDebugMsg": logging.DEBUG, "QtInfoMsg": logging.INFO, "QtWarningMsg": logging.WARNING}
    logging.getLogger("qt").log(levels.get(kind.name, logging.ERROR), "%s", text)


def _window(options: argparse.Namespace) -> int:
    gc.disable()  # what is imported until the first paint stays; looking through it again and again delays the window
    try:
        folders = profile(options.profile).make()
    except WorkbenchError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    from PySide6.QtCore import QSettings, qInstallMessageHandler
    from PySide6.QtWidgets import QApplication

    from ui.caretaker import Caretaker, set_scale
    from ui.event_loop import run
    from ui.preferences import Preferences
    from ui.single_instance import wish_of
    from ui.theme import Theme, ThemeMode
    from ui.translations import install

    qInstallMessageHandler(_qt_says)
    sys.setswitchinterval(SWITCH_S)
    settings = QSettings(str(folders.config / "window.ini"), QSettings.Format.IniFormat)
    preferences = Preferences(settings)
    set_scale(preferences.scale)
    app = QApplication.instance() or QApplication(["meterwright"])
    assert isinstance(app, QApplication)
    app.setApplicationName("meterwright")
    app.setApplicationDisplayName("Meterwright")
    app.setDesktopFileName("meterwright")
    is_shown = options.offscreen_tour is None and not options.first_paint
    caretaker = Caretaker(folders, verbose=options.verbose, is_alone=is_shown)
    wish = wish_of(demo=options.demo, replay=options.replay, read=options.read, file=options.file)
    if caretaker.goes_elsewhere(wish):
        return 0
    install(app, preferences.language)
    try:
        mode = ThemeMode(str(settings.value("window/theme", ThemeMode.SYSTEM.value)))
    except ValueError:
        mode = ThemeMode.SYSTEM
    theme = Theme(app, mode)
    theme.install()
    caretaker.crashes.install()
    try:
        return run(app, Desk(app, theme, settings, folders, options, caretaker).run())
    except Exception as fault:  # noqa: BLE001 - the crash boundary of the program (ui/crash.py)
        crash = caretaker.crashes.end(fault)
        if is_shown and app.platformName() not in WITHOUT_SCREEN:
            run(app, _tell_end(crash, theme))
        return 1
    finally:
        caretaker.close()


async def _tell_end(crash: Crash, theme: Theme) -> None:
    """Show why the program has ended, in a loop of its own: there is no other any more."""
    from ui.crash import tell_end

    closed = asyncio.Event()
    dialog = tell_end(crash, theme)
    dialog.finished.connect(closed.set)
    dialog.show()
    await closed.wait()


class Desk:
    """What is open on the desk, and how one thing is put away for the next."""

    def __init__(
        self,
        app: QApplication,
        theme: Theme,
        settings: QSettings,
        folders: Profile,
        options: argparse.Namespace,
        caretaker: Caretaker | None = None,
    ) -> None:
        from ui.garbage import Collector
        from ui.main_window import MainWindow

        self._app = app
        self._theme = theme
        self._folders = folders
        self._options = options
        self._caretaker = caretaker
        self._closing = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._opened: contextlib.AsyncExitStack | None = None
        self._changing = asyncio.Lock()
        self._has_begun = False  # with what the command line asked for
        self.demo: DemoSite | None = None
        self._painted = asyncio.Event()
        self.window: MainWindow = MainWindow(theme, settings, self._spawn, on_close_requested=self._closing.set)
        self._collector = Collector(self.window)
        self.window.profile = folders
        self.window.painted.connect(self._painted.set)
        if options.first_paint:
            self.window.painted.connect(_say_painted)
        if options.offscreen_tour is not None:
            self.window.resize(*TOUR_SIZE)
        self.window.sessionRequested.connect(self._open_default)
        self.window.demoRequested.connect(lambda: self._open_soon(self.open_demo()))
        self.window.openRequested.connect(lambda path: self._open_soon(self._open_known(Path(path))))
        self.window.workRequested.connect(lambda path: self._open_soon(self._open_or_offer(Path(path))))
        self.window.readRequested.connect(lambda path: self._open_soon(self.open_log(Path(path))))
        self.window.newWorkspaceRequested.connect(lambda path: self._open_soon(self.open_workspace(Path(path))))
        self.window.replayRequested.connect(lambda path: self._open_soon(self.open_replay(Path(path))))
        self.window.exportRequested.connect(lambda path, wanted: self._spawn(self._export(Path(path), wanted)))

    async def run(self) -> int:
        """From the first window to the last ``finally``."""
        status = 0
        async with asyncio.TaskGroup() as group:
            self._group = group
            self.window.show()
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FIRST_PAINT_S):
                        await self._painted.wait()
                self._collector.start()
                if self._caretaker is not None:
                    self._caretaker.start(
                        self.window,
                        self._theme,
                        asyncio.get_running_loop(),
                        about=self._what_is_open,
                        handed=self._take_over,
                    )
                self._has_begun = True
                if self._closing.is_set():
                    pass
                elif self._options.offscreen_tour is not None:
                    status = await self._tour(self._options.offscreen_tour)
                    self._closing.set()
                elif self._options.demo:
                    await self._opening(self.open_demo())
                elif self._options.replay is not None:
                    await self._opening(self.open_replay(self._options.replay))
                elif self._options.read is not None:
                    await self._opening(self.open_log(self._options.read))
                elif self._options.file is not None:
                    await self._opening(self._open_or_offer(self._options.file))
                else:
                    await self._opening(self.open_workspace(self._folders.default_workspace))
                if self._options.first_paint:
                    status = await self._built()
                    self._closing.set()
                await self._closing.wait()
            finally:
                if self._caretaker is not None:
                    self._caretaker.stop()
                await self.put_away()
                self.window.allow_close()
                self.window.close()
        return status

    async def _built(self) -> int:
        """Wait until what was opened is shown; 1 when nothing was opened."""
        if self.window.session is None:
            return 1
        if not self.window.is_ready:
            ready = asyncio.Event()
            self.window.ready.connect(ready.set)
            await ready.wait()
        return 0

    def _hide(self, secret: str) -> None:
        """A secret was met: no log and no crash report has it."""
        if self._caretaker is not None:
            self._caretaker.hide(secret)

    # ---------------------------------------------------------------- other starts, and reports of faults

    def _take_over(self, wish: HandOver) -> None:
        """Another start of this profile asked for something: it is done here, and this window comes forward."""
        from ui.single_instance import Wish

        self.window.come_forward()
        match wish.wish:
            case Wish.SHOW:
                pass
            case Wish.DEMO:
                self.window.demoRequested.emit()
            case Wish.REPLAY:
                self.window.replayRequested.emit(wish.paths[0])
            case Wish.READ:
                self.window.readRequested.emit(wish.paths[0])
            case Wish.OPEN:
                self.window.habits.arrivals.take(wish.paths)

    def _what_is_open(self) -> dict[str, str]:
        """For a crash report; no name of a file, meter or place."""
        session = self.window.session
        if session is None:
            return {"Open": "nothing"}
        devices = session.workbench.devices()
        return {
            "Open": session.mode.value,
            "Devices": f"{len(devices)}, of {', '.join(sorted({d.adapter for d in devices if d.adapter})) or 'none'}",
        }

    # ---------------------------------------------------------------- opening

    def _open_default(self) -> None:
        """Something needs a workspace and none is open (yet)."""
        if self._has_begun and not self._changing.locked():
            self._open_soon(self.open_workspace(self._folders.default_workspace))

    async def open_workspace(self, path: Path) -> None:
        """Open (or create) a workspace and run its engine."""
        from app.composition import open_session
        from app.secrets import KeyringSecrets

        secrets = KeyringSecrets(self._hide)
        await self._show(
            path.stem,
            path,
            contextlib.nullcontext(),
            lambda: open_session(path, secrets=secrets, on_secret=self._hide),
        )
        if path != self._folders.default_workspace:
            self._used(path, is_read=False)

    async def _open_or_offer(self, path: Path) -> None:
        """Open a workspace to work with, an export for reading; where the first cannot be, the second is offered."""
        from ui.main_window import EXPORTS

        if path.suffix.lower() in EXPORTS:
            await self.open_log(path)
            return
        try:
            await self.open_workspace(path)
        except StoreError as exc:
            self.window.offer_reading(str(exc), str(path))

    async def _open_known(self, path: Path) -> None:
        """A workspace that was worked with lately goes on; a log that came from somewhere is read."""
        if path == self._folders.default_workspace or self.window.is_worked_with(_whole(path)):
            await self._open_or_offer(path)
        else:
            await self.open_log(path)

    def _used(self, path: Path, *, is_read: bool) -> None:
        name = _whole(path)
        self.window.note_reading(name, is_read=is_read)
        self.window.set_recent(name)

    async def open_log(self, path: Path) -> None:
        """Whatever somebody sent, for reading: no link is opened, nothing is sent, and the file is not written.

        Raises:
            StoreError: it is no log, made by a newer Meterwright, or nothing of it can be read.
        """
        from app.composition import reading_workbench
        from app.interaction_log.file_lock import is_locked
        from app.interaction_log.open_any import open_for_reading
        from app.secrets import KeyringSecrets
        from ui.log_access import LogAccess
        from ui.main_window import Session
        from ui.status_bar import Mode

        loop = asyncio.get_running_loop()
        async with self._changing, contextlib.AsyncExitStack() as stack:
            if self._is_shown(path):
                await self.put_away()  # what it still writes goes first
            self.window.say_looking(str(path))
            opened = await loop.run_in_executor(None, open_for_reading, path)
            reader, notes = stack.enter_context(opened.reader), opened.notes
            is_in_use = is_locked(path)
            if is_in_use:
                notes = (*notes, f"{path.name} is open in another Meterwright; it is shown as it stands now.")
            workbench = await loop.run_in_executor(None, reading_workbench, reader)
            await self.put_away()
            log = LogAccess(path, open_reader=lambda _path: reader.another())
            stack.callback(log.close)
            session = Session(
                workbench=workbench,
                log=log,
                title=path.name,
                mode=Mode.READ_ONLY,
                secrets=KeyringSecrets(self._hide),
                notes=notes,
                may_be_worked_with=not (is_in_use or reader.is_copy),
            )
            self.window.attach(session)
            self._opened = stack.pop_all()
        self._used(path, is_read=True)

    def _is_shown(self, path: Path) -> bool:
        session = self.window.session
        return session is not None and session.log.path.resolve() == path.resolve()

    async def open_demo(self) -> None:
        """The simulated site in a workspace of its own."""
        from app.composition import open_session
        from app.demo import demo_site
        from app.secrets import KeyringSecrets

        secrets = KeyringSecrets(self._hide)
        stamp = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}"
        folder = self._options.offscreen_tour or self._folders.data
        path = folder / f"demo-{stamp}.mwk"
        await self._show(
            "Demo site",
            path,
            demo_site(secrets),
            lambda: open_session(path, secrets=secrets, on_secret=self._hide),
        )

    async def open_replay(self, path: Path) -> None:
        """A kept log through a pipeline of its own; the file is only read."""
        import tempfile

        from app.adapters.registry import Registry
        from app.composition import open_session
        from app.interaction_log.open_any import open_for_reading
        from app.model.reading import Severity
        from app.replaying import Player, scratch_path
        from ui.status_bar import Mode

        async with contextlib.AsyncExitStack() as stack:
            opened = await asyncio.get_running_loop().run_in_executor(None, open_for_reading, path)
            reader = stack.enter_context(opened.reader)
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            player = Player(reader, Registry())
            scratch = scratch_path(Path(folder), path)
            stack_kept = stack.pop_all()
        await self._show(
            path.name,
            scratch,
            contextlib.nullcontext(),
            lambda: open_session(scratch, adapter_types=player.adapter_types(), clock=player.clock),
            mode=Mode.REPLAY,
            player=player,
            resources=stack_kept,
        )
        if opened.notes:
            self.window.say(" ".join(opened.notes), Severity.WARNING)

    async def put_away(self) -> None:
        """Close what is open; what was under way is adopted when the workspace is opened again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            self.window.detach()
            self.demo = None
            await opened.aclose()

    async def _show(
        self,
        title: str,
        path: Path,
        site: Any,
        session_of: Any,
        *,
        mode: Any = None,
        player: Any = None,
        resources: contextlib.AsyncExitStack | None = None,
    ) -> None:
        from app.composition import team_link
        from ui.log_access import LogAccess
        from ui.main_window import Session
        from ui.status_bar import Mode

        async with self._changing:
            await self.put_away()
            async with contextlib.AsyncExitStack() as stack:
                if resources is not None:
                    stack.push_async_exit(resources)
                loop = asyncio.get_running_loop()
                demo = await loop.run_in_executor(None, site.__enter__)
                stack.push_async_callback(_leave_in_thread, site)
                session = stack.enter_context(session_of())
                team = None
                if player is None:
                    link = team_link(session, lambda _status: self.window.teamTold.emit())
                    team = link.__enter__()
                    stack.push_async_callback(_leave_in_thread, link)
                devices = demo.devices if demo is not None else player.devices() if player is not None else ()
                for device in devices:
                    session.workbench.save_device(device)
                engine = self._spawn(session.workbench.run())  # a bug in it ends the program, loudly
                stack.push_async_callback(_stop_engine, session.workbench, engine)
                log = LogAccess(path)
                stack.callback(log.close)
                self.demo = demo
                if player is not None:
                    player.on_seek = self.window.clear_chart
                    task = self._spawn(player.play(session.workbench))
                    stack.callback(task.cancel)
                self.window.attach(
                    Session(
                        workbench=session.workbench,
                        log=log,
                        title=title,
                        mode=mode or Mode.LIVE,
                        replay=player,
                        secrets=session.secrets if player is None else None,
                        team=team,
                        needs_arming=demo is None and player is None,
                    )
                )
                self._opened = stack.pop_all()

    async def _opening(self, work: Coroutine[Any, Any, None]) -> None:
        """Open something; when it cannot be opened, say why and leave the welcome page."""
        from app.model.reading import Severity

        try:
            await work
        except (WorkbenchError, OSError) as exc:
            self.window.say(str(exc), Severity.BAD)

    def _open_soon(self, work: Coroutine[Any, Any, None]) -> None:
        self._spawn(self._opening(work))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if self._group is None:
            work.close()
            raise RuntimeError("the desk is not running")
        return self._group.create_task(work)

    async def _export(self, path: Path, wanted: str) -> None:
        from app.model.reading import Severity

        opened = self.window.session
        if opened is None:
            return
        try:
            rows = await asyncio.get_running_loop().run_in_executor(None, _export, opened.log, path, wanted)
        except (WorkbenchError, OSError) as exc:
            self.window.say(str(exc), Severity.BAD)
        else:
            self.window.say(f"{rows} interactions written to {path}.")

    # ---------------------------------------------------------------- the tour without a display

    async def _tour(self, folder: Path) -> int:
        from ui.tour import tour

        folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing else runs yet
        return await tour(self, folder)


def _export(source: LogAccess, path: Path, wanted: str) -> int:
    from datetime import UTC

    from app.interaction_log import transfer
    from app.interaction_log.filters import parse

    where = parse(wanted, datetime.now(UTC)) if wanted.strip() else None
    with source.open_reader(source.path) as reader:
        if path.suffix.lower() == ".csv":
            return transfer.export_csv(reader, path, where)
        return transfer.export_jsonl(reader, path, where, samples=True)


def _whole(path: Path) -> str:
    """The name of a file as the list of those used lately has it."""
    return str(path.absolute())


def _say_painted() -> None:
    """For the bench: when the first picture stood, and the most memory it took until then."""
    memory = 0
    if sys.platform != "win32":
        import resource

        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write(f"{time.monotonic()} {memory}\n")
    sys.stdout.flush()


async def _leave_in_thread(context: Any) -> None:
    """Simulators and pushes need a moment to end; the window does not wait for them on its own thread."""
    await asyncio.get_running_loop().run_in_executor(None, context.__exit__, None, None, None)


async def _stop_engine(workbench: Workbench, task: asyncio.Task[None]) -> None:
    workbench.stop()
    await asyncio.wait([task])


if __name__ == "__main__":
    sys.exit(main())
