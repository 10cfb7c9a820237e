"""The commands that run processes: serve, receive, work, schedule, web."""

from __future__ import annotations

import gc
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click
import structlog

from pacs_node import reload
from pacs_node.cli import SUPERVISED
from pacs_node.commands.context import open_store, opened, settings_of
from pacs_node.log import configure
from pacs_node.service import Supervisor, hangup_event, stop_event, utc_now, wait_for_port
from pacs_node.settings import Settings
from pacs_node.settings_tree import SettingsError

if TYPE_CHECKING:
    from pacs_node.dicom.server import OpenReception

log = structlog.get_logger()


class NotServing(Exception):
    """The web port's server ended although nobody stopped it."""


supervised_option = click.option(SUPERVISED, is_flag=True, help="Stop when standard input closes (set by `serve`).")


@click.command(epilog="Example: pulmolink --config /etc/pulmolink.toml serve")
@click.pass_context
def serve(ctx: click.Context) -> None:
    """Run receiver, workers, scheduler and web until SIGTERM; what ends is started again."""
    settings = settings_of(ctx, service=True)
    from inference.package import locate, read_identity

    _check(settings)
    identity = read_identity(locate(settings.model.where))
    with open_store(settings, create=True):
        pass  # sets up an empty database and says at once what cannot be opened
    for host, port, keys in (
        *(() if settings.tls.only else ((settings.node.host, settings.node.port, "node.host, node.port"),)),
        *(((settings.node.host, settings.tls.port, "node.host, tls.port"),) if settings.tls.port else ()),
        (settings.web.host, settings.web.port, "web.host, web.port"),
    ):
        try:
            wait_for_port(host, port)
        except OSError as error:
            raise SettingsError([f"{keys}: cannot listen on {host}:{port}: {error.strerror}"]) from None
    config: Path | None = ctx.find_root().obj
    stop = stop_event(supervised=False)
    hangup = hangup_event(stop)
    log.info(
        "serving",
        ae_title=settings.node.ae_title,
        port=0 if settings.tls.only else settings.node.port,
        tls_port=settings.tls.port,
        web_port=settings.web.port,
        model=f"{identity.name} {identity.version}",
        notice="research use only",
    )
    Supervisor(settings, config, _check).run(stop, hangup)
    log.info("stopped")


def refuse_unusable(settings: Settings, *, shadow: bool) -> None:
    """Pass if the models and certificates that are named can be used, as far as that is told without loading them.

    Parameters
    ----------
    shadow
        Whether to look at model.shadow too; a service runs on without its shadow.

    Raises
    ------
    PackageRefused, TlsFault
        One cannot.
    """
    from inference.package import locate, read_identity
    from inference.signature import vouched_manifest
    from pacs_node.dicom import tls

    model = settings.model
    for name in (model.package, *((model.shadow,) if shadow and model.shadow else ())):
        package = locate(model.find(name))
        read_identity(package)
        if model.key is not None:
            vouched_manifest(package, model.key)
    tls.check(settings.tls, settings.destinations, settings.sources)


def _check(settings: Settings) -> None:
    """As `refuse_unusable` of what is served; says what is about to end."""
    from pacs_node.dicom import tls

    refuse_unusable(settings, shadow=False)
    if settings.tls.certificate:
        own = tls.standing(settings.tls, utc_now())
        if own.warning:
            log.warning("certificate_ends", reason=own.sentence)


@click.command(epilog="Example: pulmolink --config /etc/pulmolink.toml receive")
@supervised_option
@click.pass_context
def receive(ctx: click.Context, supervised: bool) -> None:
    """Run the DICOM receiver: C-ECHO, C-STORE and storage commitment."""
    from pacs_node.dicom.audit import Audit
    from pacs_node.dicom.server import NotAccepting, StorageServer
    from pacs_node.dicom.tls import TlsFault
    from pacs_node.flow.commitment_desk import CommitmentDesk
    from pacs_node.flow.receive import Receiver

    with opened(ctx, service=True, create=True, supervised=supervised) as node:
        settings = node.settings

        def receiving(settings: Settings) -> OpenReception:
            return Receiver(node.store, node.objects, settings, utc_now).open

        def desk(settings: Settings) -> CommitmentDesk:
            return CommitmentDesk(node.store, node.objects, settings, utc_now)

        audit = Audit(node.store.add_tallies)
        server = StorageServer(
            settings,
            receiving(settings),
            share_port=settings.node.receivers > 1,
            audit=audit,
            desk=desk(settings),
        )

        def take_over(new: Settings) -> None:
            nonlocal settings
            try:
                server.reload(new, receiving(new), desk(new))
            except TlsFault as fault:
                log.error("settings_refused", reason=str(fault))
                return
            configure(new.log)
            audit.reconfigured(reload.changed_keys(settings, new))
            settings = new

        stop = stop_event(supervised=supervised, told=take_over)
        hangup = threading.Event() if supervised else hangup_event(stop)
        server.start()
        # What was imported stays; looking through it again and again costs a twentieth of what receiving does.
        gc.freeze()
        gc.set_threshold(10_000)
        plain_port = 0 if settings.tls.only else settings.node.port
        log.info("listening", ae_title=settings.node.ae_title, port=plain_port, tls_port=settings.tls.port)
        while not stop.wait(0.5):
            if hangup.is_set():
                hangup.clear()
                new = reload.reread(ctx.find_root().obj, settings, lambda _settings: None)
                if new is not None:
                    take_over(new)
            if not server.accepting:
                break
        failed = not stop.is_set()
        server.stop(settings.limits.drain_seconds)
        if failed:
            raise NotAccepting("connections were taken no more; see the log")


@click.command(epilog="Example: pulmolink --config /etc/pulmolink.toml work")
@supervised_option
@click.pass_context
def work(ctx: click.Context, supervised: bool) -> None:
    """Run one worker: estimates, reports, a thread for each destination and one for commitment reports to sources."""
    # Before torch is loaded. By default its threads spin while they wait for each other, which doubles the time of an
    # estimate as soon as another process wants one of the cores, and gains nothing when none does.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from inference.package import locate
    from inference.predictor import Predictor
    from pacs_node.dicom.stack import quiet
    from pacs_node.flow.commitment_answer import Answerer
    from pacs_node.flow.deliver import Deliverer
    from pacs_node.flow.stages import Stages
    from pacs_node.flow.worker import Worker
    from pacs_node.opening.opener import Opener
    from pacs_node.report.structured import warm_up

    with (
        opened(ctx, service=True, create=True, supervised=supervised) as node,
        Opener(node.settings.limits) as opener,
    ):
        settings = node.settings
        quiet()
        opener.start()
        stop = stop_event(supervised=supervised)
        threads = [
            threading.Thread(
                target=Deliverer(node.store, node.objects, settings, destination, utc_now).run,
                args=(stop,),
                name=f"deliver-{destination.name}",
            )
            for destination in settings.destinations
        ]
        answerer = Answerer(node.store, node.objects, settings, utc_now)
        threads.append(threading.Thread(target=answerer.run, args=(stop,), name="answer-commitments"))
        for thread in threads:
            thread.start()
        try:
            predictor = Predictor.load(
                locate(settings.model.where),
                threads=settings.worker.threads or None,
                public_key=settings.model.key,
                device=settings.model.device,
            )
            log.info("model_loaded", model=predictor.identity.name, digest=predictor.identity.digest[:12])
            warm_up()
            opener.wait_ready()
            stages = Stages(node.store, node.objects, predictor, opener, settings, utc_now)
            Worker(node.store, stages, settings, utc_now, predictor.identity.digest).run(stop)
        finally:
            stop.set()
            for thread in threads:
                thread.join(timeout=settings.limits.drain_seconds)


@click.command(epilog="Example: pulmolink --config /etc/pulmolink.toml schedule")
@supervised_option
@click.pass_context
def schedule(ctx: click.Context, supervised: bool) -> None:
    """Run the scheduler: windows, leases, retention, orphaned objects."""
    from pacs_node import schedule as scheduler
    from pacs_node.flow.upkeep import Upkeep

    with opened(ctx, service=True, create=True, supervised=supervised) as node:
        stop = stop_event(supervised=supervised)
        scheduler.run(Upkeep(node.store, node.objects, node.settings, utc_now), stop)


@click.command(epilog="Example: pulmolink --config /etc/pulmolink.toml web")
@supervised_option
@click.pass_context
def web(ctx: click.Context, supervised: bool) -> None:
    """Run the web port: /healthz, /readyz and /metrics."""
    import uvicorn

    from pacs_node.web.app import application

    with opened(ctx, service=True, create=True, supervised=supervised) as node:
        settings = node.settings
        stop = stop_event(supervised=supervised)
        listener = _web_listener(settings.web.host, settings.web.port)
        server = uvicorn.Server(
            uvicorn.Config(
                application(node.store, settings, utc_now),
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=int(settings.limits.drain_seconds),
            )
        )
        thread = threading.Thread(target=server.run, args=([listener],), name="uvicorn")
        thread.start()
        while thread.is_alive() and not stop.wait(0.2):
            pass
        server.should_exit = True
        thread.join()
        if not stop.is_set():
            raise NotServing("the web port is served no more; see the log")


def _web_listener(host: str, port: int) -> socket.socket:
    """A socket bound for uvicorn, which itself would say of a taken port only that something is wrong."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError([f"web.host, web.port: cannot listen on {host}:{port}: {error.strerror}"]) from None
    return listener
