"""The keyring behind this session's memory."""

from __future__ import annotations

import keyring
import pytest
from keyring.errors import KeyringError

from app.errors import ConfigError
from app.secrets import KeyringSecrets


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    words: dict[str, str] = {}
    monkeypatch.setattr(keyring, "set_password", lambda _service, name, value: words.update({name: value}))
    monkeypatch.setattr(keyring, "get_password", lambda _service, name: words.get(name))
    return words


def test_what_is_kept_replaces_what_was_for_this_session(kept: dict[str, str]) -> None:
    secrets = KeyringSecrets()
    secrets.set_for_session("meter.password", "old words")
    assert secrets.get("meter.password") == "old words"
    secrets.set("meter.password", "new words")
    assert kept == {"meter.password": "new words"}
    assert secrets.get("meter.password") == "new words"


def test_a_keyring_that_refuses_leaves_the_session_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_service: str, _name: str, _value: str) -> None:
        raise KeyringError("locked")

    monkeypatch.setattr(keyring, "set_password", refuse)
    secrets = KeyringSecrets()
    secrets.set_for_session("meter.password", "old words")
    with pytest.raises(ConfigError, match="session only"):
        secrets.set("meter.password", "new words")
    assert secrets.get("meter.password") == "old words"
