"""One frozen `Settings` from a TOML file and the environment. Nothing else reads either.

Every key `[section] key` is also the environment variable `PULMOLINK_SECTION_KEY`, which wins over the file;
entries of a list of tables are `PULMOLINK_DESTINATIONS_0_HOST` or the whole list as JSON in
`PULMOLINK_DESTINATIONS`. Unknown keys and wrong values are refused with file (or variable), key and reason.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pacs_node.settings_tree import CONFIG_VARIABLE, SettingsError, merge_environment, placed, read_file, sentences
from pacs_node.settings_types import (
    AeTitle,
    CertificateName,
    DatabaseUrl,
    FileNamePattern,
    Host,
    HostOrBlank,
    Peers,
    Port,
    Seconds,
    ZoneName,
    listed,
)

REPORT_KINDS: tuple[Literal["sr", "overlay"], ...] = ("sr", "overlay")
ACCEPTED_KINDS: tuple[Literal["radiograph", "ecg", "document"], ...] = ("radiograph", "ecg", "document")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Node(_Section):
    """This DICOM node."""

    ae_title: AeTitle = Field("PULMOLINK", description="our AE title")
    host: Host = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every interface")
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

    package: str = Field(
        "synthetic-demo",
        description='a shipped package ("synthetic-demo"), an installed one (NAME-VERSION) or a folder',
    )
    folder: Path = Field(Path("/var/lib/pulmolink/models"), description="where `pulmolink model install` puts packages")
    shadow: str = Field(
        "",
        description="a second package, named likewise: it estimates the same examinations in a process of its own; its "
        "answers are stored and compared (`model compare --live`), never reported; blank: none",
    )
    public_key: str = Field(
        "",
        description="PEM file: only packages that its private key signed (OpenSSF Model Signing) are installed, "
        "verified and served; needs the extra pulmolink[signing]; blank: packages need no signature",
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu",
        description='where the packages compute: "cpu", or "cuda" for the first GPU; without one they are refused',
    )

    @property
    def key(self) -> Path | None:
        """The file that packages must be signed by."""
        return Path(self.public_key) if self.public_key else None

    def find(self, name: str) -> str:
        """The folder of an installed package, else `name` as it is: a shipped package or a folder."""
        installed = self.folder / name
        return str(installed) if name and (installed / "manifest.json").is_file() else name

    @property
    def where(self) -> str:
        """What answers: as `find`."""
        return self.find(self.package)


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
    host: Peers = Field(description="address, range (192.0.2.0/24) or name the association comes from")
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
        0, description="as limits.objects_per_second, each receiver, for this source; 0: that one"
    )
    commitment_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="its port for storage commitment reports; 0: only on the association on which it asked"
    )
    commitment_host: HostOrBlank = Field(
        "", description="its host for those reports; blank: the address that it asked from"
    )
    commitment_tls: bool = Field(
        False,
        description="true: those reports go over TLS; its certificate must come from tls.client_ca, else the system's, "
        "and name commitment_host where that is set; one of the two is required",
    )


class Destination(_Section):
    """Where results go."""

    name: str = Field(min_length=1, max_length=64, description="name shown in status and logs")
    ae_title: AeTitle = Field(description="its AE title")
    host: Host = Field(description="its address or name")
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


class Folder(_Section):
    """A folder into which ECG carts export files: PDF, PNG, JPEG, TIFF, BMP, HL7 aECG, DICOM."""

    path: str = Field("", description="folder to watch, with those inside it; blank: none")
    pattern: FileNamePattern = Field(
        "",
        description="regular expression for whole file names with groups patient_id, acquired_at and perhaps issuer, "
        "birth_date, sex; blank: only a JSON file beside it (NAME.json) says whose ECG it is",
    )
    time_format: str = Field(
        "%Y%m%d%H%M%S", min_length=1, description="how acquired_at is written in file names (strptime)"
    )
    issuer: str = Field("", max_length=64, description="issuer of patient IDs that name none; blank: default_issuer")
    settle_seconds: Seconds = Field(5, description="a file is taken once nobody has written to it for so long")
    sidecar_seconds: Seconds = Field(
        120, description="a file that does not say whose it is waits so long for its JSON file, then it is held"
    )
    poll_seconds: Seconds = Field(2, description="how often the folder is looked at")
    retry_seconds: Seconds = Field(60, description="wait before a file that could not be stored is tried again")
    stored: Literal["move", "delete"] = Field(
        "move", description="what becomes of a file once it is stored: moved to done/ inside the folder, or deleted"
    )
    keep_done_days: Annotated[float, Field(ge=0, le=36500)] = Field(
        30, description="files in done/ are removed after so many days (their ECGs stay); 0: they stay"
    )

    @property
    def is_watched(self) -> bool:
        """Whether there is a folder to watch."""
        return bool(self.path)


class Web(_Section):
    """Health and metrics (pages come later)."""

    host: Host = Field("127.0.0.1", description="address to listen on")
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
        256,
        description="connections at a time, each receiver; beyond: the one longest without an association is closed",
    )
    connections_per_peer: Annotated[int, Field(ge=1, le=2000)] = Field(
        128, description="the same for the connections of one address, each receiver"
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
        "rejected; commitment requests get 0x0213",
    )
    free_inodes: Annotated[int, Field(ge=0)] = Field(
        1024, description="fewer inodes than this free under storage.objects: the same"
    )
    objects_per_second: Annotated[float, Field(ge=0, le=1e6)] = Field(
        5000,
        description="objects and commitment requests from one source, each receiver; faster ones wait for their turn, "
        "where that takes more than 10 s get status 0xA700 or 0x0213; 0: no bound",
    )
    header_bytes: Annotated[int, Field(ge=65536)] = Field(
        64 * 2**20, description="how far into a data set its header is read; beyond: status 0xC000, held"
    )
    header_elements: Annotated[int, Field(ge=1000)] = Field(
        200_000, description="elements of a header that are looked at; beyond: status 0xC000, held"
    )
    header_depth: Annotated[int, Field(ge=4, le=1000)] = Field(
        64,
        description="sequences within sequences, of those that are read or have no stated length (others are stepped "
        "over, however deep); beyond: status 0xC000, held",
    )
    header_value_bytes: Annotated[int, Field(ge=1024, le=2**24)] = Field(
        65536,
        description="length of one value of a header that is read, sequences apart; beyond: status 0xC000, held",
    )
    commitment_bytes: Annotated[int, Field(ge=1024, le=2**30)] = Field(
        4 * 2**20, description="largest storage commitment message; beyond: status 0x0213"
    )
    commitment_pending: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1000, description="unanswered storage commitment requests of one source; beyond: status 0x0213"
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
    folder: Folder = Folder()
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
    tree = read_file(path) if path is not None else {}
    origins = merge_environment(tree, variables)
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(sentences(error.errors(), path, origins)) from None
    problems = contradictions(settings)
    if problems:
        raise SettingsError([placed(problem, path, origins) for problem in problems])
    return settings


def contradictions(settings: Settings) -> list[str]:
    """What is wrong with keys together, each by itself being allowed: "key: reason"."""
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
    if settings.model.shadow and settings.model.shadow == settings.model.package:
        problems.append("model.shadow: the same as model.package; name another package, or leave it blank")
    for number, source in enumerate(settings.sources):
        if source.certificate and not (tls.port and tls.client_ca):
            problems.append(f"sources.{number}.certificate: needs tls.port and tls.client_ca")
        if source.commitment_tls and not (tls.client_ca or source.commitment_host):
            problems.append(
                f"sources.{number}.commitment_tls: needs tls.client_ca or commitment_host; "
                "else whoever has a certificate of any public authority would pass for it"
            )
    return problems
