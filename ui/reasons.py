"""Why an interaction stands where it stands and what came of its token, for log, detail, strip and panels."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

from app.model.command import CommandKind
from app.model.interaction import Interaction
from app.model.status import Status


def reason_text(item: Interaction) -> str:
    """What holds it back and what lets it go on, or what ended it and what to do; empty where there is nothing."""
    failure = item.failure
    if failure is not None and failure.text:
        if failure.release and item.status in (Status.SUSPENDED, Status.DEFERRED):
            text = QCoreApplication.translate("Reason", "{cause}  Goes on when: {release}")
            return text.format(cause=failure.text, release=failure.release)
        return f"{failure.text}  {failure.release}".rstrip()
    if item.status is Status.DEFERRED and item.commissioning is not None:
        return QCoreApplication.translate(
            "Reason", "Earlier steps of its commissioning are not done yet.  Goes on when: They are."
        )
    return ""


def token_accepted(item: Interaction) -> bool | None:
    """What the meter said to a token; None for any other command, and before it said anything."""
    if item.kind is not CommandKind.TOKEN or item.result is None:
        return None
    said = item.result.get("accepted")
    return said if isinstance(said, bool) else None
