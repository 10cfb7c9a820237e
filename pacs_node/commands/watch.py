"""watch: take in what ECG carts drop into a folder."""

from __future__ import annotations

import signal
import time

import click
import structlog

from pacs_node.commands.context import opened
from pacs_node.commands.run import supervised_option
from pacs_node.service import stop_event, utc_now

log = structlog.get_logger()


@click.command(epilog="Example: pulmolink --config /etc/pulmolink.toml watch")
@supervised_option
@click.option("--once", is_flag=True, help="Take in what is there and whole, and end.")
@click.pass_context
def watch(ctx: click.Context, supervised: bool, once: bool) -> None:
    """Watch the folder of [folder] for ECG files; `serve` does it too where folder.path is set.

    A file goes to done/ once it is stored, to held/ if nobody said whose it is, to refused/ with the reason beside it.
    """
    from pacs_node.dicom.stack import quiet
    from pacs_node.flow.drop_folder import DropFolder
    from pacs_node.flow.receive import Receiver
    from pacs_node.opening.opener import Opener

    with (
        opened(ctx, service=True, create=True, supervised=supervised) as node,
        Opener(node.settings.limits) as opener,
    ):
        rules = node.settings.folder
        if not rules.is_watched:
            raise click.UsageError("folder.path is blank: there is no folder to watch")
        quiet()
        # Asking the kernel whether a file is still written to may draw this signal, which would end the process.
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        stop = stop_event(supervised=supervised)
        receiver = Receiver(node.store, node.objects, node.settings, utc_now)
        folder = DropFolder(node.settings, receiver, opener, time.monotonic, utc_now)
        log.info("watching_folder", poll_seconds=rules.poll_seconds, settle_seconds=rules.settle_seconds)
        if once:
            folder.look(stop.is_set)
            stop.wait(rules.settle_seconds)
            click.echo(f"{folder.look(stop.is_set)} files taken")
            return
        readable = True
        while not stop.is_set():
            try:
                folder.look(stop.is_set)
                if not readable:
                    log.info("folder_readable_again")
                readable = True
            except OSError as error:
                if readable:
                    log.error("folder_unreadable", error=error.strerror or type(error).__name__)
                readable = False
            stop.wait(rules.poll_seconds)
