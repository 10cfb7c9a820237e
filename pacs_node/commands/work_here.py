"""Work the queue in this process until nothing is due: for commands that are asked to wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from inference.package import locate
from inference.predictor import Predictor
from pacs_node.commands.context import Opened
from pacs_node.dicom.client import Unreachable
from pacs_node.dicom.stack import quiet
from pacs_node.flow.deliver import Deliverer
from pacs_node.flow.stages import Stages
from pacs_node.flow.worker import Worker
from pacs_node.opening.opener import Opener
from pacs_node.service import utc_now


def work_here(node: Opened, after_each: Callable[[], None] = lambda: None) -> None:
    """Work every match that is due; running workers may work beside, the leases keep them apart."""
    quiet()
    with Opener(node.settings.limits) as opener:
        opener.start()
        settings = node.settings
        predictor = Predictor.load(
            locate(settings.model.where),
            threads=settings.worker.threads or None,
            public_key=settings.model.key,
            device=settings.model.device,
        )
        opener.wait_ready()
        stages = Stages(node.store, node.objects, predictor, opener, node.settings, utc_now)
        worker = Worker(node.store, stages, node.settings, utc_now, predictor.identity.digest)
        while worker.work_one():
            after_each()


def deliver_here(node: Opened, names: Sequence[str]) -> list[str]:
    """Send every delivery that is due to the destinations `names`; which of them did not answer."""
    unreached = []
    for destination in node.settings.destinations:
        if destination.name in names:
            deliverer = Deliverer(node.store, node.objects, node.settings, destination, utc_now)
            try:
                while deliverer.deliver_due(threading.Event()):
                    pass
            except Unreachable:
                unreached.append(destination.name)
    return unreached
