"""Who may speak to us: configured sources by calling AE title and address, a range of addresses or a name."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator, Sequence

from pacs_node.dicom.tls import PeerCertificate
from pacs_node.settings import Source

NAMES_SECONDS = 60.0
"""How long the addresses of a source's name are remembered: looking up for each association would let a slow name
server hold everybody."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class WrongCertificate(Exception):
    """AE title and address are those of a source, but not the certificate, or none was shown."""


class Sources:
    """The configured sources; none configured: everybody on loopback, as `ANYBODY`."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = tuple(sources)
        self._names: dict[str, tuple[float, tuple[Network, ...]]] = {}
        self._guard = threading.Lock()

    def find(self, calling_ae: str, peer: str) -> Source | None:
        """The first source that this AE title and address are, or None. Certificates are not looked at."""
        return next(self._fitting(calling_ae, peer), None)

    def admit(self, calling_ae: str, peer: str, certificate: PeerCertificate | None) -> Source | None:
        """The source that this peer is, or None: refuse it.

        Two sources that differ in their certificate only are how one is replaced by the next.

        Raises
        ------
        WrongCertificate
            It would be one, with its certificate.
        """
        fits = False
        for source in self._fitting(calling_ae, peer):
            if not source.certificate or (certificate is not None and certificate.is_that_of(source.certificate)):
                return source
            fits = True
        if fits:
            raise WrongCertificate
        return None

    def _fitting(self, calling_ae: str, peer: str) -> Iterator[Source]:
        address = _address(peer)
        if address is None:
            return
        if not self._sources:
            if address.is_loopback:
                yield ANYBODY
            return
        for source in self._sources:
            if source.ae_title == calling_ae and any(address in network for network in self._networks(source.host)):
                yield source

    def _networks(self, host: str) -> tuple[Network, ...]:
        try:
            return (ipaddress.ip_network(host, strict=False),)
        except ValueError:
            pass  # a name
        now = time.monotonic()
        with self._guard:
            known = self._names.get(host)
        if known is not None and now - known[0] < NAMES_SECONDS:
            return known[1]
        try:
            found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
            networks = tuple(ipaddress.ip_network(address) for address in sorted(found))
        except (OSError, UnicodeError):
            networks = known[1] if known is not None else ()
        with self._guard:
            self._names[host] = (now, networks)
        return networks


ANYBODY = Source(ae_title="ANYBODY", host="127.0.0.0/8")
"""Stands for a peer on loopback where no source is configured."""


def _address(peer: str) -> Address | None:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
