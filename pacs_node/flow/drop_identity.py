"""Whose ECG a dropped file is, and when it was made: from its name, or from a JSON file beside it.

Pure: text in, an `Identity` out. What neither says is not guessed; what both say must agree.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from datetime import date, datetime
from zoneinfo import ZoneInfo

from pacs_node.settings import Folder
from storage.records import Patient

DONE = "done"  # the folder inside the watched one to which files go once they are stored
MAX_SIDECAR_BYTES = 65_536
_SIDECAR_FIELDS = frozenset({"patient_id", "issuer", "acquired_at", "birth_date", "sex", "name"})


class SidecarWrong(Exception):
    """The JSON file beside a dropped file cannot be used, or contradicts its name. Quotes nothing of either."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What is said of a file. "" and None: not said."""

    patient_id: str = ""
    issuer: str = ""
    acquired_at: datetime | None = None  # timezone-aware
    birth_date: str = ""  # YYYYMMDD
    sex: str = ""
    name: str = ""

    @property
    def is_enough(self) -> bool:
        """Whether it says who and when."""
        return bool(self.patient_id) and self.acquired_at is not None

    def patient(self, issuer: str) -> Patient:
        """The person; `issuer` where the file names none."""
        return Patient(
            issuer=self.issuer or issuer,
            patient_id=self.patient_id,
            name=self.name,
            birth_date=self.birth_date,
            sex=self.sex,
        )


def identity_of(name: str, sidecar: bytes | None, rules: Folder, zone: ZoneInfo) -> Identity:
    """What a file's name and its JSON file say.

    Parameters
    ----------
    name
        The file's name without its folder.
    sidecar
        The JSON file's bytes, None if there is none.
    zone
        Of times without an offset.

    Raises
    ------
    SidecarWrong
        The JSON is not what it should be, or says something else than the name.
    """
    named = _from_name(name, rules, zone)
    if sidecar is None:
        return named
    told = _from_sidecar(sidecar, zone)
    both = {}
    for field in fields(Identity):
        one, other = getattr(named, field.name), getattr(told, field.name)
        if one and other and one != other:
            raise SidecarWrong(f"file name and JSON file disagree on {field.name}")
        both[field.name] = other or one
    return Identity(**both)


def _from_name(name: str, rules: Folder, zone: ZoneInfo) -> Identity:
    found = re.fullmatch(rules.pattern, name) if rules.pattern else None
    if found is None:
        return Identity()
    said = {group: (value or "").strip() for group, value in found.groupdict().items()}
    try:
        moment = datetime.strptime(said["acquired_at"], rules.time_format)  # noqa: DTZ007 - the zone follows
    except ValueError:
        return Identity()
    return Identity(
        patient_id=said["patient_id"],
        issuer=said.get("issuer", ""),
        acquired_at=moment if moment.tzinfo else moment.replace(tzinfo=zone),
        birth_date=_birth_date(said.get("birth_date", "")),
        sex=_sex(said.get("sex", "")),
    )


def _from_sidecar(content: bytes, zone: ZoneInfo) -> Identity:
    try:
        tree = json.loads(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise SidecarWrong("the JSON file is not valid JSON in UTF-8") from None
    if not isinstance(tree, dict) or not all(isinstance(value, str) for value in tree.values()):
        raise SidecarWrong("the JSON file is not one object of texts")
    if unknown := len(set(tree) - _SIDECAR_FIELDS):
        raise SidecarWrong(
            f"the JSON file has {unknown} unknown fields; known are {', '.join(sorted(_SIDECAR_FIELDS))}"
        )
    said = {field: value.strip() for field, value in tree.items()}
    moment = None
    if said.get("acquired_at"):
        try:
            moment = datetime.fromisoformat(said["acquired_at"])
        except ValueError:
            raise SidecarWrong("acquired_at of the JSON file is not an ISO 8601 time") from None
        if len(said["acquired_at"]) <= len("2026-03-01"):
            raise SidecarWrong("acquired_at of the JSON file has no time of day")
        moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
    return Identity(
        patient_id=said.get("patient_id", ""),
        issuer=said.get("issuer", ""),
        acquired_at=moment,
        birth_date=_birth_date(said.get("birth_date", "")),
        sex=_sex(said.get("sex", "")),
        name=said.get("name", ""),
    )


def _birth_date(value: str) -> str:
    """A calendar date as YYYYMMDD; "" for anything else, which then says nothing."""
    digits = value.replace("-", "")
    try:
        return date.fromisoformat(digits).strftime("%Y%m%d") if len(digits) == 8 else ""
    except ValueError:
        return ""


def _sex(value: str) -> str:
    return value.upper() if value.upper() in {"M", "F", "O"} else ""
