"""What a device said must not steer the terminal."""

from __future__ import annotations

import pytest

from app.commands.common import Printer, printable


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("1.8.0(1*kWh)\r\n!\r\n", "1.8.0(1*kWh)\n!\n"),
        ("\x1b[2Jgone", "\u241b[2Jgone"),
        ("\x02a\x03", "\u2402a\u2403"),
        ("a\rb", "a\u240db"),
        ("\x9b31m \x7f", "\u242131m \u2421"),
        ("tab\there, ü, 电", "tab\there, ü, 电"),
    ],
)
def test_control_characters_stand_as_symbols(said: str, shown: str) -> None:
    assert printable(said) == shown


def test_every_sentence_goes_through_it(capsys: pytest.CaptureFixture[str]) -> None:
    Printer(as_json=False).show({}, "\x1b]0;title\x07")
    assert capsys.readouterr().out == "\u241b]0;title\u2407\n"
