"""Which standard leads the channels of a DICOM waveform carry, by code, code meaning or label.

Values only: no samples. The receiver's classifier and the decoder share this one table.
"""

from __future__ import annotations

import re
import struct
import unicodedata
import zlib
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TypeVar

from pydicom.errors import BytesLengthException, InvalidDicomError

_TWELVE = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
_CHEST = _TWELVE[6:]

# PS3.16 CID 3001 "ECG Lead": MDC codes 2:x and SCP-ECG codes 5.6.3-9-x number the leads alike.
_NUMBERED: dict[int, str] = {
    1: "I",
    2: "II",
    61: "III",
    62: "aVR",
    63: "aVL",
    64: "aVF",
    **{3 + index: lead for index, lead in enumerate(_CHEST)},
}
# The "derived" forms of the same leads, which some recorders write.
_DERIVED: dict[int, str] = {
    31: "I",
    32: "II",
    111: "III",
    112: "aVR",
    113: "aVL",
    114: "aVF",
    **{33 + index: lead for index, lead in enumerate(_CHEST)},
}
# VR, VL and VF without augmentation are two thirds as high as aVR, aVL and aVF: another quantity.
_NOT_AUGMENTED = frozenset({88, 89, 90})

_CODE = re.compile(r"^(?:2:|5\.6\.3-9-)(\d{1,3})$")
_SCHEMES = frozenset({"MDC", "SCPECG", ""})
_NAME = re.compile(
    r"^(?:ECG\s+)?(?:LEAD\s*)?(III|II|I|AVR|AVL|AVF|V[1-6])(?:\s*LEAD)?(?:\s*\((?:EINTHOVEN|DERIVED|AUGMENTED)\))?$"
)
_PLAIN_VR = re.compile(r"^(?:ECG\s+)?(?:LEAD\s*)?V[RLF](?:\s*LEAD)?$")
_BY_UPPER = {lead.upper(): lead for lead in _TWELVE}

MINIMUM_STRIP_SECONDS = 2.4
"""A group shorter than this is a beat or a fragment, never one column of a sheet (2.5 s)."""

_AVERAGED = re.compile(r"MEDIAN|AVERAGE|TEMPLATE|REPRESENTATIVE|MEAN BEAT", re.IGNORECASE)


PARSER_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,  # with RecursionError and NotImplementedError
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom 3.0.2 was seen to raise, or may raise by its source, on damaged bytes."""


class NotALead(Enum):
    """Why a channel is not one of the twelve leads."""

    OTHER = "other"  # another lead, another measurement, or no name at all
    NOT_AUGMENTED = "not augmented"  # VR, VL or VF


class Elements(Protocol):
    """A header that gives elements by keyword and None for absent ones, as `pydicom.Dataset` does."""

    def get(self, keyword: str, /) -> Any:
        """The value of an element: text, number, several of them, or the items of a sequence."""


E = TypeVar("E", bound=Elements)


@dataclass(frozen=True, kw_only=True)
class ChannelName:
    """What a channel's header calls it: code and scheme, meaning, and free label ("" where absent)."""

    code: str
    scheme: str
    meaning: str
    label: str


def waveform_leads(dataset: Elements) -> frozenset[str]:
    """The standard leads that a waveform's header declares over all groups that could be used.

    Counts what is named, not what can be computed from it: eight leads (I, II, V1 to V6) still make an
    ECG, so compare with `can_complete`. Averaged beats and groups under 2.4 s do not count. A header
    that cannot be read declares nothing.

    Parameters
    ----------
    dataset : pydicom.Dataset
        A waveform object, or its header without WaveformData.
    """
    leads: set[str] = set()
    try:
        for group in sequence(dataset, "WaveformSequence"):
            rate, samples = number(group, "SamplingFrequency"), number(group, "NumberOfWaveformSamples")
            if is_averaged(group) or not rate or not samples or samples / rate < MINIMUM_STRIP_SECONDS:
                continue
            leads |= _declared(group)
    except PARSER_FAULTS:
        return frozenset()
    return frozenset(leads)


def _declared(group: Elements) -> frozenset[str]:
    """The standard leads of a group. A device sends the same definitions with every recording: known ones are kept."""
    fingerprint = getattr(group, "fingerprint", None)
    key = fingerprint("ChannelDefinitionSequence") if fingerprint is not None else None
    known = _KNOWN_DEFINITIONS.get(key)
    if known is not None:
        return known
    found = (standard_lead(channel_name(item)) for item in sequence(group, "ChannelDefinitionSequence"))
    leads = frozenset(lead for lead in found if isinstance(lead, str))
    if key is not None:
        if len(_KNOWN_DEFINITIONS) >= MOST_DEFINITIONS:
            _KNOWN_DEFINITIONS.clear()
        _KNOWN_DEFINITIONS[key] = leads
    return leads


MOST_DEFINITIONS = 64
_KNOWN_DEFINITIONS: dict[Hashable, frozenset[str]] = {}


def can_complete(leads: Iterable[str]) -> bool:
    """Whether these leads are the twelve, or give them: V1 to V6 and two independent limb leads."""
    have = set(leads)
    return have.issuperset(_CHEST) and len(have & set(_TWELVE[:6])) >= 2


def standard_lead(name: ChannelName) -> str | NotALead:
    """The lead that a channel's name means.

    The code decides where it is one of the known schemes; meaning and label are asked only where it says
    nothing, so that a wrong free text never overrules a code.
    """
    if name.scheme.upper() in _SCHEMES and (match := _CODE.match(name.code)):
        found = int(match.group(1))
        if found in _NOT_AUGMENTED:
            return NotALead.NOT_AUGMENTED
        return _NUMBERED.get(found) or _DERIVED.get(found) or NotALead.OTHER
    for text in (name.meaning, name.label):
        plain = " ".join(unicodedata.normalize("NFKC", text).replace("_", " ").split()).upper()
        if match := _NAME.match(plain):
            return _BY_UPPER[match.group(1)]
        if _PLAIN_VR.match(plain):
            return NotALead.NOT_AUGMENTED
    return NotALead.OTHER


def channel_name(channel: Elements) -> ChannelName:
    """What a Channel Definition item says of its source."""
    sources = sequence(channel, "ChannelSourceSequence")
    source: Any = sources[0] if sources else None
    return ChannelName(
        code=text(source, "CodeValue") if source is not None else "",
        scheme=text(source, "CodingSchemeDesignator") if source is not None else "",
        meaning=text(source, "CodeMeaning") if source is not None else "",
        label=text(channel, "ChannelLabel"),
    )


def is_averaged(group: Elements) -> bool:
    """Whether a group holds computed beats and not the recording (PS3.3 C.10.9, Waveform Originality)."""
    if text(group, "WaveformOriginality").upper() == "DERIVED":
        return True
    return bool(_AVERAGED.search(text(group, "MultiplexGroupLabel")))


def sequence(dataset: E, keyword: str) -> list[E]:
    """The items of a sequence; none where it is absent, empty or not a sequence."""
    value = dataset.get(keyword)
    if value is None or not hasattr(value, "__iter__") or isinstance(value, str | bytes):
        return []
    return [item for item in value if hasattr(item, "get")]


def text(dataset: Elements, keyword: str) -> str:
    """A value as text without its padding, "" where it is absent or empty."""
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip(" \0")


def number(dataset: Elements, keyword: str) -> float | None:
    """A value as a number; None where it is absent or empty.

    Raises
    ------
    ValueError
        If something other than one number stands there.
    """
    value = dataset.get(keyword)
    if value is None or value in ("", b""):
        return None
    try:
        return float(value)
    except TypeError as error:
        raise ValueError(f"{keyword} is not one number") from error
