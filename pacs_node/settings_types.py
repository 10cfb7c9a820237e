"""What single values of the settings look like: each function gives a value back, or says what is wrong with it."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field

FILE_NAME_GROUPS = frozenset({"patient_id", "issuer", "acquired_at", "birth_date", "sex"})
"""What `folder.pattern` may find in a file name."""
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def ae_title(value: str) -> str:
    """An AE title (PS3.5 6.2, AE)."""
    if not re.fullmatch(r"[\x20-\x5b\x5d-\x7e]{1,16}", value) or value != value.strip() or not value:
        raise ValueError("an AE title is 1 to 16 ASCII characters without backslash or outer spaces")
    return value


def zone(value: str) -> str:
    """An IANA time zone."""
    if value not in available_timezones():
        raise ValueError(f"unknown time zone {value!r}; use an IANA name such as Asia/Tokyo")
    return value


def database(value: str) -> str:
    """A URL of one of the two kinds of database."""
    if not value.startswith(("sqlite:///", "postgresql://", "postgresql+pg8000://")):
        raise ValueError("use sqlite:////absolute/path.db or postgresql://user:password@host/name")
    return value


def host(value: str) -> str:
    """An address or a host name."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _is_name(value):
            raise ValueError(f"{value!r} is neither an address (192.0.2.5) nor a host name") from None
    return value


def host_or_blank(value: str) -> str:
    """As `host`, or nothing."""
    return host(value) if value else value


def peers(value: str) -> str:
    """Whom a source may be: an address, a range of addresses or a host name."""
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        if not _is_name(value):
            raise ValueError(
                f"{value!r} is neither an address (192.0.2.5), a range (192.0.2.0/24) nor a host name"
            ) from None
        return value
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError(f"{value!r} never matches: write an IPv4 address as 192.0.2.5")
    return value


def _is_name(value: str) -> bool:
    """Whether this may be a host name (RFC 1123 2.1; underscores occur). Names that end in a number are addresses."""
    try:
        labels = value.encode("idna").decode("ascii").removesuffix(".").split(".")
    except UnicodeError:
        return False
    return all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdecimal()


def listed(value: object) -> object:
    """Environment variables give lists as comma-separated text."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def certificate(value: str) -> str:
    """A certificate's fingerprint, or parts of its subject; fingerprints in one form."""
    if value.startswith("sha256:"):
        digits = value.removeprefix("sha256:").replace(":", "").lower()
        if not re.fullmatch(r"[0-9a-f]{64}", digits):
            raise ValueError("a fingerprint is sha256: and 64 hexadecimal digits, colons allowed")
        return f"sha256:{digits}"
    if value and not all(re.fullmatch(r"\s*[A-Za-z][A-Za-z0-9.]*=[^,]+", part) for part in value.split(",")):
        raise ValueError('use "sha256:..." or parts of the subject such as "O=Hospital, CN=cart1"')
    return value


def file_name_pattern(value: str) -> str:
    """A regular expression that says whose file it is and when it was made; blank: none."""
    if not value:
        return value
    try:
        groups = set(re.compile(value).groupindex)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    if unknown := groups - FILE_NAME_GROUPS:
        raise ValueError(
            f"unknown group {', '.join(sorted(unknown))}; groups are {', '.join(sorted(FILE_NAME_GROUPS))}"
        )
    if not {"patient_id", "acquired_at"} <= groups:
        raise ValueError("the groups (?P<patient_id>...) and (?P<acquired_at>...) are needed")
    return value


AeTitle = Annotated[str, AfterValidator(ae_title)]
Host = Annotated[str, AfterValidator(host)]
HostOrBlank = Annotated[str, AfterValidator(host_or_blank)]
Peers = Annotated[str, AfterValidator(peers)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86400)]
ZoneName = Annotated[str, AfterValidator(zone)]
DatabaseUrl = Annotated[str, AfterValidator(database)]
CertificateName = Annotated[str, AfterValidator(certificate)]
FileNamePattern = Annotated[str, AfterValidator(file_name_pattern)]
