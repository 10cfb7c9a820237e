"""The Storage SCP: connections in, each in a thread of its own and within bounds, data sets on to a receiver.

This room accepts, counts and secures connections. What is said on one is `association.py`'s.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog

from pacs_node.dicom import tls, wire
from pacs_node.dicom.association import Announcement, Association, Desk, Reception, Said
from pacs_node.dicom.audit import Audit, Reason
from pacs_node.dicom.commands import N_ACTION_RQ, Command
from pacs_node.dicom.negotiation import Accepted, Context, Negotiator, Rejected, Undecodable
from pacs_node.dicom.rates import Rates
from pacs_node.dicom.sources import Sources
from pacs_node.dicom.stack import quiet
from pacs_node.dicom.wire import Wire
from pacs_node.flow.commitment import RESOURCE_LIMITATION
from pacs_node.flow.receive import OUT_OF_RESOURCES, Receipt
from pacs_node.flow.reception import Origin
from pacs_node.flow.room import shortage
from pacs_node.settings import Limits, Settings, Source

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


class NotAccepting(Exception):
    """The thread that takes connections ended although nobody stopped the server."""


@dataclass(eq=False)
class _Connection:
    """An open connection and how far it has come."""

    peer: str
    socket: socket.socket
    secure: bool  # came to the TLS port
    since: float  # time.monotonic()
    established: bool = False
    thread: threading.Thread | None = field(default=None)

    def cut(self) -> None:
        """End it from another thread: its next read finds the end."""
        with contextlib.suppress(OSError):
            # Not SSLSocket's own: that forgets the encryption, and the thread would read on in the clear.
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


@dataclass(frozen=True, kw_only=True)
class _InForce:
    """One configuration. A connection keeps the one that it began under."""

    limits: Limits
    negotiator: Negotiator
    open_reception: OpenReception
    desk: Desk | None
    rates: Rates
    tls: tls.ServerTls | None
    lengths: Mapping[int, int]  # longest body by PDU type


class StorageServer:
    """Listens for C-ECHO, C-STORE and storage commitment, and hands each data set, as it comes, to a `Reception`.

    Parameters
    ----------
    open_reception
        Makes the `Reception` of one object; `Receiver.open` is one.
    share_port
        Several processes listen on this port and the kernel spreads the connections.
    audit
        Told of every peer; None: of no use here, counts are dropped.
    desk
        Takes storage commitment's messages; None: the SOP Class is not negotiated.

    Raises
    ------
    TlsFault
        Certificate, key or authorities cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        open_reception: OpenReception,
        *,
        share_port: bool = False,
        audit: Audit | None = None,
        desk: Desk | None = None,
    ) -> None:
        quiet()
        self._settings = settings
        self._share_port = share_port
        self._audit = audit or Audit(lambda _counts: None)
        self._in_force = _configure(settings, open_reception, desk)
        self._listeners: list[socket.socket] = []
        self._wake: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._guard = threading.Lock()
        self._connections: list[_Connection] = []
        self._stopping = threading.Event()
        self._drained = threading.Event()

    def start(self) -> None:
        """Listen in the background.

        Raises
        ------
        PortTaken
            The address is in use or not ours.
        """
        node, tls_port = self._settings.node, self._settings.tls.port
        selector = selectors.DefaultSelector()
        try:
            if not self._settings.tls.only:
                selector.register(self._listen(node.port, "node.port"), selectors.EVENT_READ, False)
            if tls_port:
                selector.register(self._listen(tls_port, "tls.port"), selectors.EVENT_READ, True)
        except PortTaken:
            self._close_listeners()
            raise
        self._wake, waking = socket.socketpair()
        selector.register(waking, selectors.EVENT_READ)
        self._acceptor = threading.Thread(target=self._accept_all, args=(selector, waking), name="accept", daemon=True)
        self._acceptor.start()
        self._audit.start(node.ae_title, 0 if self._settings.tls.only else node.port, tls_port)

    def reload(self, settings: Settings, open_reception: OpenReception, desk: Desk | None = None) -> None:
        """Serve connections from now on by other settings; addresses and ports stay, and so does what is under way.

        Raises
        ------
        TlsFault
            The certificates cannot be used; nothing changed.
        """
        self._in_force = _configure(settings, open_reception, desk)
        self._settings = settings

    def stop(self, drain_seconds: float) -> None:
        """Stop accepting, let messages under way end for at most `drain_seconds`, then abort the rest.

        An association between two messages is aborted at once: its peer keeps what it has not sent. Connections that
        the kernel holds for us are taken and rejected as temporary, so that their peers try again.
        """
        if self._acceptor is None or self._wake is None:
            return
        self._stopping.set()
        self._wake.close()
        self._acceptor.join()
        self._acceptor = None
        self._wait(drain_seconds)
        self._drained.set()
        self._wait(wire.TICK_SECONDS + wire.LINGER_SECONDS)
        for connection in self._open():  # whose peer reads nothing
            with self._guard:
                connection.cut()
        self._wait(wire.TICK_SECONDS)
        self._audit.stop(self._settings.node.ae_title)

    @property
    def accepting(self) -> bool:
        """Whether connections are taken: between `start` and `stop`, unless a fault of ours ended it."""
        return self._acceptor is not None and self._acceptor.is_alive()

    def counts(self) -> tuple[int, int]:
        """Open connections, and how many of them are established associations."""
        connections = self._open()
        return len(connections), sum(connection.established for connection in connections)

    def _wait(self, seconds: float) -> None:
        """Give open connections so much time, all together, to end."""
        deadline = time.monotonic() + seconds
        for connection in self._open():
            if connection.thread is not None:
                connection.thread.join(timeout=max(0.0, deadline - time.monotonic()))

    def _open(self) -> list[_Connection]:
        with self._guard:
            return list(self._connections)

    def _listen(self, port: int, key: str) -> socket.socket:
        host = self._settings.node.host
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self._listeners.append(listener)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._share_port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((host, port))
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except OSError as error:
            raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror or error} (node.host, {key})") from None
        return listener

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    def _accept_all(self, selector: selectors.BaseSelector, waking: socket.socket) -> None:
        with selector, waking:
            while not self._stopping.is_set():
                for ready, _ in selector.select():
                    if ready.fileobj is not waking:
                        self._accept(ready.fileobj, secure=ready.data)  # type: ignore[arg-type]
            for known in list(selector.get_map().values()):
                while known.fileobj is not waking and self._accept(known.fileobj, secure=known.data):  # type: ignore[arg-type]
                    pass
            self._close_listeners()

    def _accept(self, listener: socket.socket, *, secure: bool) -> bool:
        """Take one connection, if one waits."""
        try:
            accepted, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError as error:
            log.error("accept_failed", error=error.strerror)
            self._stopping.wait(FEW_DESCRIPTORS_SECONDS)
            return False
        connection = _Connection(peer=str(address[0]), socket=accepted, secure=secure, since=time.monotonic())
        try:
            if self._admit(connection):
                thread = threading.Thread(
                    target=self._serve, args=(connection, self._in_force), name="association", daemon=True
                )
                connection.thread = thread
                thread.start()
            else:
                accepted.close()
        except Exception as error:  # noqa: BLE001 - no thread left, for one: later connections must still be taken
            self._forget(connection)
            self._audit.cut(Reason.INTERNAL)
            log.error("accept_failed", error=type(error).__name__)
        return True

    def _admit(self, new: _Connection) -> bool:
        """Take the connection in, at the cost of the one longest without an association where a bound is reached."""
        limits = self._in_force.limits
        with self._guard:
            same = [known for known in self._connections if known.peer == new.peer]
            crowd = None
            if len(same) >= limits.connections_per_peer:
                crowd, reason = same, Reason.CONNECTIONS_PER_PEER
            elif len(self._connections) >= limits.connections:
                crowd, reason = self._connections, Reason.CONNECTIONS
            if crowd is not None:
                waiting = next((known for known in crowd if not known.established), None)
                if waiting is None:
                    self._audit.refused(reason, f"limits.{reason}", peer=new.peer)
                    return False
                log.warning("connection_cut", peer=waiting.peer, reason=f"limits.{reason}")
                self._audit.cut(reason)
                self._connections.remove(waiting)
                waiting.cut()
            self._connections.append(new)
            return True

    def _claim(self, connection: _Connection, associations: int) -> bool:
        with self._guard:
            established = sum(known.established for known in self._connections)
            if established >= associations or self._stopping.is_set():
                return False
            connection.established = True
            return True

    def _serve(self, connection: _Connection, force: _InForce) -> None:
        deadline = connection.since + force.limits.association_seconds
        try:
            certificate = None
            if force.tls is not None and connection.secure:
                certificate = self._secure(connection, force.tls, deadline)
            line = Wire(connection.socket, force.lengths, self._stopping.is_set, self._drained.is_set)
            line.prepare()
            association = Association(
                line,
                connection.peer,
                force.limits,
                partial(self._negotiate, connection, force, certificate),
                partial(self._reception, force),
                _PacedDesk(desk=force.desk, turn=partial(self._turn, force)) if force.desk else None,
            )
            association.serve(deadline)
            if association.cut:
                self._audit.cut(Reason(association.cut))
        except _NotSecured:
            pass
        except Exception as error:  # noqa: BLE001 - outermost loop of a connection: one peer never harms the others
            log.error("association_failed", error=type(error).__name__, peer=connection.peer)
            self._audit.cut(Reason.INTERNAL)
        finally:
            self._forget(connection)

    def _secure(self, connection: _Connection, port: tls.ServerTls, deadline: float) -> tls.PeerCertificate | None:
        """Shake hands; the certificate that the peer showed.

        Raises
        ------
        _NotSecured
            It failed, and was told.
        """
        try:
            with self._guard:  # the plain socket is of no more use: who cuts must find the new one
                secured = connection.socket = port.context().wrap_socket(
                    connection.socket, server_side=True, do_handshake_on_connect=False
                )
            tls.handshake(secured, deadline, wire.TICK_SECONDS, self._stopping)
            shown = secured.getpeercert(binary_form=True)
            return tls.PeerCertificate(shown) if shown else None
        except TimeoutError:
            if not self._stopping.is_set():
                self._audit.refused(Reason.TLS_TOO_SLOW, "limits.association_seconds", peer=connection.peer)
        except (ssl.SSLEOFError, ConnectionError):
            log.debug("connection_closed", peer=connection.peer)  # a port probe, every few seconds for years
        except ssl.SSLError as error:
            reason = Reason(tls.failure(error))
            why = getattr(error, "verify_message", "") or error.reason or ""
            self._audit.refused(reason, f"{reason} ({why})", peer=connection.peer)
            Wire(connection.socket, {wire.ABORT: 4}, self._stopping.is_set).linger()  # so that the peer reads our alert
        except (OSError, ValueError) as error:
            self._audit.refused(Reason.TLS_FAILED, type(error).__name__, peer=connection.peer)
        raise _NotSecured

    def _forget(self, connection: _Connection) -> None:
        with self._guard:
            if connection in self._connections:
                self._connections.remove(connection)
        connection.socket.close()

    def _negotiate(
        self, connection: _Connection, force: _InForce, certificate: tls.PeerCertificate | None, body: bytes
    ) -> Accepted | Rejected:
        peer = {"peer": connection.peer, "certificate": certificate.fingerprint if certificate else ""}
        try:
            answer = force.negotiator.answer(
                body,
                connection.peer,
                claim=lambda: self._claim(connection, force.limits.associations),
                certificate=certificate,
            )
        except Undecodable as wrong:
            self._audit.undecodable(wrong.why, calling_ae=wrong.calling_ae, called_ae=wrong.called_ae, **peer)
            raise
        peer |= {"calling_ae": answer.calling_ae, "called_ae": answer.called_ae}
        if isinstance(answer, Accepted):
            self._audit.accepted(**peer)
        elif answer.reason is Reason.ASSOCIATIONS and self._stopping.is_set():
            self._audit.rejected(Reason.STOPPING, "the server stops", **peer)
        else:
            self._audit.rejected(answer.reason, answer.why, **peer)
        return answer

    def _reception(self, force: _InForce, command: Command, context: Context, agreed: Accepted) -> Reception:
        if not self._turn(force, agreed.source, agreed.calling_ae):
            return _TooFast(OUT_OF_RESOURCES, "too many objects a second (objects_per_second)")
        return force.open_reception(
            Origin(
                sop_class_uid=command.sop_class_uid,
                sop_instance_uid=command.sop_instance_uid,
                transfer_syntax_uid=context.transfer_syntax_uid,
                calling_ae=agreed.calling_ae,
                ecg_documents=agreed.source.ecg_documents,
            )
        )

    def _turn(self, force: _InForce, source: Source, calling_ae: str) -> bool:
        """Wait for the turn of a source; False if it is too far away."""
        wait = force.rates.turn(source)
        if wait is None:
            log.warning("refused", reason="limits.objects_per_second", calling_ae=calling_ae)
            return False
        if wait:
            self._stopping.wait(wait)
        return True


@dataclass(frozen=True, kw_only=True)
class _PacedDesk:
    """A desk whose sources ask for commitment no faster than they may send objects."""

    desk: Desk
    turn: Callable[[Source, str], bool]

    def open(self, said: Said, announce: Callable[[Announcement], None]) -> Reception:
        """Take the data set of a request."""
        if said.command.field == N_ACTION_RQ and not self.turn(said.source, said.calling_ae):
            return _TooFast(RESOURCE_LIMITATION, "")
        return self.desk.open(said, announce)


class _NotSecured(Exception):
    """TLS was not established."""


class _TooFast:
    """Takes a data set that nobody keeps: its source sends too many."""

    def __init__(self, status: int, comment: str) -> None:
        self._receipt = Receipt(status=status, comment=comment, reason="objects_per_second")

    def write(self, fragment: memoryview) -> None:
        """Drop it."""

    def finish(self) -> Receipt:
        """Ask the sender to try later."""
        return self._receipt

    def discard(self) -> None:
        """Nothing is there."""


def _configure(settings: Settings, open_reception: OpenReception, desk: Desk | None) -> _InForce:
    limits = settings.limits
    return _InForce(
        limits=limits,
        negotiator=Negotiator(
            settings.node,
            limits,
            Sources(settings.sources).admit,
            partial(shortage, settings.storage.objects, limits),
            commitment=desk is not None,
        ),
        open_reception=open_reception,
        desk=desk,
        rates=Rates(limits.objects_per_second),
        tls=tls.ServerTls(settings.tls) if settings.tls.port else None,
        lengths={
            wire.ASSOCIATE_RQ: limits.association_bytes,
            # Not for an acceptor, but known: answered as unexpected, not as unrecognised.
            wire.ASSOCIATE_AC: limits.association_bytes,
            wire.ASSOCIATE_RJ: 4,
            wire.P_DATA: limits.pdu_bytes + LENIENCE_BYTES,
            wire.RELEASE_RQ: 4,
            wire.RELEASE_RP: 4,
            wire.ABORT: 4,
        },
    )
