"""Titles and sentences that ``app`` declares in English, in the language of the window.

Names of commands, parameters, quantities, systems and flows are written once, in ``app``, which knows no Qt;
``packaging/translations.py`` collects them into the context ``Model``. Whatever shows one comes here. Words that
nobody has translated, and those that a person wrote, come back as they are.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from PySide6.QtCore import QCoreApplication

from app.model.command import CommandSpec, ParamSpec

_TARIFF: Final = re.compile(r"(.+), tariff ([0-9]+)")  # as app/protocols/obis.py puts a quantity's title together


def model_text(text: str) -> str:
    """One title or sentence of the model."""
    counted = _TARIFF.fullmatch(text)
    if counted is not None:
        what = QCoreApplication.translate("Model", "{what}, tariff {number}")
        return what.format(what=model_text(counted[1]), number=counted[2])
    return QCoreApplication.translate("Model", text) if text else ""


def command_text(name: str) -> str:
    """The title of a command that is known by its name only: ``READ_REPORT`` is "Read report"."""
    return model_text(name.replace("_", " ").capitalize())


def shown_param(spec: ParamSpec) -> ParamSpec:
    """A parameter with what is shown of it translated; what it takes is the same."""
    choices = tuple((value, model_text(title)) for value, title in spec.choices)
    title, words = model_text(spec.title), model_text(spec.help)
    if (title, words, choices) == (spec.title, spec.help, spec.choices):
        return spec
    return replace(spec, title=title, help=words, choices=choices)


def shown_command(spec: CommandSpec) -> CommandSpec:
    """A command with what is shown of it and of its parameters translated."""
    return replace(
        spec,
        title=model_text(spec.title),
        verb=model_text(spec.verb),
        help=model_text(spec.help),
        warning=model_text(spec.warning),
        params=tuple(shown_param(param) for param in spec.params),
    )
