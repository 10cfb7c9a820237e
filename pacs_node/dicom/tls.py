"""TLS for associations: contexts after PS3.15 B.12 (BCP 195), the certificate files behind them, and who a peer is.

TLS 1.2 and 1.3, nothing older, ephemeral keys and AES-GCM only (RFC 9325 4.2). Neither tickets nor renegotiation: each
association shows its certificate anew, so that an authority that was removed counts from the next one on.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from pacs_node.settings import Destination, Source, Tls

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

log = structlog.get_logger()

TLS12_CIPHERS = (
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
)
"""The suites of RFC 9325 4.2. Those of TLS 1.3 are all authenticated encryption with ephemeral keys."""
LOOK_SECONDS = 1.0
"""How often, at most, the files are looked at; associations in between use what was found."""
REMIND_SECONDS = 86400.0
"""How often the log says that our certificate ends soon or has ended."""
WARN_DAYS = 30
"""A certificate that ends within so many days is said at start and by `doctor`."""


class TlsFault(Exception):
    """A certificate, key or authority file cannot be used. The message names the setting and the file."""


@dataclass(frozen=True, kw_only=True)
class ClientTls:
    """How a destination is called over TLS."""

    files: Tls
    authorities: str  # a file, or "" for the system's
    authorities_key: str  # the setting that names it
    check_name: bool

    def context(self) -> ssl.SSLContext:
        """A context for one association, from the files as they are now. Raises `TlsFault`."""
        context = _context(ssl.PROTOCOL_TLS_CLIENT)
        context.sslsocket_class = _ClosedWhenDropped
        context.check_hostname = self.check_name
        if self.authorities:
            _load_authorities(context, self.authorities_key, self.authorities)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if self.files.certificate:
            _load_own(context, self.files)
        return context


class _ClosedWhenDropped(ssl.SSLSocket):
    """pynetdicom drops the socket of a failed handshake without closing it."""

    def __del__(self) -> None:
        self.close()


def reporting_tls(source: Source, files: Tls) -> ClientTls | None:
    """How to call a source that asked for storage commitment, None for without TLS."""
    if not source.commitment_tls:
        return None
    # An address that a source asked from is in few certificates; that its authority is ours is then the proof.
    return ClientTls(
        files=files,
        authorities=files.client_ca,
        authorities_key="tls.client_ca",
        check_name=bool(source.commitment_host),
    )


def client_tls(destination: Destination, files: Tls) -> ClientTls | None:
    """How to call a destination, None for without TLS."""
    if not destination.tls:
        return None
    return ClientTls(
        files=files,
        authorities=destination.tls_ca or files.client_ca,
        authorities_key="destinations.tls_ca" if destination.tls_ca else "tls.client_ca",
        check_name=destination.tls_check_name,
    )


def server_context(tls: Tls) -> ssl.SSLContext:
    """The context of our TLS port.

    Raises
    ------
    TlsFault
        A file is missing or damaged, or key and certificate do not belong together.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET
    context.num_tickets = 0
    _load_own(context, tls)
    if tls.client_ca:
        _load_authorities(context, "tls.client_ca", tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if tls.require_client_certificate else ssl.CERT_OPTIONAL
    return context


class ServerTls:
    """The context of the TLS port, made again when a file changed or when told to. For several threads.

    Raises
    ------
    TlsFault
        When made: the files cannot be used. Later ones that cannot be used are logged, and the former stay in force.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._guard = threading.Lock()
        self._seen = _stamps(tls)
        self._context = server_context(tls)
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._remind_at = 0.0

    def context(self) -> ssl.SSLContext:
        """The context now in force."""
        with self._guard:
            now = time.monotonic()
            if now >= self._look_at:
                self._look_at = now + LOOK_SECONDS
                self._look()
            if now >= self._remind_at:
                self._remind_at = now + REMIND_SECONDS
                own = standing(self._tls, datetime.now(UTC))
                if own.warning:
                    log.warning("certificate_ends", reason=own.sentence)
            return self._context

    def _look(self) -> None:
        stamps = _stamps(self._tls)
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            self._context = server_context(self._tls)
        except TlsFault as fault:
            log.error("certificates_refused", reason=str(fault))
        else:
            log.info("certificates_reloaded", valid_until=_valid_until(self._tls))


def handshake(connection: ssl.SSLSocket, deadline: float, tick_seconds: float, stop: threading.Event) -> None:
    """Shake hands until `deadline` (`time.monotonic()`).

    Raises
    ------
    TimeoutError
        Not done by then, or the server stops.
    OSError
        It failed; an `ssl.SSLError` says why.
    """
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or stop.is_set():
            raise TimeoutError
        connection.settimeout(min(left, tick_seconds))
        with contextlib.suppress(TimeoutError):  # of this tick
            connection.do_handshake()
            return


def failure(error: OSError) -> str:
    """Which of a few words says why a handshake failed."""
    reason = getattr(error, "reason", "") or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "tls_certificate_expired" if error.verify_code == _EXPIRED else "tls_certificate_refused"
    if "DID_NOT_RETURN_A_CERTIFICATE" in reason:
        return "tls_no_certificate"
    if reason in {"UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE", "VERSION_TOO_LOW", "NO_SHARED_CIPHER"}:
        return "tls_version_or_cipher"
    if reason in {
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "UNEXPECTED_MESSAGE",
        "BAD_RECORD_TYPE",
        "PACKET_LENGTH_TOO_LONG",
    }:
        return "tls_not_spoken"
    return "tls_failed"


_EXPIRED = 10
"""X509_V_ERR_CERT_HAS_EXPIRED."""


class PeerCertificate:
    """The certificate that a peer showed."""

    def __init__(self, der: bytes) -> None:
        from cryptography import x509

        self._certificate = x509.load_der_x509_certificate(der)
        self.fingerprint = _fingerprint(self._certificate)

    def is_that_of(self, named: str) -> bool:
        """Whether it is what a source's `certificate` names: its fingerprint, or parts of its subject."""
        if named.startswith("sha256:"):
            return self.fingerprint == named
        subject = {
            (attribute.rfc4514_attribute_name.upper(), str(attribute.value)) for attribute in self._certificate.subject
        }
        wanted = (part.strip().partition("=") for part in named.split(","))
        return all((name.strip().upper(), value.strip()) in subject for name, _, value in wanted)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How our own certificate stands."""

    usable: bool
    sentence: str
    warning: bool  # expired, not yet valid, or about to end
    ends: datetime | None = None


def standing(tls: Tls, now: datetime) -> Standing:
    """Whether the files of the TLS port can be used, and how long our certificate is valid."""
    try:
        server_context(tls)
        own = next(_certificates(Path(tls.certificate)))
    except (TlsFault, OSError, ValueError, StopIteration) as fault:
        return Standing(usable=False, sentence=str(fault), warning=True)
    begins, ends = own.not_valid_before_utc, own.not_valid_after_utc
    if now < begins:
        sentence = f"tls.certificate: {tls.certificate} is valid from {begins:%Y-%m-%d %H:%M} UTC only"
    elif now > ends:
        sentence = f"tls.certificate: {tls.certificate} expired {ends:%Y-%m-%d %H:%M} UTC; peers will refuse it"
    else:
        sentence = f"tls.certificate: {tls.certificate} is valid until {ends:%Y-%m-%d} ({(ends - now).days} days)"
    warning = not begins <= now <= ends - timedelta(days=WARN_DAYS)
    if warning:
        sentence += "; put another in its place, it is taken up without a restart"
    return Standing(usable=True, sentence=sentence, warning=warning, ends=ends)


def check(tls: Tls, destinations: Iterable[Destination], sources: Iterable[Source]) -> None:
    """Pass if every file of a configuration can be used.

    Raises
    ------
    TlsFault
        One cannot.
    """
    if tls.port or tls.certificate:
        server_context(tls)
    calls = [client_tls(destination, tls) for destination in destinations]
    calls += [reporting_tls(source, tls) for source in sources]
    for how in calls:
        if how is not None:
            how.context()


def call(host: str, port: int, how: ClientTls, timeout_seconds: float) -> str:
    """Shake hands with a destination: version, suite, and how long its certificate is valid.

    Raises
    ------
    TlsFault
        It did not work; the message says why.
    """
    from cryptography import x509

    context = how.context()
    try:
        with (
            socket.create_connection((host, port), timeout=timeout_seconds) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            cipher = connection.cipher()
            certificate = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
            # With TLS 1.3 a server refuses our certificate after our side is done: its alert comes with the first read.
            connection.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                connection.recv(1)
    except ssl.SSLCertVerificationError as error:
        raise TlsFault(f"its certificate is refused: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise TlsFault(f"no TLS: {error.reason or 'the peer broke off'}") from None
    except OSError as error:
        raise TlsFault(f"no connection: {error.strerror or error}") from None
    return f"{connection_version(cipher)}, its certificate is valid until {certificate.not_valid_after_utc:%Y-%m-%d}"


def connection_version(cipher: tuple[str, str, int] | None) -> str:
    """Version and suite, as OpenSSL names them."""
    return f"{cipher[1]} {cipher[0]}" if cipher else "TLS"


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS12_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _load_own(context: ssl.SSLContext, tls: Tls) -> None:
    key = tls.key or tls.certificate
    for setting, file in (("tls.certificate", tls.certificate), ("tls.key", key)):
        _readable(setting, file)

    def no_password() -> str:
        raise TlsFault(f"tls.key: {key} has a password; store it without one, readable for this user alone")

    try:
        context.load_cert_chain(tls.certificate, tls.key or None, password=no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFault(f"tls.key: {key} does not belong to the certificate in {tls.certificate}") from None
        raise TlsFault(
            f"tls.certificate, tls.key: no certificate and key in PEM form in {tls.certificate}, {key}"
        ) from None


def _load_authorities(context: ssl.SSLContext, setting: str, file: str) -> None:
    _readable(setting, file)
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError:
        raise TlsFault(f"{setting}: no certificate in PEM form in {file}") from None


def _readable(setting: str, file: str) -> None:
    try:
        with Path(file).open("rb"):
            pass
    except OSError as error:
        raise TlsFault(f"{setting}: {file} cannot be read: {error.strerror}") from None


def _stamps(tls: Tls) -> tuple[tuple[int, int, int] | None, ...]:
    """What changes when one of the files does; None for one that is not there."""
    stamps: list[tuple[int, int, int] | None] = []
    for file in filter(None, (tls.certificate, tls.key, tls.client_ca)):
        try:
            found = Path(file).stat()
            stamps.append((found.st_mtime_ns, found.st_ino, found.st_size))
        except OSError:
            stamps.append(None)
    return tuple(stamps)


def _certificates(file: Path) -> Iterator[Certificate]:
    from cryptography import x509

    yield from x509.load_pem_x509_certificates(file.read_bytes())


def _valid_until(tls: Tls) -> str:
    return next(_certificates(Path(tls.certificate))).not_valid_after_utc.isoformat()


def _fingerprint(certificate: Certificate) -> str:
    from cryptography.hazmat.primitives.hashes import SHA256

    return f"sha256:{certificate.fingerprint(SHA256()).hex()}"
