"""/healthz, /readyz and /metrics for orchestration and monitoring. Numbers only, nothing of a patient."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import datetime

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pacs_node.flow.room import shortage
from pacs_node.settings import Settings
from pacs_node.web.metrics import CertificateCollector, StoreCollector
from storage.errors import StorageError
from storage.store import Store

PROBE_SECONDS = 2.0


def application(store: Store, settings: Settings, clock: Callable[[], datetime]) -> Starlette:
    """The ASGI application of the web port."""
    registry = CollectorRegistry()
    registry.register(StoreCollector(store, clock))
    registry.register(CertificateCollector(settings.tls, clock))

    def healthz(_request: Request) -> Response:
        """This process answers."""
        return JSONResponse({"status": "ok"})

    def readyz(_request: Request) -> Response:
        """Objects can be received and rows written; says which part is not ready."""
        parts = {
            "database": _database(store),
            "objects": _storable(settings),
            "receiver": _listening(settings),
        }
        ready = all(state == "ok" for state in parts.values())
        return JSONResponse(
            {"status": "ready" if ready else "not ready", "parts": parts}, status_code=200 if ready else 503
        )

    def metrics(_request: Request) -> Response:
        """Prometheus text; 503 where the rows cannot be read, never numbers that nobody counted."""
        try:
            return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
        except StorageError as error:
            return Response(f"{type(error).__name__}\n", media_type="text/plain", status_code=503)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])


def _database(store: Store) -> str:
    try:
        store.count_matches()
    except StorageError as error:
        return type(error).__name__
    return "ok"


def _storable(settings: Settings) -> str:
    """Asked as the receiver asks before it takes an association that would store."""
    if not os.access(settings.storage.objects, os.W_OK | os.X_OK):
        return "folder not writable"
    return shortage(settings.storage.objects, settings.limits) or "ok"


def _listening(settings: Settings) -> str:
    host = settings.node.host if settings.node.host not in {"0.0.0.0", "::"} else "localhost"  # noqa: S104
    port = settings.tls.port if settings.tls.only else settings.node.port
    try:
        with socket.create_connection((host, port), timeout=PROBE_SECONDS):
            return "ok"
    except OSError:
        return "nobody listens on the DICOM port"
