"""Process-wide settings of the DICOM libraries: they log and warn with patient data unless told not to."""

from __future__ import annotations

import logging
import socket
import warnings

import pydicom.config
from pynetdicom import _config
from pynetdicom.events import Event


def quiet() -> None:
    """Keep identities out of standard error: pydicom warns with values, pynetdicom logs identifiers."""
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.STORE_SEND_CHUNKED_DATASET = True  # send stored bytes, never re-encode
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.filterwarnings("ignore", module=r"pydicom(\..*)?")
    # Of a refused connection it drops the socket without closing it; the garbage collector does so at once.
    warnings.filterwarnings("ignore", category=ResourceWarning, module=r"pynetdicom\.transport")
    for name in ("pydicom", "pynetdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def send_at_once(event: Event) -> None:
    """For EVT_CONN_OPEN: switch Nagle's algorithm off.

    pynetdicom writes a message's command and data set as separate packets; held back until the peer's delayed
    acknowledgement, each object would cost 40 ms.
    """
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
