"""Words that stand in the records of the log, in the language of the window.

The log keeps them in English, and the filter language names them so. A word that is not known here, such as the name of
a person or what an older program wrote, comes back as it is.
"""

from __future__ import annotations

import re
from typing import Final

from PySide6.QtCore import QT_TRANSLATE_NOOP, QCoreApplication

from app.model.interaction import Origin

EVENTS: Final[frozenset[str]] = frozenset(
    map(  # it is the text itself, though its stub says object
        str,
        (
            QT_TRANSLATE_NOOP("Event", "abort"),
            QT_TRANSLATE_NOOP("Event", "accepted"),
            QT_TRANSLATE_NOOP("Event", "admit"),
            QT_TRANSLATE_NOOP("Event", "adopted"),
            QT_TRANSLATE_NOOP("Event", "again"),
            QT_TRANSLATE_NOOP("Event", "answered"),
            QT_TRANSLATE_NOOP("Event", "asked"),
            QT_TRANSLATE_NOOP("Event", "at the head-end"),
            QT_TRANSLATE_NOOP("Event", "defer"),
            QT_TRANSLATE_NOOP("Event", "done"),
            QT_TRANSLATE_NOOP("Event", "fail"),
            QT_TRANSLATE_NOOP("Event", "failed"),
            QT_TRANSLATE_NOOP("Event", "failure"),
            QT_TRANSLATE_NOOP("Event", "found"),
            QT_TRANSLATE_NOOP("Event", "handed on"),
            QT_TRANSLATE_NOOP("Event", "late"),
            QT_TRANSLATE_NOOP("Event", "late failure"),
            QT_TRANSLATE_NOOP("Event", "late success"),
            QT_TRANSLATE_NOOP("Event", "lose sight"),
            QT_TRANSLATE_NOOP("Event", "matched"),
            QT_TRANSLATE_NOOP("Event", "no token"),
            QT_TRANSLATE_NOOP("Event", "not cancelled"),
            QT_TRANSLATE_NOOP("Event", "picked"),
            QT_TRANSLATE_NOOP("Event", "queued"),
            QT_TRANSLATE_NOOP("Event", "reached"),
            QT_TRANSLATE_NOOP("Event", "read back"),
            QT_TRANSLATE_NOOP("Event", "reading back"),
            QT_TRANSLATE_NOOP("Event", "received"),
            QT_TRANSLATE_NOOP("Event", "refuse token"),
            QT_TRANSLATE_NOOP("Event", "report"),
            QT_TRANSLATE_NOOP("Event", "retry"),
            QT_TRANSLATE_NOOP("Event", "said"),
            QT_TRANSLATE_NOOP("Event", "saved"),
            QT_TRANSLATE_NOOP("Event", "send"),
            QT_TRANSLATE_NOOP("Event", "sent"),
            QT_TRANSLATE_NOOP("Event", "shared"),
            QT_TRANSLATE_NOOP("Event", "shown"),
            QT_TRANSLATE_NOOP("Event", "standing still"),
            QT_TRANSLATE_NOOP("Event", "succeed"),
            QT_TRANSLATE_NOOP("Event", "success"),
            QT_TRANSLATE_NOOP("Event", "supersede"),
            QT_TRANSLATE_NOOP("Event", "suspend"),
            QT_TRANSLATE_NOOP("Event", "token"),
            QT_TRANSLATE_NOOP("Event", "token asked"),
            QT_TRANSLATE_NOOP("Event", "transmitted"),
            QT_TRANSLATE_NOOP("Event", "triage"),
            QT_TRANSLATE_NOOP("Event", "tried again"),
            QT_TRANSLATE_NOOP("Event", "uncertain"),
            QT_TRANSLATE_NOOP("Event", "uninstall"),
            QT_TRANSLATE_NOOP("Event", "unknown"),
            QT_TRANSLATE_NOOP("Event", "unsolicited"),
        ),
    )
)
ACTORS: Final[frozenset[str]] = frozenset(
    map(  # it is the text itself, though its stub says object
        str,
        (
            QT_TRANSLATE_NOOP("Actor", "app"),
            QT_TRANSLATE_NOOP("Actor", "batch"),
            QT_TRANSLATE_NOOP("Actor", "command line"),
            QT_TRANSLATE_NOOP("Actor", "commissioning"),
            QT_TRANSLATE_NOOP("Actor", "flow"),
            QT_TRANSLATE_NOOP("Actor", "follow up"),
            QT_TRANSLATE_NOOP("Actor", "gatekeeper"),
            QT_TRANSLATE_NOOP("Actor", "import"),
            QT_TRANSLATE_NOOP("Actor", "order"),
            QT_TRANSLATE_NOOP("Actor", "reconciler"),
            QT_TRANSLATE_NOOP("Actor", "replay"),
            QT_TRANSLATE_NOOP("Actor", "tour"),
            QT_TRANSLATE_NOOP("Actor", "triage"),
            QT_TRANSLATE_NOOP("Actor", "unsolicited"),
            QT_TRANSLATE_NOOP("Actor", "user"),
        ),
    )
)
RULES: Final[frozenset[str]] = frozenset(
    map(  # it is the text itself, though its stub says object
        str,
        (
            QT_TRANSLATE_NOOP("Rule", "after an outage"),
            QT_TRANSLATE_NOOP("Rule", "all gateways down"),
            QT_TRANSLATE_NOOP("Rule", "behind suspended"),
            QT_TRANSLATE_NOOP("Rule", "capability"),
            QT_TRANSLATE_NOOP("Rule", "device busy"),
            QT_TRANSLATE_NOOP("Rule", "disconnected"),
            QT_TRANSLATE_NOOP("Rule", "expired"),
            QT_TRANSLATE_NOOP("Rule", "forbidden"),
            QT_TRANSLATE_NOOP("Rule", "foreign write"),
            QT_TRANSLATE_NOOP("Rule", "gateway down"),
            QT_TRANSLATE_NOOP("Rule", "grid down"),
            QT_TRANSLATE_NOOP("Rule", "link down"),
            QT_TRANSLATE_NOOP("Rule", "never seen"),
            QT_TRANSLATE_NOOP("Rule", "never seen, commissioning"),
            QT_TRANSLATE_NOOP("Rule", "not seen recently"),
            QT_TRANSLATE_NOOP("Rule", "planned"),
            QT_TRANSLATE_NOOP("Rule", "recovery grace"),
            QT_TRANSLATE_NOOP("Rule", "retry of a commissioning"),
            QT_TRANSLATE_NOOP("Rule", "unreachable"),
        ),
    )
)
_PHASE: Final = re.compile(r"phase (.+) given up")  # as app/pipeline/dispatch.py puts it together
_NUMBERED: Final = re.compile(r"(batch|flow) ([0-9]+)")


def event_word(event: str) -> str:
    """What happened in a line of a history: an event's name, or a short word."""
    words = event.replace("_", " ").lower()
    if (phase := _PHASE.fullmatch(words)) is not None:
        return QCoreApplication.translate("Event", "phase {phase} given up").format(phase=phase[1])
    return QCoreApplication.translate("Event", words) if words in EVENTS else words


def actor_word(actor: str) -> str:
    """Who did it: a person by name, or a part of the program, or a numbered batch or flow."""
    numbered = _NUMBERED.fullmatch(actor)
    if numbered is not None:
        return f"{actor_word(numbered[1])} {numbered[2]}"
    return QCoreApplication.translate("Actor", actor) if actor in ACTORS else actor


def origin_word(origin: Origin) -> str:
    """Who asked for an interaction."""
    return actor_word(origin.value.lower().replace("_", " "))


def rule_word(rule: str) -> str:
    """The name of a rule of the gatekeeper."""
    return QCoreApplication.translate("Rule", rule) if rule in RULES else rule
