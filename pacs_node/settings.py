"""One frozen `Settings` from a TOML file and the environment. Nothing else reads either.

Every key `[section] key` is also the environment variable `PULMOLINK_SECTION_KEY`, which wins over the file;
entries of a list of tables are `PULMOLINK_DESTINATIONS_0_HOST` or the whole list as JSON in
`PULMOLINK_DESTINATIONS`. Unknown keys and wrong values are refused with file (or variable), key and reason.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pacs_node.settings_types import AeTitle, CertificateName, DatabaseUrl, Port, Seconds, ZoneName, listed

CONFIG_VARIABLE = "PULMOLINK_CONFIG"
PREFIX = "PULMOLINK_"
NOT_KEYS = frozenset({CONFIG_VARIABLE, "PULMOLINK_SAMPLES"})
"""Variables with our prefix that are not settings."""
SERVICE_LINK = re.compile(r"PULMOLINK_(.*_)?(SERVICE_(HOST|PORT.*)|PORT_\d+_(TCP|UDP|SCTP).*)")
"""What Kubernetes sets in every container beside a Service whose name begins with ours."""

REPORT_KINDS: tuple[Literal["sr", "overlay"], ...] = ("sr", "overlay")
ACCEPTED_KINDS: tuple[Literal["radiograph", "ecg", "document"], ...] = ("radiograph", "ecg", "document")


class SettingsError(Exception):
    """The configuration cannot be used. One line a problem, each naming where, which key and why."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Node(_Section):
    """This DICOM node."""

    ae_title: AeTitle = Field("PULMOLINK", description="our AE title")
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every interface")
    port: Port = Field(11112, description="DICOM port")
    site_timezone: ZoneName = Field(
        "Asia/Tokyo", description="time zone of objects that do not carry TimezoneOffsetFromUTC"
    )
    receivers: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="receiver processes under `serve`; several share the port, each with the bounds of [limits]"
    )
    require_called_ae_title: bool = Field(
        False, description="true: refuse associations that call us by another AE title"
    )
    also_called: Annotated[tuple[AeTitle, ...], BeforeValidator(listed)] = Field(
        (), description="further AE titles that are ours where require_called_ae_title is true"
    )

    @property
    def zone(self) -> ZoneInfo:
        """`site_timezone` as a tzinfo."""
        return ZoneInfo(self.site_timezone)


class Tls(_Section):
    """DICOM over TLS 1.2 and 1.3 (PS3.15 B.12). Files are PEM, and read again when they change."""

    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="TLS port, beside node.port; 2762 is the registered one; 0: no TLS"
    )
    only: bool = Field(False, description="true: the plain node.port is not opened")
    certificate: str = Field(
        "", description="file of our certificate and those between it and its authority; shown to destinations too"
    )
    key: str = Field("", description="file of its private key, without a password; blank: in tls.certificate")
    client_ca: str = Field("", description="file of the authorities that senders' certificates must come from")
    require_client_certificate: bool = Field(
        True, description="false: senders without a certificate may speak (their data is still encrypted)"
    )


class Storage(_Section):
    """Rows and object bytes."""

    database: DatabaseUrl = Field(
        "sqlite:////var/lib/pulmolink/pulmolink.db",
        description="SQLAlchemy URL: sqlite:////path or postgresql://user:password@host/name",
    )
    objects: Path = Field(Path("/var/lib/pulmolink/objects"), description="folder of received and made objects")
    retain_unpaired_days: Annotated[float, Field(ge=0, le=36500)] = Field(
        30, description="after so many days the bytes of inputs nobody pairs are removed; 0 keeps them"
    )
    keep_orphaned_days: Annotated[float, Field(ge=0, le=36500)] = Field(
        30, description="objects no row needs wait so long in objects/orphaned before they are removed; 0 keeps them"
    )


class Model(_Section):
    """The model that answers."""

    package: str = Field("synthetic-demo", description='a shipped package ("synthetic-demo") or a folder')


class Pairing(_Section):
    """Which ECG goes with which radiograph."""

    window_days: Annotated[float, Field(gt=0, le=365)] = Field(
        7, description="largest distance in time between radiograph and ECG, both directions, inclusive"
    )
    settle_seconds: Annotated[float, Field(ge=0, le=86400)] = Field(
        0, description="wait this long after pairing, so that a nearer ECG on its way spares a revision"
    )
    default_issuer: str = Field(
        "", description="issuer of patient ID taken where an object names none; blank pairs only with blank"
    )


class Source(_Section):
    """Who may send to us."""

    ae_title: AeTitle = Field(description="calling AE title")
    host: str = Field(description="address, range (192.0.2.0/24) or name the association comes from")
    ecg_documents: bool = Field(
        False, description="true: every PDF and picture from here is an ECG, whatever its title says"
    )
    accepts: Annotated[tuple[Literal["radiograph", "ecg", "document"], ...], BeforeValidator(listed)] = Field(
        ACCEPTED_KINDS,
        min_length=1,
        description="what it may send; document: PDFs and pictures. SOP Classes of other kinds are not negotiated",
    )
    certificate: CertificateName = Field(
        "",
        description='its TLS certificate, as "sha256:..." or parts of its subject ("O=Hospital, CN=cart1"); '
        "then it may speak over TLS only",
    )
    objects_per_second: Annotated[float, Field(ge=0, le=1e6)] = Field(
        0, description="as limits.objects_per_second, for this source; 0: that one"
    )
    commitment_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="its port for storage commitment reports; 0: only on the association on which it asked"
    )
    commitment_host: str = Field("", description="its host for those reports; blank: the address that it asked from")
    commitment_tls: bool = Field(
        False,
        description="true: those reports go over TLS; its certificate must come from tls.client_ca, else the system's, "
        "and name commitment_host where that is set",
    )


class Destination(_Section):
    """Where results go."""

    name: str = Field(min_length=1, max_length=64, description="name shown in status and logs")
    ae_title: AeTitle = Field(description="its AE title")
    host: str = Field(description="its address or name")
    port: Port = Field(description="its DICOM port")
    sends: Annotated[tuple[Literal["sr", "overlay"], ...], BeforeValidator(listed)] = Field(
        REPORT_KINDS, min_length=1, description="what it is sent"
    )
    tls: bool = Field(False, description="true: over TLS, with tls.certificate as ours where it is set")
    tls_ca: str = Field(
        "",
        description="file of the authorities its certificate must come from; blank: tls.client_ca, else the system's",
    )
    tls_check_name: bool = Field(True, description="false: its certificate need not name its host")
    commitment: bool = Field(
        False, description="true: it is asked to commit to what it was sent; it must be one of [[sources]], to report"
    )


class Web(_Section):
    """Health and metrics (pages come later)."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(8080, description="HTTP port of /healthz, /readyz and /metrics")


class Worker(_Section):
    """How the estimates are computed."""

    processes: Annotated[int, Field(ge=1, le=64)] = Field(1, description="worker processes under `serve`")
    threads: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="threads a worker computes with; 0: as many as there are cores"
    )
    lease_seconds: Seconds = Field(120, description="a claim not finished by then goes to another worker")
    poll_seconds: Seconds = Field(0.02, description="how often an idle worker looks for work")
    attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        5, description="tries at one stage of one match before it is FAILED"
    )
    retry_seconds: Seconds = Field(5, description="wait before the second try; doubles with each further one")


class Delivery(_Section):
    """How results reach their destinations."""

    first_retry_seconds: Seconds = Field(5, description="wait after the first failure that may pass")
    longest_retry_seconds: Seconds = Field(1800, description="the doubling wait stops growing here")
    attempts: Annotated[int, Field(ge=1)] = Field(
        20, description="unsuccessful tries of one report, at least, before it is FAILED; a refusal is final at once"
    )
    keep_trying_days: Annotated[float, Field(ge=0, le=3650)] = Field(
        3, description="and as long as this since the first of them: a full archive is given time to be emptied"
    )
    probe_seconds: Seconds = Field(15, description="how often a destination that does not answer is tried")
    give_up_days: Annotated[float, Field(gt=0, le=3650)] = Field(
        14, description="a destination silent for so long: its deliveries become FAILED"
    )
    timeout_seconds: Seconds = Field(30, description="longest wait for one answer of a destination")


class Commitment(_Section):
    """Storage commitment: asked of us by sources, and by us of destinations with commitment = true."""

    same_association_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        1, description="how long an association that asked may stay silent before the report is sent on it"
    )
    give_up_days: Annotated[float, Field(gt=0, le=3650)] = Field(
        7, description="a report that a source does not take for so long is given up"
    )
    wait_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        2, description="how long a destination may report on the association on which it was asked"
    )
    answer_seconds: Seconds = Field(
        3600,
        description="without a report by then a destination is asked anew; doubles with each question, up to a day",
    )
    attempts: Annotated[int, Field(ge=1, le=1000)] = Field(
        10, description="questions about one object before its delivery is FAILED; a refused one is sent again"
    )
    keep_days: Annotated[float, Field(gt=0, le=36500)] = Field(
        30, description="how long questions and answered requests are remembered"
    )


class Limits(_Section):
    """Bounds on what strangers may ask of us."""

    associations: Annotated[int, Field(ge=1, le=1000)] = Field(
        100, description="associations at a time, each receiver; beyond: rejected as temporarily congested"
    )
    connections: Annotated[int, Field(ge=1, le=2000)] = Field(
        256, description="open connections at a time; beyond: the one longest without an association is closed"
    )
    connections_per_peer: Annotated[int, Field(ge=1, le=2000)] = Field(
        128, description="the same for the connections of one address"
    )
    association_seconds: Seconds = Field(
        10, description="from connection to complete association request, TLS handshake included; then closed"
    )
    association_bytes: Annotated[int, Field(ge=4096, le=4 * 2**20)] = Field(
        256 * 1024, description="largest association request; beyond: aborted"
    )
    presentation_contexts: Annotated[int, Field(ge=1)] = Field(
        128, description="presentation contexts in one request (the standard allows 128); beyond: rejected"
    )
    user_information_bytes: Annotated[int, Field(ge=256, le=65535)] = Field(
        32768, description="user information (extended negotiation, user identity) in a request; beyond: rejected"
    )
    pdu_bytes: Annotated[int, Field(ge=4096, le=4 * 2**20)] = Field(
        131072, description="largest P-DATA PDU we offer to take; beyond: aborted"
    )
    pdu_seconds: Seconds = Field(30, description="from the first byte of a PDU to its last; then aborted")
    command_bytes: Annotated[int, Field(ge=1024, le=2**20)] = Field(
        16384, description="largest command set of a message; beyond: aborted"
    )
    message_seconds: Seconds = Field(3600, description="from the first fragment of a message to its last; then aborted")
    object_bytes: Annotated[int, Field(ge=1024)] = Field(
        512 * 2**20, description="largest data set stored; beyond: status 0xA700, nothing kept"
    )
    network_timeout_seconds: Seconds = Field(60, description="silence on an association before it is aborted")
    free_disk_bytes: Annotated[int, Field(ge=0)] = Field(
        64 * 2**20,
        description="less than this free under storage.objects: status 0xA700, and associations that would store are "
        "rejected",
    )
    free_inodes: Annotated[int, Field(ge=0)] = Field(
        1024, description="fewer inodes than this free under storage.objects: the same"
    )
    objects_per_second: Annotated[float, Field(ge=0, le=1e6)] = Field(
        5000,
        description="objects from one source, each receiver; faster ones wait for their turn, where that takes more "
        "than 10 s get status 0xA700; 0: no bound",
    )
    header_bytes: Annotated[int, Field(ge=65536)] = Field(
        64 * 2**20, description="how far into a data set its header is read; beyond: status 0xC000, held"
    )
    header_elements: Annotated[int, Field(ge=1000)] = Field(
        200_000, description="elements of a header that are looked at; beyond: status 0xC000, held"
    )
    header_depth: Annotated[int, Field(ge=4, le=1000)] = Field(
        64, description="sequences within sequences that are followed; beyond: status 0xC000, held"
    )
    header_value_bytes: Annotated[int, Field(ge=1024, le=2**24)] = Field(
        65536,
        description="length of one value of a header that is read, sequences apart; beyond: status 0xC000, held",
    )
    commitment_bytes: Annotated[int, Field(ge=1024, le=2**30)] = Field(
        4 * 2**20, description="largest storage commitment message; beyond: status 0x0213"
    )
    commitment_references: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10_000, description="objects in one storage commitment message; beyond: status 0x0213"
    )
    drain_seconds: Seconds = Field(20, description="after SIGTERM, how long running work may take before it is cut off")
    opening_bytes: Annotated[int, Field(ge=2**29, le=2**40)] = Field(
        4 * 2**30,
        description="memory to open one file (96 million pixels need 4 GiB); beyond: refused",
    )
    opening_cpu_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        30, description="processor time to open one file; beyond: refused"
    )
    opening_seconds: Seconds = Field(
        120, description="the same by the clock, for a busy machine; beyond: tried once more, then refused"
    )


class Log(_Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level written")
    format: Literal["json", "console"] = Field("json", description="one JSON object a line, or text for people")


class Settings(_Section):
    """Everything that may be configured."""

    node: Node = Node()
    tls: Tls = Tls()
    storage: Storage = Storage()
    model: Model = Model()
    pairing: Pairing = Pairing()
    sources: tuple[Source, ...] = ()
    destinations: tuple[Destination, ...] = ()
    web: Web = Web()
    worker: Worker = Worker()
    delivery: Delivery = Delivery()
    commitment: Commitment = Commitment()
    limits: Limits = Limits()
    log: Log = Log()


def load(path: Path | None, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings in force: defaults, then the file at `path`, then the environment.

    Raises
    ------
    SettingsError
        A file that cannot be read, unknown keys, wrong values; every problem is named.
    """
    variables = os.environ if environment is None else environment
    if path is None and variables.get(CONFIG_VARIABLE):
        path = Path(variables[CONFIG_VARIABLE])
    tree = _read_file(path) if path is not None else {}
    origins = _merge_environment(tree, variables)
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError([_sentence(problem, path, origins) for problem in error.errors()]) from None
    problems = _contradictions(settings)
    if problems:
        raise SettingsError(problems)
    return settings


def _contradictions(settings: Settings) -> list[str]:
    """What is wrong with keys together, each by itself being allowed."""
    problems = []
    names = [destination.name for destination in settings.destinations]
    if len(set(names)) != len(names):
        problems.append("destinations: two destinations have the same name; names must differ")
    tls = settings.tls
    if tls.port and not tls.certificate:
        problems.append("tls.certificate: required where tls.port is set")
    if tls.port and tls.require_client_certificate and not tls.client_ca:
        problems.append(
            "tls.client_ca: required where senders must show a certificate (tls.require_client_certificate)"
        )
    if tls.port == settings.node.port and not tls.only:
        problems.append("tls.port: the same as node.port; use another, or set tls.only")
    if tls.only and not tls.port:
        problems.append("tls.only: nobody could speak without tls.port")
    for number, source in enumerate(settings.sources):
        if source.certificate and not (tls.port and tls.client_ca):
            problems.append(f"sources.{number}.certificate: needs tls.port and tls.client_ca")
    return problems


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError([f"{path}: cannot be read: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path}: not valid TOML: {error}"]) from None


def _merge_environment(tree: dict[str, Any], variables: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Write each PULMOLINK_ variable into `tree`; return which variable gave which key."""
    origins: dict[tuple[str, ...], str] = {}
    for variable in sorted(variables, key=_with_numbers_in_order):
        if not variable.startswith(PREFIX) or variable in NOT_KEYS or _is_service_link(variable, variables[variable]):
            continue
        section, _, key = variable.removeprefix(PREFIX).lower().partition("_")
        key = key.lstrip("_")
        value: Any = variables[variable]
        if section in {"sources", "destinations"}:
            _merge_list(tree, section, key, value, variable, origins)
        else:
            table = tree.setdefault(section, {})
            if not isinstance(table, dict) or not key:
                raise SettingsError([f"{variable}: no such key; variables are PULMOLINK_SECTION_KEY"])
            table[key] = value
            origins[section, key] = variable
    return origins


def _with_numbers_in_order(variable: str) -> list[tuple[int, str]]:
    """A sorting key that puts entry 10 of a list after entry 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", variable)]


def _is_service_link(variable: str, value: str) -> bool:
    """Whether Kubernetes set a variable, such as PULMOLINK_WEB_PORT to tcp://10.0.0.1:8080."""
    return SERVICE_LINK.fullmatch(variable) is not None or re.match(r"(tcp|udp|sctp)://", value) is not None


def _merge_list(
    tree: dict[str, Any],
    section: str,
    key: str,
    value: str,
    variable: str,
    origins: dict[tuple[str, ...], str],
) -> None:
    if not key:
        try:
            tree[section] = json.loads(value)
        except json.JSONDecodeError as error:
            raise SettingsError([f"{variable}: not valid JSON: {error}"]) from None
        origins[(section,)] = variable
        return
    index, _, field = key.partition("_")
    field = field.lstrip("_")
    entries = tree.setdefault(section, [])
    listed = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    if not listed or not index.isdecimal() or not field or int(index) > len(entries):
        raise SettingsError([f"{variable}: variables of a list are PULMOLINK_{section.upper()}_0_KEY, ..._1_KEY"])
    if int(index) == len(entries):
        entries.append({})
    entries[int(index)][field] = value
    origins[section, index, field] = variable


def _sentence(problem: Any, path: Path | None, origins: Mapping[tuple[str, ...], str]) -> str:
    """One validation error as "where: key: reason", without repeating a secret value."""
    location = tuple(str(part) for part in problem["loc"])
    # The variable that gave the key, or the part of it that is wrong, or something inside it.
    givers = [origins[location[:length]] for length in range(len(location), 0, -1) if location[:length] in origins]
    if path is None:
        givers += [variable for key, variable in origins.items() if key[: len(location)] == location]
    where = givers[0] if givers else str(path) if path is not None else "built-in defaults"
    reason = {
        "extra_forbidden": "unknown key; `pulmolink config example` lists the keys",
        "missing": "required key is missing",
    }.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    return f"{where}: {'.'.join(location)}: {reason}"
