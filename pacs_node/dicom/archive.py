"""A small archive that stands for PACS in the demo and in benchmarks: takes what is sent, keeps it in a folder."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pynetdicom import AE, evt

from pacs_node.dicom.primitives import VERIFICATION, store_request
from pacs_node.dicom.stack import quiet
from pacs_node.flow.part10 import to_part10
from pacs_node.flow.sop_classes import COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One object that the archive took."""

    sop_class_uid: str
    sop_instance_uid: str
    path: Path
    sha256: str  # of the data set as it came
    at: float  # time.monotonic() when it was answered


class Archive:
    """Listens on a loopback port until stopped; a context manager."""

    def __init__(self, folder: Path, port: int, ae_title: str = "ARCHIVE") -> None:
        quiet()
        self._folder = folder
        self._port = port
        self._lock = threading.Lock()
        self._arrivals: list[Arrival] = []
        self._ae = AE(ae_title=ae_title)
        self._ae.add_supported_context(VERIFICATION)
        for sop_class in (COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE):
            self._ae.add_supported_context(sop_class)

    def __enter__(self) -> Archive:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._ae.start_server(("127.0.0.1", self._port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._on_store)])
        return self

    def __exit__(self, *_: object) -> None:
        self._ae.shutdown()

    def arrivals(self) -> tuple[Arrival, ...]:
        """What came so far, in order."""
        with self._lock:
            return tuple(self._arrivals)

    def _on_store(self, event: evt.Event) -> int:
        parts = store_request(event)
        path = self._folder / f"{hashlib.sha256(parts.sop_instance_uid.encode()).hexdigest()[:16]}.dcm"
        path.write_bytes(to_part10(parts))
        with self._lock:
            self._arrivals.append(
                Arrival(
                    sop_class_uid=parts.sop_class_uid,
                    sop_instance_uid=parts.sop_instance_uid,
                    path=path,
                    sha256=hashlib.sha256(parts.data).hexdigest(),
                    at=time.monotonic(),
                )
            )
        return 0x0000
