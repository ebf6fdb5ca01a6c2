"""Frames of the module link: deframing with FCS beside its bounds, bodies beside ``struct``.

``python -m tests.bench.bench_frames [--octets N] [--quick]``; prints one JSON object. The upper bound is a bare loop
that splits at flags, undoes the two usual escapes and calls the same CRC function: it checks neither length nor header
and makes no objects. The lower one is the textbook loop over octets with a table. All run turn and turn about in one
process; figures are medians.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from app.protocols import quecpython as quec
from app.protocols.crc16 import fcs
from app.protocols.rfc1662 import OVERHEAD, QUECTEL, RFC1662, Decoder, Frame, Profile, encode_frame

SIZES = (32, 128, 1024)  # octets of a frame before stuffing
CHUNK = 4096  # octets of a read
ROUNDS = 7
SPLIT_BUDGET = 0.5  # of the splitting loop
LOOP_BUDGET = 4.0  # times the table-driven loop
# In a frame of 32 octets the CRC is half of what the splitting loop does: checking the length and building the frame
# weigh most there, and that loop itself is only 4 times the table-driven one.
SMALL_BUDGETS = (0.35, 1.5)
BODY_BUDGET = 0.01  # of struct; 115,200 Bd bring at most 800 typed bodies a second

Item = dict[str, Any]


def table() -> list[int]:
    made = []
    for octet in range(256):
        check = octet
        for _ in range(8):
            check = check >> 1 ^ (0x8408 if check & 1 else 0)
        made.append(check)
    return made


TABLE = table()


def by_splitting(data: bytes) -> int:
    """Good frames of a stuffed stream, low octet of the FCS first."""
    good = 0
    for piece in data.split(b"~"):
        if len(piece) < 4:
            continue
        if b"}" in piece:
            piece = piece.replace(b"}^", b"~").replace(b"}]", b"}")
        if fcs(piece[:-2]) == piece[-2] | piece[-1] << 8:
            good += 1
    return good


def by_octets(data: bytes) -> int:
    """The same with a loop and a table."""
    good, check, is_escaped = 0, 0xFFFF, False
    content = bytearray()
    for octet in data:
        if octet == 0x7E:
            good += len(content) > 3 and check == 0xF0B8
            content.clear()
            check, is_escaped = 0xFFFF, False
        elif octet == 0x7D:
            is_escaped = True
        else:
            if is_escaped:
                octet ^= 0x20
                is_escaped = False
            content.append(octet)
            check = check >> 8 ^ TABLE[(check ^ octet) & 0xFF]
    return good


def deframed(data: bytes, profile: Profile) -> int:
    decoder = Decoder(profile)
    return sum(len(decoder.feed(data[at : at + CHUNK])) for at in range(0, len(data), CHUNK))


def turns(works: Sequence[Callable[[], int]], expected: int) -> list[float]:
    """Median seconds of each, turn and turn about."""
    took: list[list[float]] = [[] for _ in works]
    gc.collect()
    gc.disable()
    for _ in range(ROUNDS):
        for work, times in zip(works, took, strict=True):
            started = time.perf_counter()
            good = work()
            times.append(time.perf_counter() - started)
            assert good == expected, (good, expected)
    gc.enable()
    return [statistics.median(times) for times in took]


def rate(name: str, value: float, bound: float, budget: float) -> Item:
    """More is better."""
    ratio = value / bound
    figures = {"value": round(value, 1), "bound": round(bound, 1), "ratio": round(ratio, 3)}
    return {"name": name, **figures, "budget": budget, "ok": ratio >= budget}


def deframing(octets: int) -> list[Item]:
    rng = random.Random(1)
    items: list[Item] = []
    for size in SIZES:
        frames = [Frame(0, 0x21, 0xBF, rng.randbytes(size - OVERHEAD - 1)) for _ in range(octets // size)]
        plain = b"".join(encode_frame(frame, QUECTEL) for frame in frames)
        stuffed = b"".join(encode_frame(frame, RFC1662) for frame in frames)
        took = turns(
            [
                lambda stuffed=stuffed: by_splitting(stuffed),  # type: ignore[misc]
                lambda stuffed=stuffed: by_octets(stuffed),  # type: ignore[misc]
                lambda plain=plain: deframed(plain, QUECTEL),  # type: ignore[misc]
                lambda stuffed=stuffed: deframed(stuffed, RFC1662),  # type: ignore[misc]
            ],
            len(frames),
        )
        split, loop, quectel, rfc = (size * len(frames) / seconds / 1e6 for seconds in took)
        for name, speed in ((QUECTEL.name, quectel), (RFC1662.name, rfc)):
            budgets = SMALL_BUDGETS if size == SIZES[0] else (SPLIT_BUDGET, LOOP_BUDGET)
            title = f"{name} frames of {size} octets, MB/s"
            items.append(rate(f"{title}, beside splitting", speed, split, budgets[0]))
            items.append(rate(f"{title}, beside a table-driven loop", speed, loop, budgets[1]))
        items.append(rate(f"splitting itself, {size} octets, MB/s, beside the loop", split, loop, 0.0))
    return items


TYPED = struct.Struct("<HB")
IDS = struct.Struct(">HB")


def by_struct(bodies: Sequence[bytes]) -> int:
    good = 0
    for body in bodies:
        _pid, length = TYPED.unpack_from(body)
        _rid, tag = IDS.unpack_from(body, 3)
        good += length == len(body) - 3 and tag == quec.Tag.U16 and body[6] << 8 | body[7] >= 0
    return good


def bodies(count: int) -> list[Item]:
    frame = quec.encode(quec.MODULE, quec.SetRequest(0x8002, quec.Typed(0x282B, quec.Tag.U16, b"\x01\x2c")))
    typed = [frame] * count
    octets = [one.body for one in typed]
    content = quec.SetRequest(0x8002, quec.Typed(0x282B, quec.Tag.U16, b"\x01\x2c"))
    plain = [Frame(0, 0x21, 0xBF, b"hello")] * count

    def decoded(frames: Sequence[Frame]) -> int:
        return sum(not isinstance(quec.decode(one).body, quec.Malformed) for one in frames)

    took = turns(
        [
            lambda: by_struct(octets),
            lambda: decoded(typed),
            lambda: sum(quec.encode(quec.MODULE, content).command == quec.Command.SET for _ in octets),
            lambda: decoded(plain),
        ],
        count,
    )
    bound, reading, writing, transparent = (count / seconds for seconds in took)
    return [
        rate("typed bodies decoded per s, beside struct", reading, bound, BODY_BUDGET),
        rate("typed bodies encoded per s, beside struct decoding", writing, bound, BODY_BUDGET),
        rate("transparent bodies decoded per s, beside struct on typed ones", transparent, bound, 0.1),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--octets", type=int, default=2 << 20)
    parser.add_argument("--quick", action="store_true", help="a quarter of the octets")
    options = parser.parse_args()
    octets = options.octets // 4 if options.quick else options.octets
    items = deframing(octets) + bodies(octets // 100)
    print(json.dumps({"bench": "frames", "octets": octets, "items": items, "ok": all(item["ok"] for item in items)}))
    return 0 if all(item["ok"] for item in items) else 1


if __name__ == "__main__":
    sys.exit(main())
