"""What is told of every peer that spoke or tried to: an `audit` line in the log, and a count by outcome and reason.

The events and codes are those of DICOM audit messages (PS3.15 A.5, PS3.16 CID 400 and 403). Peers are named by address,
AE title and certificate, never with anything of a patient; foreign text is cut and cleaned of control characters.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum

import structlog

from storage.errors import StorageError

log = structlog.get_logger()

FLUSH_SECONDS = 5.0
"""How often counts go to the rows: as much of them a crash may lose."""
MOST_CHARACTERS = 64


class Outcome(StrEnum):
    """What became of a connection."""

    ACCEPTED = "accepted"  # an association was made
    REJECTED = "rejected"  # answered with A-ASSOCIATE-RJ
    REFUSED = "refused"  # closed before anything was said: the bounds on connections, TLS that failed
    CUT = "cut"  # ended by us, or by the peer in the middle


class Reason(StrEnum):
    """Why; the name of a setting where one decided. A closed set, because it labels a metric."""

    NONE = ""
    SOURCES = "sources"
    CERTIFICATE = "certificate"
    CALLED_AE = "called_ae_title"
    PROTOCOL_VERSION = "protocol_version"
    APPLICATION_CONTEXT = "application_context"
    CONTEXTS = "presentation_contexts"
    USER_INFORMATION = "user_information_bytes"
    ASSOCIATIONS = "associations"
    STOPPING = "stopping"
    DISK = "disk"
    CONNECTIONS = "connections"
    CONNECTIONS_PER_PEER = "connections_per_peer"
    TOO_SLOW = "too_slow"
    PROTOCOL_ERROR = "protocol_error"
    PEER_GONE = "peer_gone"
    INTERNAL = "internal"
    TLS_TOO_SLOW = "tls_too_slow"
    TLS_CERTIFICATE_EXPIRED = "tls_certificate_expired"
    TLS_CERTIFICATE_REFUSED = "tls_certificate_refused"
    TLS_NO_CERTIFICATE = "tls_no_certificate"
    TLS_VERSION_OR_CIPHER = "tls_version_or_cipher"
    TLS_NOT_SPOKEN = "tls_not_spoken"
    TLS_FAILED = "tls_failed"


_NODE_AUTHENTICATION = {"event_id": "110113 Security Alert", "event_type": "110126 Node Authentication"}
_SECURITY_CONFIGURATION = {"event_id": "110113 Security Alert", "event_type": "110129 Security Configuration"}
_START = {"event_id": "110100 Application Activity", "event_type": "110120 Application Start"}
_STOP = {"event_id": "110100 Application Activity", "event_type": "110121 Application Stop"}
_SUCCESS, _MINOR_FAILURE = 0, 4
"""Event Outcome Indicator (PS3.15 A.5.2)."""


class Audit:
    """Writes the lines and keeps the counts until they are rows. For several threads.

    Parameters
    ----------
    keep
        Adds counts, by (outcome, reason), to those kept; `Store.add_tallies` is one.
    """

    def __init__(self, keep: Callable[[Mapping[tuple[str, str], int]], None]) -> None:
        self._keep = keep
        self._guard = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, called_ae: str, port: int, tls_port: int) -> None:
        """Say that the node speaks from now on, and write counts to the rows in the background."""
        log.info("audit", **_START, outcome=_SUCCESS, called_ae=called_ae, port=port, tls_port=tls_port)
        self._thread = threading.Thread(target=self._flush_all, name="audit", daemon=True)
        self._thread.start()

    def stop(self, called_ae: str) -> None:
        """Say that it speaks no more, and keep what was counted."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        log.info("audit", **_STOP, outcome=_SUCCESS, called_ae=called_ae)

    def accepted(self, *, peer: str, calling_ae: str, called_ae: str, certificate: str) -> None:
        """An association is established. `certificate`: the fingerprint of the peer's, "" without one."""
        self._count(Outcome.ACCEPTED, Reason.NONE)
        log.info(
            "audit",
            **_NODE_AUTHENTICATION,
            outcome=_SUCCESS,
            action="association_accepted",
            peer=peer,
            calling_ae=clean(calling_ae),
            called_ae=clean(called_ae),
            certificate=certificate,
        )

    def rejected(
        self, reason: Reason, why: str, *, peer: str, calling_ae: str, called_ae: str, certificate: str
    ) -> None:
        """An association was answered with A-ASSOCIATE-RJ."""
        self._count(Outcome.REJECTED, reason)
        self._failed("association_rejected", why, peer, (calling_ae, called_ae), certificate)

    def undecodable(self, why: str, *, peer: str, calling_ae: str, called_ae: str, certificate: str) -> None:
        """An association request could not be read to its end. Counted as `cut`, which its abort is."""
        self._failed("association_aborted", why, peer, (calling_ae, called_ae), certificate)

    def _failed(self, action: str, why: str, peer: str, titles: tuple[str, str], certificate: str) -> None:
        """`titles` are the calling and the called one, as the peer wrote them."""
        log.warning(
            "audit",
            **_NODE_AUTHENTICATION,
            outcome=_MINOR_FAILURE,
            action=action,
            reason=why,
            peer=peer,
            calling_ae=clean(titles[0]),
            called_ae=clean(titles[1]),
            certificate=certificate,
        )

    def refused(self, reason: Reason, why: str, *, peer: str) -> None:
        """A connection was closed before its association request."""
        self._count(Outcome.REFUSED, reason)
        log.warning(
            "audit",
            **_NODE_AUTHENTICATION,
            outcome=_MINOR_FAILURE,
            action="connection_refused",
            reason=clean(why),
            peer=peer,
        )

    def cut(self, reason: Reason) -> None:
        """An association or a connection ended in the middle; its own log line says how."""
        self._count(Outcome.CUT, reason)

    def reconfigured(self, keys: list[str]) -> None:
        """Who may speak, or how, was changed: the settings that differ. None: nothing was, and nothing is said."""
        if not keys:
            return
        log.info("audit", **_SECURITY_CONFIGURATION, outcome=_SUCCESS, action="settings_changed", keys=keys)

    def flush(self) -> None:
        """Write the counts to the rows; where that fails they are kept for the next time."""
        with self._guard:
            counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            self._keep(counts)
        except StorageError as error:
            log.error("counts_put_off", error=type(error).__name__)
            with self._guard:
                self._counts.update(counts)

    def _count(self, outcome: Outcome, reason: Reason) -> None:
        with self._guard:
            self._counts[outcome.value, reason.value] += 1

    def _flush_all(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            self.flush()
        self.flush()


def clean(text: str) -> str:
    """Foreign text for a log line: short, and without characters that would act on a terminal or a line reader."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:MOST_CHARACTERS])
