"""The crossing: few batches, last version wins, nothing lost."""

from __future__ import annotations

import threading
from itertools import pairwise
from time import monotonic

from pytestqt.qtbot import QtBot

from app.model.device import Device
from app.model.flow import Commissioning, FlowStatus, Issue, IssueKind, IssueStatus
from app.model.interaction import Direction, Frame, Interaction, StepEntry
from app.model.reading import DeviceState, LinkState, SampleSet
from app.model.records import Change
from app.model.status import Event, Status
from tests.ui.fakes import POWER, START, FakeWorkbench, prepaid_site, site
from tests.ui.flows import part_way
from ui.bridge import ChangeBridge


def frame(direction: Direction, data: bytes, interaction: int | None = None) -> Frame:
    return Frame(at=START, device="lem-1", link="http", direction=direction, data=data, interaction=interaction)


def test_last_version_wins_and_steps_are_kept(qtbot: QtBot) -> None:
    workbench = FakeWorkbench(site())
    bridge = ChangeBridge(workbench.feed)
    batches: list[list[Change]] = []
    bridge.batch.connect(batches.append)
    number = workbench.submit("lem-1", "READ_STATUS")
    workbench.advance(number, Event.SEND)
    workbench.advance(number, Event.SUCCEED)
    qtbot.waitUntil(lambda: len(batches) == 1, timeout=1000)
    versions = [c for c in batches[0] if isinstance(c, Interaction)]
    assert [v.status for v in versions] == [Status.SUCCESSFUL]
    assert len([c for c in batches[0] if isinstance(c, StepEntry)]) == 3
    assert isinstance(batches[0][-1], Interaction), "the version comes after the steps that led to it"
    bridge.close()


def test_of_commissionings_and_issues_too_the_last_version_wins(qtbot: QtBot) -> None:
    workbench = FakeWorkbench(prepaid_site())
    bridge = ChangeBridge(workbench.feed)
    batches: list[list[Change]] = []
    bridge.batch.connect(batches.append)
    part_way(workbench, "p-1", 2)
    workbench.begin("p-2")
    workbench.close_issue(workbench.raise_issue("p-1", IssueKind.NO_CREDIT))
    qtbot.waitUntil(lambda: len(batches) == 1, timeout=1000)
    runs = [c for c in batches[0] if isinstance(c, Commissioning)]
    assert [(run.device, run.status) for run in runs] == [
        ("p-1", FlowStatus.PROCESSING),
        ("p-2", FlowStatus.PENDING),
    ]
    assert [c.status for c in batches[0] if isinstance(c, Issue)] == [IssueStatus.CLOSED]
    bridge.close()


def test_at_most_ten_batches_a_second(qtbot: QtBot) -> None:
    workbench = FakeWorkbench(site())
    bridge = ChangeBridge(workbench.feed)
    times: list[float] = []
    states: list[DeviceState] = []

    def on_batch(changes: list[Change]) -> None:
        times.append(monotonic())
        states.extend(c for c in changes if isinstance(c, DeviceState))

    bridge.batch.connect(on_batch)
    begin = monotonic()
    while monotonic() - begin < 0.55:
        for link in (LinkState.CONNECTING, LinkState.ONLINE):
            workbench.set_link("lem-1", link)
        qtbot.wait(1)
    assert 3 <= len(times) <= 7
    assert all(later - earlier > 0.08 for earlier, later in pairwise(times))
    qtbot.waitUntil(lambda: bool(states) and states[-1] == workbench.state("lem-1"), timeout=1000)
    bridge.close()


def test_first_change_after_a_quiet_time_is_shown_at_once(qtbot: QtBot) -> None:
    workbench = FakeWorkbench(site())
    bridge = ChangeBridge(workbench.feed)
    begin = monotonic()
    with qtbot.waitSignal(bridge.batch, timeout=1000):
        workbench.submit("lem-1", "READ_STATUS")
    assert monotonic() - begin < 0.05
    bridge.close()


def test_samples_keep_their_order_and_their_own_signal(qtbot: QtBot) -> None:
    workbench = FakeWorkbench(site())
    bridge = ChangeBridge(workbench.feed)
    seen: list[SampleSet] = []
    batches: list[object] = []
    bridge.samples.connect(seen.extend)
    bridge.batch.connect(batches.append)
    for number in range(500):
        workbench.measure("lem-1", (POWER, str(number)))
    qtbot.waitUntil(lambda: len(seen) == 500, timeout=1000)
    assert [int(s.values[0][1]) for s in seen] == list(range(500))
    assert batches == []
    bridge.close()


def test_traffic_is_added_up_and_polling_frames_stay_out_of_batches(qtbot: QtBot) -> None:
    workbench = FakeWorkbench(site())
    bridge = ChangeBridge(workbench.feed)
    traffic: list[tuple[str, str, int]] = []
    batches: list[list[Change]] = []
    bridge.traffic.connect(lambda *args: traffic.append(args))
    bridge.batch.connect(batches.append)
    workbench.feed.publish(frame(Direction.OUT, b"12"), frame(Direction.OUT, b"345"), frame(Direction.IN, b"6"))
    qtbot.waitUntil(lambda: len(traffic) == 2, timeout=1000)
    assert sorted(traffic) == [("lem-1", "in", 1), ("lem-1", "out", 5)]
    assert batches == []
    of_command = frame(Direction.OUT, b"x", interaction=7)
    workbench.feed.publish(of_command)
    qtbot.waitUntil(lambda: bool(batches), timeout=1000)
    assert batches == [[of_command]]
    bridge.close()


def test_pause_loses_nothing(qtbot: QtBot) -> None:
    workbench = FakeWorkbench(site())
    bridge = ChangeBridge(workbench.feed)
    changes: list[Change] = []
    samples: list[SampleSet] = []
    bridge.batch.connect(changes.extend)
    bridge.samples.connect(samples.extend)
    workbench.submit("lem-1", "READ_STATUS")
    bridge.pause()
    for number in range(50):
        workbench.measure("lem-1", (POWER, str(number)))
        workbench.submit("lem-1", "READ_STATUS")
    qtbot.wait(150)
    assert changes == []
    assert samples == []
    bridge.resume()
    qtbot.waitUntil(lambda: len(samples) == 50 and len(changes) == 51 * 2, timeout=1000)
    bridge.close()


def test_a_removed_and_saved_device_keep_their_order(qtbot: QtBot) -> None:
    workbench = FakeWorkbench(site())
    bridge = ChangeBridge(workbench.feed)
    changes: list[Change] = []
    bridge.batch.connect(changes.extend)
    lem = workbench.device("lem-1")
    workbench.save_device(lem)
    workbench.remove_device("lem-1")
    workbench.save_device(lem)
    qtbot.waitUntil(lambda: bool(changes), timeout=1000)
    assert [type(c).__name__ for c in changes] == ["DeviceRemoved", "Device"]
    assert isinstance(changes[-1], Device)
    bridge.close()


def test_the_feed_may_be_published_from_another_thread(qtbot: QtBot) -> None:
    workbench = FakeWorkbench(site())
    bridge = ChangeBridge(workbench.feed)
    seen: list[SampleSet] = []
    on_thread: set[int] = set()

    def on_samples(samples: list[SampleSet]) -> None:
        seen.extend(samples)
        on_thread.add(threading.get_ident())

    bridge.samples.connect(on_samples)

    def engine() -> None:
        for number in range(2000):
            workbench.measure("lem-1", (POWER, str(number)))

    worker = threading.Thread(target=engine)
    worker.start()
    qtbot.waitUntil(lambda: len(seen) == 2000, timeout=5000)
    worker.join()
    assert on_thread == {threading.get_ident()}
    bridge.close()


def test_after_close_nothing_comes(qtbot: QtBot) -> None:
    workbench = FakeWorkbench(site())
    bridge = ChangeBridge(workbench.feed)
    batches: list[object] = []
    bridge.batch.connect(batches.append)
    workbench.submit("lem-1", "READ_STATUS")
    bridge.close()
    workbench.submit("lem-1", "READ_STATUS")
    qtbot.wait(150)
    assert batches == []
