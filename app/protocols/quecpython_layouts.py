"""Layouts of the bodies on the QuecPython module link, declared (specs/quecpython-rfc1662.md section 4).

``pid`` is little-endian, ``rid`` in the order of the dialect; ``len`` counts the octets that follow it. What a layout
cannot say (that ``len`` fits, what content a parameter has) is checked by ``quecpython``, which can name the fault.
Imported on first use: the library behind it is slow to load.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from construct import Const, GreedyBytes, Int8ub, Int16ub, Int16ul, Int32ub, Prefixed, Struct

ONE: Final = Const(1, Int8ub)
RID: Final[Mapping[str, Any]] = MappingProxyType({"big": Int16ub, "little": Int16ul})

GET_SHORT: Final = Struct("pid" / Int16ul).compile()  # 4.2
GET_LONG: Final[Mapping[str, Any]] = MappingProxyType(
    {order: Struct("pid" / Int16ul, "rid" / rid).compile() for order, rid in RID.items()}
)
CONTENT: Final = Struct("pid" / Int16ul, "len" / Int8ub, "content" / GreedyBytes).compile()  # 4.3, 4.5
TYPED: Final[Mapping[str, Any]] = MappingProxyType(
    {order: Struct("rid" / rid, "tag" / Int8ub, "value" / GreedyBytes).compile() for order, rid in RID.items()}
)
STATUS: Final = Struct("pid" / Int16ul, "len" / ONE, "status" / Int8ub).compile()  # 4.4, 4.6, G1 of 4.7
ACKNOWLEDGE: Final = Struct("len" / ONE, "status" / Int8ub).compile()  # G2 of 4.7
NUMBERS: Final[Mapping[int, Any]] = MappingProxyType({1: Int8ub, 2: Int16ub, 4: Int32ub})  # by size (3.4)
STRING: Final = Prefixed(Int8ub, GreedyBytes)
