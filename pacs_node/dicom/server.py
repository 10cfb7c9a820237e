"""The Storage SCP: connections in, each in a thread of its own and within bounds, data sets on to a receiver.

This room accepts and counts connections. What is said on one is `association.py`'s.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from pacs_node.dicom import wire
from pacs_node.dicom.association import Association, Desk, Reception
from pacs_node.dicom.commands import Command
from pacs_node.dicom.negotiation import Accepted, Context, Negotiator
from pacs_node.dicom.sources import Sources
from pacs_node.dicom.stack import quiet
from pacs_node.dicom.wire import Wire
from pacs_node.flow.reception import Origin
from pacs_node.settings import Settings

log = structlog.get_logger()

BACKLOG = 512
"""Connections that wait in the kernel to be accepted."""
LENIENCE_BYTES = 4096
"""How much longer than announced a P-DATA PDU may be: some devices leave item headers out of their count."""
FEW_DESCRIPTORS_SECONDS = 0.2
"""Pause after accept() failed, as it does when the process has no descriptor left."""

OpenReception = Callable[[Origin], Reception]


class PortTaken(Exception):
    """The configured address cannot be listened on."""


@dataclass(eq=False)
class _Connection:
    """An open connection and how far it has come."""

    peer: str
    socket: socket.socket
    since: float  # time.monotonic()
    established: bool = False
    thread: threading.Thread | None = field(default=None)

    def cut(self) -> None:
        """End it from another thread: its next read finds the end."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class StorageServer:
    """Listens for C-ECHO, C-STORE and storage commitment, and hands each data set, as it comes, to a `Reception`.

    Parameters
    ----------
    open_reception
        Makes the `Reception` of one object; `Receiver.open` is one.
    share_port
        Several processes listen on this port and the kernel spreads the connections.
    desk
        Takes storage commitment's messages; None: the SOP Class is not negotiated.
    """

    def __init__(
        self,
        settings: Settings,
        open_reception: OpenReception,
        *,
        share_port: bool = False,
        desk: Desk | None = None,
    ) -> None:
        quiet()
        self._settings = settings
        self._limits = settings.limits
        self._open_reception = open_reception
        self._share_port = share_port
        self._desk = desk
        identify = Sources(settings.sources).find
        self._negotiator = Negotiator(settings.node, settings.limits, identify, commitment=desk is not None)
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._guard = threading.Lock()
        self._connections: list[_Connection] = []
        self._stopping = threading.Event()
        longest = self._limits.pdu_bytes + LENIENCE_BYTES
        self._lengths = {
            wire.ASSOCIATE_RQ: self._limits.association_bytes,
            # Not for an acceptor, but known: answered as unexpected, not as unrecognised.
            wire.ASSOCIATE_AC: self._limits.association_bytes,
            wire.ASSOCIATE_RJ: 4,
            wire.P_DATA: longest,
            wire.RELEASE_RQ: 4,
            wire.RELEASE_RP: 4,
            wire.ABORT: 4,
        }

    def start(self) -> None:
        """Listen in the background.

        Raises
        ------
        PortTaken
            The address is in use or not ours.
        """
        node = self._settings.node
        family = socket.AF_INET6 if ":" in node.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._share_port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((node.host, node.port))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            raise PortTaken(
                f"cannot listen on {node.host}:{node.port}: {error.strerror or error} (node.host, node.port)"
            ) from None
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept_all, args=(listener,), name="accept", daemon=True)
        self._acceptor.start()

    def stop(self, drain_seconds: float) -> None:
        """Stop accepting, let messages under way end for at most `drain_seconds`, then cut the rest.

        An association between two messages is aborted at once: its peer keeps what it has not sent.
        """
        if self._listener is None:
            return
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        if self._acceptor is not None:
            self._acceptor.join()
        self._listener.close()
        self._listener = None
        deadline = time.monotonic() + drain_seconds
        for connection in self._open():
            if connection.thread is not None:
                connection.thread.join(timeout=max(0.0, deadline - time.monotonic()))
        for connection in self._open():
            connection.cut()
            if connection.thread is not None:
                connection.thread.join(timeout=wire.LINGER_SECONDS)

    def counts(self) -> tuple[int, int]:
        """Open connections, and how many of them are established associations."""
        connections = self._open()
        return len(connections), sum(connection.established for connection in connections)

    def _open(self) -> list[_Connection]:
        with self._guard:
            return list(self._connections)

    def _accept_all(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                accepted, address = listener.accept()
            except OSError as error:
                if self._stopping.is_set():
                    return
                log.error("accept_failed", error=error.strerror)
                self._stopping.wait(FEW_DESCRIPTORS_SECONDS)
                continue
            connection = _Connection(peer=str(address[0]), socket=accepted, since=time.monotonic())
            if not self._admit(connection):
                accepted.close()
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), name="association", daemon=True)
            connection.thread = thread
            try:
                thread.start()
            except RuntimeError:  # the system gives no further thread
                log.error("accept_failed", error="no thread")
                self._forget(connection)

    def _admit(self, new: _Connection) -> bool:
        """Take the connection in, at the cost of the one longest without an association where a bound is reached."""
        with self._guard:
            same = [known for known in self._connections if known.peer == new.peer]
            crowd = None
            if len(same) >= self._limits.connections_per_peer:
                crowd, limit = same, "limits.connections_per_peer"
            elif len(self._connections) >= self._limits.connections:
                crowd, limit = self._connections, "limits.connections"
            if crowd is not None:
                waiting = next((known for known in crowd if not known.established), None)
                if waiting is None:
                    log.warning("connection_refused", peer=new.peer, reason=limit)
                    return False
                log.warning("connection_cut", peer=waiting.peer, reason=limit)
                self._connections.remove(waiting)
                waiting.cut()
            self._connections.append(new)
            return True

    def _claim(self, connection: _Connection) -> bool:
        with self._guard:
            established = sum(known.established for known in self._connections)
            if established >= self._limits.associations or self._stopping.is_set():
                return False
            connection.established = True
            return True

    def _serve(self, connection: _Connection) -> None:
        line: Wire | None = None
        try:
            line = Wire(connection.socket, self._lengths, self._stopping.is_set)
            line.prepare()
            Association(
                line,
                connection.peer,
                self._limits,
                self._negotiator,
                lambda: self._claim(connection),
                self._reception,
                self._desk,
            ).serve(connection.since + self._limits.association_seconds)
        except Exception as error:  # noqa: BLE001 - outermost loop of a connection: one peer never harms the others
            log.error("association_failed", error=type(error).__name__, peer=connection.peer)
        finally:
            self._forget(connection)

    def _forget(self, connection: _Connection) -> None:
        with self._guard:
            if connection in self._connections:
                self._connections.remove(connection)
        connection.socket.close()

    def _reception(self, command: Command, context: Context, agreed: Accepted) -> Reception:
        return self._open_reception(
            Origin(
                sop_class_uid=command.sop_class_uid,
                sop_instance_uid=command.sop_instance_uid,
                transfer_syntax_uid=context.transfer_syntax_uid,
                calling_ae=agreed.calling_ae,
                ecg_documents=agreed.source.ecg_documents,
            )
        )
