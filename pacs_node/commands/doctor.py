"""doctor: is everything there that the service needs?"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from pacs_node.cli import EXIT_FAILED
from pacs_node.commands.context import settings_of
from pacs_node.settings import Destination, Settings, SettingsError, hide_secrets


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at."""

    part: str
    ok: bool
    found: str


@click.command(epilog="Example: pulmolink --config /etc/pulmolink.toml doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check configuration, database, objects, model and each destination (C-ECHO and SOP Classes accepted)."""
    try:
        settings = settings_of(ctx)
    except SettingsError as error:
        checks = [Check(part="configuration", ok=False, found=str(error))]
    else:
        checks = list(_checks(settings))
    if as_json:
        click.echo(json.dumps([vars(check) for check in checks], indent=2))
    else:
        table = Table("part", "", "found", title="pulmolink doctor (research use only)", title_justify="left")
        for check in checks:
            table.add_row(check.part, "[green]ok[/]" if check.ok else "[red]FAULT[/]", check.found)
        Console().print(table)
    if not all(check.ok for check in checks):
        ctx.exit(EXIT_FAILED)


def _checks(settings: Settings) -> Iterator[Check]:
    yield Check(part="configuration", ok=True, found=f"AE title {settings.node.ae_title}")
    yield _run("database", lambda: _database(settings))
    yield _run("objects", lambda: _objects(settings.storage.objects, settings.limits.free_disk_bytes))
    yield _run("model", lambda: _model(settings))
    yield _run("DICOM port", lambda: _port(settings.node.host, settings.node.port, "node.host, node.port"))
    yield _run("web port", lambda: _port(settings.web.host, settings.web.port, "web.host, web.port"))
    if not settings.destinations:
        yield Check(part="destinations", ok=True, found="none configured: reports are stored and not sent")
    for destination in settings.destinations:
        yield _run(f"destination {destination.name}", lambda d=destination: _destination(d, settings))  # type: ignore[misc]


class _Fault(Exception):
    """A check failed; the message says what to do."""


def _run(part: str, check: Callable[[], str]) -> Check:
    from inference.manifest import PackageRefused
    from storage.errors import StorageError

    try:
        return Check(part=part, ok=True, found=check())
    except (_Fault, PackageRefused, StorageError, OSError) as error:
        hint = getattr(error, "hint", "")
        return Check(part=part, ok=False, found=f"{error}" + (f" ({hint})" if hint else ""))


def _database(settings: Settings) -> str:
    from storage import database

    url = settings.storage.database
    file = database.sqlite_file(url)
    if file is not None and not file.exists():
        raise _Fault(f"{file} does not exist yet; `pulmolink db upgrade` or the first `serve` makes it")
    database.check_revision(url)
    return f"{hide_secrets(url)}, schema current"


def _objects(folder: Path, needed: int) -> str:
    if not folder.is_dir():
        raise _Fault(f"{folder} does not exist yet; the first `serve` makes it")
    with tempfile.TemporaryFile(dir=folder):
        pass
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise _Fault(f"{folder}: {free >> 20} MiB free, less than limits.free_disk_bytes")
    return f"{folder} is writable, {free >> 20} MiB free"


def _model(settings: Settings) -> str:
    from inference.package import locate
    from inference.predictor import Predictor

    identity = Predictor.load(locate(settings.model.package)).identity
    return (
        f"{identity.name} {identity.version} ({identity.kind}), digest {identity.digest[:12]}, "
        "every file's digest holds, golden cases reproduced"
    )


def _port(host: str, port: int, keys: str) -> str:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            try:
                socket.create_connection((host, port), timeout=2).close()
            except OSError:
                raise _Fault(f"cannot listen on {host}:{port} ({keys}): {error.strerror}") from None
            return f"{host}:{port} is in use; by the running service, or else change {keys}"
    return f"{host}:{port} is free"


def _destination(destination: Destination, settings: Settings) -> str:
    from pydicom.uid import ExplicitVRLittleEndian

    from pacs_node.dicom.client import Conversation, Unreachable
    from pacs_node.flow.deliver import CLASS_OF, CONTEXTS, peer_of

    try:
        with Conversation(peer_of(destination, settings), CONTEXTS) as conversation:
            status = conversation.echo()
            refused = [
                kind for kind in destination.sends if not conversation.accepts(CLASS_OF[kind], ExplicitVRLittleEndian)
            ]
    except Unreachable as error:
        raise _Fault(
            f"{destination.ae_title} at {destination.host}:{destination.port}: {error}; "
            "check host, port and whether it knows our AE title"
        ) from None
    if status != 0:
        raise _Fault(f"C-ECHO answered 0x{status:04X}")
    if refused:
        raise _Fault(f"does not accept {', '.join(refused)}; allow their SOP Classes there, or change sends")
    return f"C-ECHO answered, accepts {', '.join(destination.sends)}"
