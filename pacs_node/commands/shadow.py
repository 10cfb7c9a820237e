"""`pulmolink shadow`: run the second package beside the service; nothing of it is ever reported."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import click
import structlog

from pacs_node.commands.context import opened
from pacs_node.commands.run import supervised_option
from pacs_node.service import stop_event, utc_now
from pacs_node.settings_tree import SettingsError

log = structlog.get_logger()

NICENESS = 10
"""Lower than everything that serves."""


@click.command(epilog="Example: pulmolink --config /etc/pulmolink.toml shadow")
@supervised_option
@click.pass_context
def shadow(ctx: click.Context, supervised: bool) -> None:
    """Let model.shadow estimate what the node estimated; its answers are stored and compared, never reported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from inference.package import locate, read_identity
    from inference.predictor import Predictor
    from pacs_node.dicom.stack import quiet
    from pacs_node.flow.shadow import Shadow
    from pacs_node.opening.opener import Opener

    with opened(ctx, service=True, create=True, supervised=supervised) as node:
        model = node.settings.model
        if not model.shadow:
            raise SettingsError(["model.shadow: no second package is configured"])
        os.nice(NICENESS)
        with contextlib.suppress(OSError):  # where memory runs out, the kernel ends this process first
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        quiet()
        stop = stop_event(supervised=supervised)
        package = locate(model.find(model.shadow))
        if read_identity(package).digest == read_identity(locate(model.where)).digest:
            raise SettingsError(["model.shadow: is the very package that is served (model.package)"])
        predictor = Predictor.load(package, threads=1, public_key=model.key, device=model.device)
        log.info("shadow_loaded", model=predictor.identity.name, digest=predictor.identity.digest[:12])
        with Opener(node.settings.limits) as opener:
            opener.start()
            opener.wait_ready()
            Shadow(node.store, node.objects, predictor, opener, utc_now).run(stop)
