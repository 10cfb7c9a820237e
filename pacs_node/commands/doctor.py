"""doctor: is everything there that the service needs?"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pacs_node.cli import EXIT_FAILED
from pacs_node.commands.context import settings_of
from pacs_node.flow.room import shortage
from pacs_node.settings import Destination, Limits, Settings, Web
from pacs_node.settings_file import hide_secrets
from pacs_node.settings_tree import SettingsError

ANSWER_SECONDS = 5.0
"""Longest wait for what already listens on our own ports."""
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


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
            table.add_row(escape(check.part), "[green]ok[/]" if check.ok else "[red]FAULT[/]", escape(check.found))
        Console().print(table)
    if not all(check.ok for check in checks):
        ctx.exit(EXIT_FAILED)


def _checks(settings: Settings) -> Iterator[Check]:
    yield Check(part="configuration", ok=True, found=f"AE title {settings.node.ae_title}")
    database = _run("database", lambda: _database(settings))
    yield database
    new = database.ok and _is_new(settings.storage.database)
    objects = _run("objects", lambda: _objects(settings.storage.objects, settings.limits))
    yield objects
    if database.ok and objects.ok:
        yield _run("database and objects", lambda: _together(settings, new=new))
    yield _run("model", lambda: _model(settings, settings.model.where))
    if settings.model.shadow:
        yield _run("shadow", lambda: _model(settings, settings.model.find(settings.model.shadow)))
    yield _run("opening files", _confinement)
    if settings.tls.certificate:
        yield _certificate(settings)
    yield _run("DICOM port", lambda: _dicom_port(settings))
    yield _run("web port", lambda: _web_port(settings))
    if settings.folder.is_watched:
        yield _run("watched folder", lambda: _watched_folder(Path(settings.folder.path)))
    if not settings.destinations:
        yield Check(part="destinations", ok=True, found="none configured: reports are stored and not sent")
    for destination in settings.destinations:
        yield _run(f"destination {destination.name}", lambda d=destination: _destination(d, settings))  # type: ignore[misc]
    if database.ok and not new:
        yield _run("deliveries", lambda: _left_behind(settings))


def _together(settings: Settings, *, new: bool) -> str:
    """Whether the object folder is that of the database. Neither is made here: it would be this user's."""
    from storage.identity import check
    from storage.objects import ObjectStore
    from storage.store import Store

    folder = settings.storage.objects
    is_empty = not folder.is_dir() or not any(folder.iterdir())
    if new:
        objects = None if is_empty else ObjectStore(folder)
        if objects and (objects.owner() is not None or next(objects.digests(), None) is not None):
            raise _Fault(f"the database is new, but {folder} is in use; check [storage] database and objects")
        return "both are new"
    with Store.open(settings.storage.database) as store:
        if not is_empty:
            check(store, ObjectStore(folder))
        elif store.count_instances():
            raise _Fault(f"the database names objects, but {folder} has none; check that its volume is mounted")
    return "belong together"


def _left_behind(settings: Settings) -> str:
    """Deliveries to destinations that are configured no more."""
    from storage.records import DeliveryState
    from storage.store import Store

    configured = {destination.name for destination in settings.destinations}
    with Store.open(settings.storage.database) as store:
        counts = store.count_deliveries()
    gone = {name: n for (name, state), n in counts.items() if state is DeliveryState.PENDING and name not in configured}
    if gone:
        listed = ", ".join(f"{number} to {name}" for name, number in sorted(gone.items()))
        raise _Fault(
            f"deliveries to destinations that are not configured: {listed}; configure them, "
            "or give them up: pulmolink deliver --to NAME --cancel"
        )
    return "every pending delivery has a configured destination"


class _Fault(Exception):
    """A check failed; the message says what to do."""


def _run(part: str, check: Callable[[], str]) -> Check:
    from inference.manifest import PackageRefused
    from storage.errors import StorageError

    try:
        return Check(part=part, ok=True, found=check())
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return Check(part=part, ok=False, found=f"{where}{error.strerror or error}")
    except (_Fault, PackageRefused, StorageError) as error:
        hint = getattr(error, "hint", "")
        return Check(part=part, ok=False, found=f"{error}" + (f" ({hint})" if hint and hint not in str(error) else ""))


def _is_new(url: str) -> bool:
    """Whether the first `serve` makes this database, or what is in it."""
    from storage import database
    from storage.errors import SchemaOutdated

    file = database.sqlite_file(url)
    if file is not None and not file.exists():
        return True
    try:
        database.check_revision(url)
    except SchemaOutdated as error:
        return not error.found
    return False


def _database(settings: Settings) -> str:
    from storage import database

    url = settings.storage.database
    file = database.sqlite_file(url)
    if file is not None and not file.exists():
        _nearest_folder(file, "storage.database")
        return f"{file} does not exist yet; the first `serve` makes it"
    if file is not None and not (os.access(file, os.R_OK | os.W_OK) and os.access(file.parent, os.W_OK | os.X_OK)):
        raise _Fault(f"{file} or its folder cannot be read and written by this user (storage.database)")
    if _is_new(url):
        return f"{hide_secrets(url)} is empty; the first `serve` makes its tables"
    database.check_revision(url)
    return f"{hide_secrets(url)}, schema current"


def _objects(folder: Path, limits: Limits) -> str:
    if not folder.is_dir():
        place = _nearest_folder(folder, "storage.objects")
        if short := shortage(place, limits):
            raise _Fault(f"{folder} does not exist yet, and there is no room for it: {short}")
        return f"{folder} does not exist yet; the first `serve` makes it"
    with tempfile.TemporaryFile(dir=folder):
        pass
    free = shutil.disk_usage(folder).free
    if short := shortage(folder, limits):
        raise _Fault(f"{folder}: {short}, {free >> 20} MiB free")
    return f"{folder} is writable, {free >> 20} MiB free"


def _nearest_folder(path: Path, key: str) -> Path:
    """The folder under which `path`, which is not there, would be made; a fault where this user may not."""
    place = next(place for place in (path, *path.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise _Fault(f"{path} cannot be made: {place}: {error.strerror} ({key})") from None
    return place


def _model(settings: Settings, package: str) -> str:
    from inference.package import locate
    from inference.predictor import Predictor

    model = settings.model
    identity = Predictor.load(locate(package), public_key=model.key, device=model.device).identity
    signed = ", signature holds" if settings.model.key else ""
    return (
        f"{identity.name} {identity.version} ({identity.kind}), digest {identity.digest[:12]}, "
        f"every file's digest holds, golden cases reproduced{signed}"
    )


def _confinement() -> str:
    """How far a process that opens a file can be confined here."""
    from pacs_node.opening.confinement import make_fence
    from pacs_node.opening.opener import NO_LANDLOCK

    fence = make_fence()
    if not fence.version:
        return f"WARNING: {NO_LANDLOCK}"
    os.close(fence.descriptor)
    return f"in processes confined by Landlock, version {fence.version}"


def _certificate(settings: Settings) -> Check:
    """Our certificate, its key, the authorities, and how long the certificate is valid."""
    from pacs_node.dicom.tls import standing
    from pacs_node.service import utc_now

    own = standing(settings.tls, utc_now())
    return Check(part="TLS", ok=own.usable and not own.warning, found=own.sentence)


def _dicom_port(settings: Settings) -> str:
    from pydicom.uid import ExplicitVRLittleEndian

    from pacs_node.dicom.client import Conversation, Peer, Unreachable
    from pacs_node.flow.sop_classes import COMPREHENSIVE_3D_SR

    node = settings.node
    if settings.tls.only:
        free = "is free" if _free(node.host, settings.tls.port) else "is in use (by the running service, if it runs)"
        return f"{node.host}:{settings.tls.port} (TLS only) {free}"
    if _free(node.host, node.port):
        return f"{node.host}:{node.port} is free"
    if not _would_admit_us(settings) and _is_our_web_port(settings.web):
        # To ask it more would be a rejected association: an alarm in its audit, each time that doctor runs.
        return f"{node.host}:{node.port} is in use, and the running service answers on its web port"
    peer = Peer(
        ae_title=node.ae_title,
        host=_reachable(node.host),
        port=node.port,
        calling_ae_title=node.ae_title,
        timeout_seconds=ANSWER_SECONDS,
    )
    try:
        with Conversation(peer, [(COMPREHENSIVE_3D_SR, str(ExplicitVRLittleEndian))]) as conversation:
            is_archive = conversation.accepts(COMPREHENSIVE_3D_SR, str(ExplicitVRLittleEndian))
    except Unreachable as error:
        if "rejected" in str(error):  # our own service refuses callers that are not in sources
            return f"{node.host}:{node.port} is in use by a DICOM node that knows only its sources"
        raise _Fault(f"{node.host}:{node.port} is in use by something else (change node.port)") from None
    if is_archive:  # our receiver takes no reports
        raise _Fault(f"{node.host}:{node.port} is in use by another DICOM node (change node.port)")
    return f"{node.host}:{node.port} is answered by the running service"


def _web_port(settings: Settings) -> str:
    web = settings.web
    if _free(web.host, web.port):
        return f"{web.host}:{web.port} is free"
    if not _is_our_web_port(web):
        raise _Fault(f"{web.host}:{web.port} is in use by something else (change web.port)")
    return f"{web.host}:{web.port} is answered by the running service"


def _is_our_web_port(web: Web) -> bool:
    """Whether the running service answers there."""
    url = f"http://{_reachable(web.host)}:{web.port}/healthz"
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:
            return bool(json.loads(answer.read(1000)) == {"status": "ok"})
    except (OSError, ValueError, HTTPException):  # or nobody there speaks HTTP
        return False


def _would_admit_us(settings: Settings) -> bool:
    """Whether our own title, from the address that we call our own port from, is one of the sources."""
    from pacs_node.dicom.sources import Sources, WrongCertificate

    node = settings.node
    try:
        with socket.create_connection((_reachable(node.host), node.port), timeout=ANSWER_SECONDS) as line:
            address = str(line.getsockname()[0])
    except OSError as error:
        raise _Fault(f"{node.host}:{node.port} is in use, but answers nobody: {error.strerror or error}") from None
    try:
        return Sources(settings.sources).admit(node.ae_title, address, None) is not None
    except WrongCertificate:
        return False


def _watched_folder(folder: Path) -> str:
    """Whether files can be taken from the folder that carts export into."""
    if not folder.is_dir():
        raise _Fault(f"{folder} is no folder; check folder.path and that it is mounted")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise _Fault(f"{folder} cannot be read and written by this user; files are moved away once they are stored")
    waiting = sum(1 for path in folder.iterdir() if path.is_file())
    return f"{folder}, {waiting} files wait in it"


def _free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _reachable(host: str) -> str:
    return "localhost" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - a comparison, nothing is bound


def _destination(destination: Destination, settings: Settings) -> str:
    from pydicom.uid import ExplicitVRLittleEndian

    from pacs_node.dicom import tls
    from pacs_node.dicom.client import COMMITMENT_CONTEXTS, Conversation, Unreachable
    from pacs_node.flow.deliver import CLASS_OF, CONTEXTS, peer_of

    peer = peer_of(destination, settings)
    secured = ""
    try:
        if peer.tls is not None:
            secured = f"; {tls.call(peer.host, peer.port, peer.tls, ANSWER_SECONDS)}"
        with Conversation(peer, (*CONTEXTS, *COMMITMENT_CONTEXTS)) as conversation:
            status = conversation.echo()
            refused = [
                kind for kind in destination.sends if not conversation.accepts(CLASS_OF[kind], ExplicitVRLittleEndian)
            ]
            commits = conversation.commits()
    except tls.TlsFault as fault:
        raise _Fault(f"{destination.ae_title} at {destination.host}:{destination.port}: {fault}") from None
    except Unreachable as error:
        raise _Fault(
            f"{destination.ae_title} at {destination.host}:{destination.port}: {error}; "
            "check host, port and whether it knows our AE title"
        ) from None
    if status != 0:
        raise _Fault(f"C-ECHO answered 0x{status:04X}")
    if refused:
        raise _Fault(f"does not accept {', '.join(refused)}; allow their SOP Classes there, or change sends")
    if destination.commitment and not commits:
        raise _Fault("does not accept storage commitment; allow it there, or set commitment = false")
    known = {source.ae_title for source in settings.sources}
    if destination.commitment and destination.ae_title not in known and (known or destination.host not in LOOPBACK):
        raise _Fault(
            f"commitment = true, but {destination.ae_title} is not one of [[sources]]: its reports would be rejected"
        )
    commits_too = ", commits" if destination.commitment else ""
    return f"C-ECHO answered, accepts {', '.join(destination.sends)}{commits_too}{secured}"
