"""Verbs that give a log to somebody else: log share, log bundle."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from app.commands.common import (
    DONE,
    Printer,
    chosen_profile,
    chosen_workspace,
    existing_workspace,
    finish,
    json_option,
    parse_moment,
    workspace_option,
)
from app.commands.logs import STATUS_HELP, log
from app.errors import ParameterError
from app.interaction_log.filters import Filter, parse
from app.interaction_log.pseudonyms import ALL_KINDS, TITLES, Kind, Redaction, Replacement
from app.interaction_log.reader import LogReader
from app.interaction_log.share import Form, Progress, Samples, form_of, preview, secrets_of, share
from app.secrets import KeyringSecrets
from app.support_bundle import Part, bundle_name, refuse_to_replace, write_bundle
from app.team.address import PASSWORD_VARIABLES

__all__ = ["log"]

PROGRESS_S: Final = 2.0  # between two lines of progress
REDACT_HELP: Final = (
    "What gets pseudonyms, with commas between: " + "; ".join(f"{kind}: {TITLES[kind]}" for kind in Kind)
    + ". Or all, or none. Secrets are hidden in any case."
)  # fmt: skip

_redact_option = click.option("--redact", default="all", show_default=True, metavar="KINDS", help=REDACT_HELP)


@log.command("share")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--to", "form_name", type=click.Choice([form.value for form in Form]), help="Without it: by FILE's name.")
@click.option("--filter", "filter_text", default="", help=STATUS_HELP)
@_redact_option
@click.option("--samples", is_flag=True, help="With the samples of the devices (mwk, jsonl).")
@click.option("--since", default=None, help="Samples from this ISO 8601 time on.")
@click.option("--until", default=None, help="Samples before this ISO 8601 time.")
@click.option("--preview", "is_preview", is_flag=True, help="Only say what would be replaced; nothing is written.")
@workspace_option
@json_option
@click.pass_context
def log_share(
    context: click.Context,
    file: Path,
    form_name: str | None,
    filter_text: str,
    redact: str,
    samples: bool,
    since: str | None,
    until: str | None,
    is_preview: bool,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Write a part of the log for somebody else to FILE: *.mwk, *.jsonl, *.csv, *.html or *.pcapng."""

    def work() -> int:
        printer = Printer(as_json)
        form = Form(form_name) if form_name is not None else form_of(file)
        where = _filter(filter_text)
        span = Samples(parse_moment(since, "since"), parse_moment(until, "until"))
        wanted = span if samples or since is not None or until is not None else None
        kinds = _kinds(redact)
        with contextlib.closing(LogReader(existing_workspace(context, workspace))) as reader:
            redaction = _redaction(kinds, reader)
            progress = _progress(printer)
            if is_preview:
                found = preview(reader, redaction, where, samples=wanted, on_progress=progress)
                for one in found:
                    said = f"{one.kind}: {one.original} -> {one.pseudonym} ({one.count} times)"
                    printer.show(_replacement(one), said)
                printer.show({"replaced": len(found)}, f"{len(found)} different words would be replaced.")
                return DONE
            done = share(reader, file, redaction, where, form=form, samples=wanted, on_progress=progress)
        record = {
            "file": str(file), "form": done.form, "interactions": done.interactions, "frames": done.frames,
            "replaced": len(done.replaced), "attachments": done.attachments,
            "attachments_left_out": done.attachments_left_out,
        }  # fmt: skip
        hidden = f"; {len(done.replaced)} different words were replaced" if kinds else ""
        if done.attachments_left_out:
            left = done.attachments_left_out
            hidden += f"; {left} attachments were left out: what stands in a picture cannot be replaced"
        printer.show(record, f"{done.interactions} interactions written to {file}{hidden}.")
        return DONE

    finish(work)


@log.command("bundle")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--filter", "filter_text", default="", help="The part of the log that goes along. " + STATUS_HELP)
@click.option("--log", "with_log", is_flag=True, help="With the whole log, or with what --filter says.")
@click.option("--about", default="", help="What happened, in your words.")
@_redact_option
@workspace_option
@json_option
@click.pass_context
def log_bundle(
    context: click.Context,
    file: Path | None,
    filter_text: str,
    with_log: bool,
    about: str,
    redact: str,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Write a support bundle (ZIP): versions, settings, the doctor's findings and, if wanted, a part of the log."""

    def work() -> int:
        printer = Printer(as_json)
        target = file if file is not None else Path(bundle_name(datetime.now(UTC)))
        refuse_to_replace(target)
        where = _filter(filter_text)
        kinds = _kinds(redact)
        path = existing_workspace(context, workspace) if workspace is not None else chosen_workspace(context, None)
        part = Part(where=where) if with_log or where is not None else None
        if part is not None:
            existing_workspace(context, workspace)
        with contextlib.ExitStack() as stack:
            reader = stack.enter_context(contextlib.closing(LogReader(path))) if path.exists() else None
            redaction = Redaction(kinds) if reader is None else _redaction(kinds, reader)
            bundle = write_bundle(
                target, redaction, profile=chosen_profile(context), reader=reader, part=part, about=about,
                on_progress=_progress(printer),
            )  # fmt: skip
        record = {"file": str(target), "files": list(bundle.names), "replaced": len(bundle.replaced)}
        printer.show(record, f"{target} holds {', '.join(bundle.names)}. Look through it before you send it.")
        return DONE

    finish(work)


def _filter(text: str) -> Filter | None:
    return parse(text, datetime.now(UTC)) if text.strip() else None


def _kinds(text: str) -> frozenset[Kind]:
    """From the option.

    Raises:
        ParameterError: a word that is no kind.
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    if words == ["all"]:
        return ALL_KINDS
    if words in ([], ["none"]):
        return frozenset()
    unknown = [word for word in words if word not in ALL_KINDS]
    if unknown:
        raise ParameterError(f"--redact knows {', '.join(Kind)}, all and none, not {unknown[0]!r}.", "redact")
    return frozenset(map(Kind, words))


def _redaction(kinds: frozenset[Kind], reader: LogReader) -> Redaction:
    """One that knows the secrets of the workspace's devices, and those this command was given."""
    secrets = secrets_of(reader.snapshot().devices, KeyringSecrets())
    given = {os.environ.get(name, "") for name in PASSWORD_VARIABLES} - {""}
    return Redaction(kinds, secrets=secrets | given)


def _replacement(one: Replacement) -> dict[str, Any]:
    return {"kind": one.kind, "original": one.original, "pseudonym": one.pseudonym, "count": one.count}


def _progress(printer: Printer) -> Progress:
    """Says how far it is, every few seconds."""
    said = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= PROGRESS_S:
            said = time.monotonic()
            printer.note(f"{done * 100 // max(1, total)} %")

    return tell
