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
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

CONFIG_VARIABLE = "PULMOLINK_CONFIG"
PREFIX = "PULMOLINK_"
NOT_KEYS = frozenset({CONFIG_VARIABLE, "PULMOLINK_SAMPLES"})
"""Variables with our prefix that are not settings."""
SERVICE_LINK = re.compile(r"PULMOLINK_(.*_)?(SERVICE_(HOST|PORT.*)|PORT_\d+_(TCP|UDP|SCTP).*)")
"""What Kubernetes sets in every container beside a Service whose name begins with ours."""

REPORT_KINDS: tuple[Literal["sr", "overlay"], ...] = ("sr", "overlay")


class SettingsError(Exception):
    """The configuration cannot be used. One line a problem, each naming where, which key and why."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _ae_title(value: str) -> str:
    if not re.fullmatch(r"[\x20-\x5b\x5d-\x7e]{1,16}", value) or value != value.strip() or not value:
        raise ValueError("an AE title is 1 to 16 ASCII characters without backslash or outer spaces")
    return value


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(f"unknown time zone {value!r}; use an IANA name such as Asia/Tokyo")
    return value


def _database(value: str) -> str:
    if not value.startswith(("sqlite:///", "postgresql://", "postgresql+pg8000://")):
        raise ValueError("use sqlite:////absolute/path.db or postgresql://user:password@host/name")
    return value


def _listed(value: object) -> object:
    """Environment variables give lists as comma-separated text."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86400)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Node(_Section):
    """This DICOM node."""

    ae_title: AeTitle = Field("PULMOLINK", description="our AE title")
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every interface")
    port: Port = Field(11112, description="DICOM port")
    site_timezone: Annotated[str, AfterValidator(_zone)] = Field(
        "Asia/Tokyo", description="time zone of objects that do not carry TimezoneOffsetFromUTC"
    )
    require_called_ae_title: bool = Field(
        False, description="true: refuse associations that call us by another AE title"
    )

    @property
    def zone(self) -> ZoneInfo:
        """`site_timezone` as a tzinfo."""
        return ZoneInfo(self.site_timezone)


class Storage(_Section):
    """Rows and object bytes."""

    database: Annotated[str, AfterValidator(_database)] = Field(
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
    host: str = Field(description="address or name the association comes from")
    ecg_documents: bool = Field(
        False, description="true: every PDF and picture from here is an ECG, whatever its title says"
    )


class Destination(_Section):
    """Where results go."""

    name: str = Field(min_length=1, max_length=64, description="name shown in status and logs")
    ae_title: AeTitle = Field(description="its AE title")
    host: str = Field(description="its address or name")
    port: Port = Field(description="its DICOM port")
    sends: Annotated[tuple[Literal["sr", "overlay"], ...], BeforeValidator(_listed)] = Field(
        REPORT_KINDS, min_length=1, description="what it is sent"
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


class Limits(_Section):
    """Bounds on what strangers may ask of us."""

    associations: Annotated[int, Field(ge=1, le=1000)] = Field(
        100, description="associations at a time; beyond: rejected as temporarily congested"
    )
    object_bytes: Annotated[int, Field(ge=1024)] = Field(
        512 * 2**20, description="largest data set stored; beyond: status 0xA700, nothing kept"
    )
    network_timeout_seconds: Seconds = Field(60, description="silence on an association before it is aborted")
    free_disk_bytes: Annotated[int, Field(ge=0)] = Field(
        64 * 2**20, description="less than this free under storage.objects: status 0xA700"
    )
    drain_seconds: Seconds = Field(20, description="after SIGTERM, how long running work may take before it is cut off")


class Log(_Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level written")
    format: Literal["json", "console"] = Field("json", description="one JSON object a line, or text for people")


class Settings(_Section):
    """Everything that may be configured."""

    node: Node = Node()
    storage: Storage = Storage()
    model: Model = Model()
    pairing: Pairing = Pairing()
    sources: tuple[Source, ...] = ()
    destinations: tuple[Destination, ...] = ()
    web: Web = Web()
    worker: Worker = Worker()
    delivery: Delivery = Delivery()
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
    names = [destination.name for destination in settings.destinations]
    if len(set(names)) != len(names):
        raise SettingsError(["destinations: two destinations have the same name; names must differ"])
    return settings


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


def hide_secrets(url: str) -> str:
    """A database URL with its password replaced."""
    url = re.sub(r"(://[^:/@]*:)[^@]*@", r"\1********@", url)
    return re.sub(r"([?&]password=)[^&]*", r"\1********", url)


def as_toml(settings: Settings) -> str:
    """The settings in force as TOML, secrets hidden."""
    tree = settings.model_dump(mode="json")
    tree["storage"]["database"] = hide_secrets(tree["storage"]["database"])
    lines: list[str] = []
    for section, content in tree.items():
        tables = content if isinstance(content, list) else [content]
        for table in tables:
            lines.append(f"[[{section}]]" if isinstance(content, list) else f"[{section}]")
            lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
            lines.append("")
    return "\n".join(lines)


def example() -> str:
    """A commented file with every key at its default; lists show one commented entry."""
    lines = [
        "# pulmolink configuration. Every key may be left out; what stands here is the default.",
        "# Each key is also an environment variable, PULMOLINK_SECTION_KEY, which wins over this file.",
        "",
    ]
    samples: dict[str, tuple[type[_Section], dict[str, Any]]] = {
        "sources": (Source, {"ae_title": "MODALITY", "host": "127.0.0.1"}),
        "destinations": (
            Destination,
            {"name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": 4242},
        ),
    }
    for section, field in Settings.model_fields.items():
        if section in samples:
            kind, sample = samples[section]
            lines.append(f"# {kind.__doc__}" + (" None listed: nobody but loopback." * (section == "sources")))
            values = kind.model_validate(sample).model_dump(mode="json")
            lines.append(f"#[[{section}]]")
            mark = "#"
        else:
            kind = type(field.default)
            values = kind().model_dump(mode="json")
            lines += [f"# {kind.__doc__}", f"[{section}]"]
            mark = ""
        for key, entry in kind.model_fields.items():
            lines.append(f"{mark}{key} = {_toml(values[key])}  # {entry.description}")
        lines.append("")
    return "\n".join(lines)


def _toml(value: object) -> str:
    """A value as TOML; JSON's notation is TOML's for the kinds used here."""
    return json.dumps(value, ensure_ascii=False)
