"""How a meter's line settings were looked for: every attempt with its octets, the one that found it on top.

Shape of ``Interaction.result``: ``attempts`` of ``{"number", "format", "parity": "port"|"software", "sent" (hex),
"received" (hex), "text", "verdict": "silent"|"noise"|"identified", "seconds"}``, and beside them ``identification``,
``format`` and ``mode`` of the meter that was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from PySide6.QtCore import QCoreApplication

from ui.theme import QT_TRANSLATE_NOOP, Look, Role, Shape

translate: Final = QCoreApplication.translate

_IDENTIFIED: Final = "identified"
ATTEMPT_LOOKS: Final[Mapping[str, Look]] = MappingProxyType(
    {
        _IDENTIFIED: Look(QT_TRANSLATE_NOOP("Detection", "identified"), Role.GOOD, Shape.TICK, context="Detection"),
        "noise": Look(
            QT_TRANSLATE_NOOP("Detection", "unreadable"), Role.WARNING, Shape.WARNING_TRIANGLE, context="Detection"
        ),
        "silent": Look(
            QT_TRANSLATE_NOOP("Detection", "silent"), Role.NEUTRAL, Shape.HOLLOW_CIRCLE, context="Detection"
        ),
    }
)
_OTHER: Final = Look(QT_TRANSLATE_NOOP("Detection", "unknown"), Role.NEUTRAL, Shape.QUESTION, context="Detection")
_FOUND: Final = Look(QT_TRANSLATE_NOOP("Detection", "found"), Role.GOOD, Shape.TICK, context="Detection")
_NOT_FOUND: Final = Look(
    QT_TRANSLATE_NOOP("Detection", "not found"), Role.WARNING, Shape.WARNING_TRIANGLE, context="Detection"
)


def is_detection(result: Mapping[str, Any]) -> bool:
    return isinstance(result.get("attempts"), list | tuple) and "format" in result


def attempts_of(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The attempts, those that found the meter first, the others in their order."""
    attempts = result.get("attempts")
    listed = [one for one in (attempts if isinstance(attempts, list | tuple) else ()) if isinstance(one, Mapping)]
    return sorted(listed, key=lambda one: one.get("verdict") != _IDENTIFIED)


def attempt_look(attempt: Mapping[str, Any]) -> Look:
    return ATTEMPT_LOOKS.get(str(attempt.get("verdict")), _OTHER)


def detection_look(result: Mapping[str, Any]) -> Look:
    return _FOUND if _is_found(result) else _NOT_FOUND


def _is_found(result: Mapping[str, Any]) -> bool:
    return any(one.get("verdict") == _IDENTIFIED for one in attempts_of(result))


def detection_sentence(result: Mapping[str, Any]) -> str:
    """What was found and that it is kept, or what to do when nothing was."""
    attempts = attempts_of(result)
    if _is_found(result):
        mode = str(result.get("mode") or "")
        what = (
            translate("Detection", "The meter answers at {format} in mode {mode}.")
            if mode
            else translate("Detection", "The meter answers at {format}.")
        )
        told = what.format(format=result.get("format") or attempts[0].get("format"), mode=mode)
        kept = translate("Detection", "These settings were taken over, and are tried first for this model from now on.")
        return f"{told} {kept}"
    if any(one.get("verdict") == "noise" for one in attempts):
        return translate(
            "Detection",
            "Octets came, but at no rate could they be read. Seat the optical head again, or look whether another "
            "program or meter speaks on this line.",
        )
    return translate(
        "Detection",
        "No meter answered. Look at the cable, the optical head and the power of the meter, then detect again.",
    )


def hex_text(octets: Any) -> str:
    """Hex digits in pairs; what is no such text stays as it is."""
    text = "".join(str(octets or "").split())
    try:
        return bytes.fromhex(text).hex(" ").upper()
    except ValueError:
        return text


def attempt_cells(attempt: Mapping[str, Any]) -> Sequence[str]:
    """One attempt as texts: number, verdict, format, parity, time, sent, received as text, and received."""
    parity = attempt.get("parity")
    words = {"port": translate("Detection", "by the port"), "software": translate("Detection", "by software")}
    seconds = attempt.get("seconds")
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    return (
        str(attempt.get("number") or ""),
        attempt_look(attempt).text,
        str(attempt.get("format") or ""),
        words.get(str(parity), str(parity or "")),
        f"{seconds:.2f}" if is_number else str(seconds or ""),
        hex_text(attempt.get("sent")),
        str(attempt.get("text") or ""),
        hex_text(attempt.get("received")),
    )
