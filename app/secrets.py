"""Where passwords and keys live: the operating system's keyring, or this session's memory.

Never in a workspace, log, export, crash report or on a command line (design.md section 4).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from app.errors import ConfigError

_log = logging.getLogger(__name__)

SERVICE: Final = "meterwright"


class SessionSecrets:
    """Secrets of this session only."""

    def __init__(self) -> None:
        self._words: dict[str, str] = {}

    def get(self, name: str) -> str | None:
        return self._words.get(name)

    def set(self, name: str, value: str) -> None:
        self._words[name] = value

    def delete(self, name: str) -> None:
        self._words.pop(name, None)


class KeyringSecrets:
    """The OS keyring, behind this session's memory (``set_for_session``).

    Args:
        tell: is told of every secret that passes here, so that the program's own texts can leave it out.
    """

    def __init__(self, tell: Callable[[str], None] = lambda _secret: None) -> None:
        self._session = SessionSecrets()
        self._tell = tell

    def get(self, name: str) -> str | None:
        held = self._session.get(name)
        if held is not None:
            return held
        import keyring
        from keyring.errors import KeyringError

        try:
            kept = keyring.get_password(SERVICE, name)
        except KeyringError as exc:
            _log.warning("the keyring cannot be read: %s", type(exc).__name__)
            return None
        if kept is not None:
            self._tell(kept)
        return kept

    def set(self, name: str, value: str) -> None:
        """Store in the keyring.

        Raises:
            ConfigError: this computer has no usable keyring; ``set_for_session`` always works.
        """
        self._tell(value)
        import keyring
        from keyring.errors import KeyringError

        try:
            keyring.set_password(SERVICE, name, value)
        except KeyringError as exc:
            raise ConfigError(
                f"This computer has no usable keyring ({type(exc).__name__}). Keep the secret for this session only, "
                "or unlock the keyring.",
                key=name,
            ) from None
        self._session.delete(name)  # an older one would stand in front of it

    def set_for_session(self, name: str, value: str) -> None:
        self._tell(value)
        self._session.set(name, value)

    def delete(self, name: str) -> None:
        self._session.delete(name)
        import keyring
        from keyring.errors import KeyringError, PasswordDeleteError

        try:
            keyring.delete_password(SERVICE, name)
        except PasswordDeleteError:
            return
        except KeyringError as exc:
            _log.warning("the keyring cannot be written: %s", type(exc).__name__)
