"""One connection as a row of PDUs: bytes in through one buffer, each PDU whole and within its deadline, or an error.

Comes in: a connected socket. Goes out: type and body of the next PDU, as a view that the next call overwrites.
What a PDU says is for others to read.
"""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

HEADER = struct.Struct(">BxI")
"""PDU type, a reserved byte, length of the body (PS3.8 9.3.1)."""

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

TICK_SECONDS = 0.5
"""How often a waiting thread looks at its deadline and at whether the server stops."""
SEND_SECONDS = 10
"""How long a peer may take to read what we say; that is little, and its receive buffer holds it."""
LINGER_SECONDS = 2.0
"""How long a peer may take to close a connection after the last word (the ARTIM timer, PS3.8 9.1.5)."""

LINGER_BYTES = 2**20
"""How much it may still send meanwhile."""


class PeerGone(Exception):
    """The peer closed or lost the connection."""


class TooSlow(Exception):
    """A deadline passed. `limit` is the setting that names it."""

    def __init__(self, limit: str) -> None:
        super().__init__(f"deadline passed ({limit})")
        self.limit = limit


class ProtocolError(Exception):
    """The peer broke the protocol. `reason` is the A-ABORT reason of PS3.8 table 9-26."""

    def __init__(self, reason: int, why: str) -> None:
        super().__init__(why)
        self.reason = reason
        self.why = why


UNRECOGNIZED_PDU = 1
UNEXPECTED_PDU = 2
UNEXPECTED_PARAMETER = 5
INVALID_PARAMETER = 6


class Stopping(Exception):
    """The server stops. `why`: nothing is under way on this connection, or what is took too long."""

    def __init__(self, why: str = "the server stops") -> None:
        super().__init__(why)
        self.why = why


DRAINED = "the server stops, and this was not done within limits.drain_seconds"

LIMIT_OF = {
    ASSOCIATE_RQ: "limits.association_bytes",
    ASSOCIATE_AC: "limits.association_bytes",
    P_DATA: "limits.pdu_bytes",
}
"""The setting behind the longest body of a PDU type; of the others the standard fixes the length."""
HTTP_METHODS = frozenset({b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"CONN", b"OPTI", b"TRAC", b"PATC", b"PRI "})
TLS_HANDSHAKE = b"\x16\x03"
"""Record type and major version at the beginning of TLS (RFC 8446 5.1)."""


@dataclass(frozen=True, kw_only=True)
class Pdu:
    """A PDU's type and body. The body is overwritten by the next PDU."""

    kind: int
    body: memoryview


class Wire:
    """A socket read in whole PDUs.

    Parameters
    ----------
    connection
        Connected; owned by this object from now on.
    lengths
        The longest body of each PDU type that may come. Other types are a `ProtocolError`.
    stopping
        Asked at each tick while nothing has arrived of the next PDU.
    drained
        Asked whenever something was to arrive: whether what is under way has no more time.
    """

    def __init__(
        self,
        connection: socket.socket,
        lengths: Mapping[int, int],
        stopping: Callable[[], bool],
        drained: Callable[[], bool] = lambda: False,
    ) -> None:
        self._socket = connection
        self._lengths = lengths
        self._stopping = stopping
        self.drained = drained
        self._view = memoryview(bytearray(max(lengths.values()) + HEADER.size + 65536))
        self._start = 0  # first byte not handed out
        self._end = 0  # end of what was received
        self.patient = False  # True while a message is under way: stopping then waits for its end

    def prepare(self) -> None:
        """Set the socket's timeouts, so that no call blocks for longer than a tick."""
        with contextlib.suppress(OSError):  # not TCP
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.settimeout(TICK_SECONDS)
            return
        # The kernel's own timeouts: Python's would cost a poll() before every recv().
        self._socket.settimeout(None)
        seconds, microseconds = divmod(int(TICK_SECONDS * 1e6), 1_000_000)
        timeout = struct.pack("@ll", seconds, microseconds)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", SEND_SECONDS, 0))

    def next_pdu(self, idle: tuple[str, float], pdu_seconds: float, latest: tuple[str, float] = ("", math.inf)) -> Pdu:
        """The next PDU.

        Parameters
        ----------
        idle
            Name of the limit and `time.monotonic()` by which its first byte must be here.
        pdu_seconds
            From then to its last byte (`limits.pdu_seconds`).
        latest
            Name of the limit and `time.monotonic()` by which its last byte must be here in any case.

        Raises
        ------
        PeerGone, TooSlow, ProtocolError, Stopping
        """
        if self._end - self._start < HEADER.size:
            if self._end == self._start:
                self._start = self._end = 0
                self._receive(idle[0], idle[1], idle=True)
            limit, deadline = _sooner(pdu_seconds, latest)
            while self._end - self._start < HEADER.size:
                self._receive(limit, deadline)
        else:
            limit, deadline = "", 0.0
        kind, length = HEADER.unpack_from(self._view, self._start)
        longest = self._lengths.get(kind)
        if longest is None:
            raise ProtocolError(UNRECOGNIZED_PDU, self._foreign(kind))
        if length > longest:
            bound = f" ({LIMIT_OF[kind]})" if kind in LIMIT_OF else ""
            raise ProtocolError(INVALID_PARAMETER, f"PDU of type {kind} longer than {longest} bytes{bound}")
        whole = HEADER.size + length
        if self._end - self._start < whole:
            self._make_room(whole)
            if not limit:
                limit, deadline = _sooner(pdu_seconds, latest)
            while self._end - self._start < whole:
                self._receive(limit, deadline)
        body = self._view[self._start + HEADER.size : self._start + whole]
        self._start += whole
        return Pdu(kind=kind, body=body)

    def stop_between_messages(self) -> None:
        """Raise `Stopping` if the server stops and no message is under way, however busy the peer is."""
        if not self.patient and self._stopping():
            raise Stopping

    def send(self, *parts: bytes) -> None:
        """Send bytes whole.

        Raises
        ------
        PeerGone
            It is closed, or the peer reads nothing.
        """
        secured = isinstance(self._socket, ssl.SSLSocket)
        try:
            if secured:
                self._socket.settimeout(SEND_SECONDS)
            self._socket.sendall(b"".join(parts) if len(parts) > 1 else parts[0])
            if secured:
                self._socket.settimeout(TICK_SECONDS)
        except OSError:
            raise PeerGone from None

    def linger(self) -> None:
        """Wait shortly for the peer to close, so that it reads our last PDU before the connection ends."""
        deadline = time.monotonic() + LINGER_SECONDS
        with contextlib.suppress(OSError, ValueError):
            if isinstance(self._socket, ssl.SSLSocket):
                self._socket.settimeout(0.0)
                with contextlib.suppress(OSError, ValueError):
                    self._socket.unwrap()  # says close_notify, waits for no answer
                self._socket.settimeout(TICK_SECONDS)
            self._socket.shutdown(socket.SHUT_WR)  # of TLS too: what still comes is dropped, encrypted as it is
            dropped = 0
            while time.monotonic() < deadline and dropped < LINGER_BYTES:
                try:
                    count = self._socket.recv_into(self._view)
                    if not count:
                        return
                    dropped += count
                except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
                    if self._stopping():
                        return

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _foreign(self, kind: int) -> str:
        """What a PDU of unknown type is: in practice a sender that speaks something else on this port."""
        begins = bytes(self._view[self._start : self._start + 4])
        where = "within TLS" if isinstance(self._socket, ssl.SSLSocket) else "on the plain port"
        if begins[:2] == TLS_HANDSHAKE:
            return f"TLS {where}"
        if begins in HTTP_METHODS:
            return f"HTTP {where}"
        return f"PDU type 0x{kind:02X}"

    def _make_room(self, whole: int) -> None:
        """Move what was not handed out to the front if `whole` bytes would not fit behind it."""
        if self._start + whole > len(self._view):
            held = self._end - self._start
            self._view[:held] = self._view[self._start : self._end]
            self._start, self._end = 0, held

    def _receive(self, limit: str, deadline: float, *, idle: bool = False) -> None:
        """Take in at least one byte."""
        if self._end == len(self._view):
            self._make_room(len(self._view))
        while True:
            try:
                count = self._socket.recv_into(self._view[self._end :])
            except (BlockingIOError, TimeoutError, InterruptedError, ssl.SSLWantReadError):
                count = -1
            except OSError:
                raise PeerGone from None
            if self.drained():
                raise Stopping(DRAINED)
            if count == 0:
                raise PeerGone
            if count > 0:
                self._end += count
            # What comes at the last moment ends an idle wait and is kept: the caller may go on after TooSlow.
            if time.monotonic() >= deadline and not (idle and count > 0):
                raise TooSlow(limit)
            if count > 0:
                return
            if idle and not self.patient and self._stopping():
                raise Stopping


def _sooner(pdu_seconds: float, latest: tuple[str, float]) -> tuple[str, float]:
    """Until when a PDU that begins now must be whole, and the limit that says so."""
    by = time.monotonic() + pdu_seconds
    return ("limits.pdu_seconds", by) if by < latest[1] else latest
