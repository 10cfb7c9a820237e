"""An HL7 annotated ECG (aECG, ANSI/HL7 V3 ECG R1) to one recording of standard leads in millivolts.

Reads the rhythm series' sequences and nothing else: no annotation, no averaged beat, nobody's name. XML that
declares a document type or entities is refused before it is expanded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray

from ecg_ingest.channels import MINIMUM_STRIP_SECONDS, ChannelName, NotALead, can_complete, standard_lead
from ecg_ingest.lead_images import EcgRefused, RefusalReason
from ecg_ingest.recording import Recording
from ecg_ingest.samples import MAX_SAMPLES
from ecg_ingest.waveform import (
    CONTINUOUS_SECONDS,
    HIGHEST_MILLIVOLTS,
    HIGHEST_SAMPLING_HZ,
    LOWEST_SAMPLING_HZ,
    MILLIVOLTS,
    Group,
    lay_out,
)

MAX_XML_BYTES = 32 * 1024 * 1024  # ten seconds of twelve leads take half a megabyte
MAX_SEQUENCE_SETS = 32

_LEAD = re.compile(r"MDC_ECG_(LEAD_.+)", re.IGNORECASE)
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_TIMESTAMP = re.compile(r"(\d{14})(\.\d{1,6})?(?:[+-]\d{4})?")
_HINT = "export the ECG again, as DICOM waveform if the recorder can"


def read_aecg(data: bytes) -> Recording:
    """The twelve leads (or those of them that exist) of an aECG file's rhythm.

    One sequence set of at least 5 s that holds or completes the twelve leads is taken alone, else all sets are
    laid on the time axis that their time sequences give: as groups of a DICOM waveform are.

    Raises
    ------
    EcgRefused
        With the reason.
    """
    root = _parsed(data)
    if _name(root) != "AnnotatedECG":
        raise EcgRefused(RefusalReason.UNSUPPORTED_FORM, "the XML file is no HL7 aECG", _HINT)
    sets = list(_rhythm_sets(root))
    if not sets:
        raise EcgRefused(
            RefusalReason.EMPTY, "the aECG holds no rhythm series", "an averaged beat is not enough; export the rhythm"
        )
    if len(sets) > MAX_SEQUENCE_SETS:
        raise EcgRefused(
            RefusalReason.TOO_LARGE, f"{len(sets)} sequence sets; at most {MAX_SEQUENCE_SETS} are read", _HINT
        )
    groups = [group for group in map(_group, sets) if group.leads]
    if not groups:
        raise EcgRefused(RefusalReason.NOT_AN_ECG, "no sequence is one of the twelve standard leads", _HINT)
    long_enough = [group for group in groups if group.seconds >= MINIMUM_STRIP_SECONDS]
    if not long_enough:
        raise EcgRefused(
            RefusalReason.TOO_SHORT, f"no rhythm sequence lasts {MINIMUM_STRIP_SECONDS} s", "export the whole recording"
        )
    alone = [group for group in long_enough if group.seconds >= CONTINUOUS_SECONDS and can_complete(group.leads)]
    if alone:
        return lay_out([max(alone, key=lambda group: (len(group.leads), group.seconds))])
    return lay_out(_on_one_clock(long_enough))


def _parsed(data: bytes) -> Element:
    if len(data) > MAX_XML_BYTES:
        raise EcgRefused(
            RefusalReason.TOO_LARGE, f"{len(data)} bytes of XML; at most {MAX_XML_BYTES} are read", "send a resting ECG"
        )
    try:
        root: Element = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise EcgRefused(
            RefusalReason.DAMAGED, "the XML declares a document type or entities, which no ECG needs", _HINT
        ) from error
    except ParseError as error:
        raise EcgRefused(RefusalReason.DAMAGED, "the XML is not well-formed or breaks off", _HINT) from error
    return root


def _name(element: Element) -> str:
    """The element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _below(element: Element, *path: str) -> list[Element]:
    """The descendants along a path of names, whatever their namespace."""
    found = [element]
    for name in path:
        found = [child for parent in found for child in parent if _name(child) == name]
    return found


def _attribute(element: Element, child: str, attribute: str) -> str:
    found = _below(element, child)
    return found[0].get(attribute, "").strip() if found else ""


def _rhythm_sets(root: Element) -> Iterator[Element]:
    """The sequence sets of series that are the recording itself; derived ones hold averaged beats."""
    for series in _below(root, "component", "series"):
        if _attribute(series, "code", "code").upper() == "RHYTHM":
            yield from _below(series, "component", "sequenceSet")


def _group(sequences: Element) -> Group:
    """One sequence set: its time sequence and its leads in mV."""
    rate = offset = None
    leads: dict[str, NDArray[np.float64]] = {}
    samples = 0
    for sequence in _below(sequences, "component", "sequence"):
        code = _attribute(sequence, "code", "code")
        values = _below(sequence, "value")
        if not values:
            continue
        if code.upper() in {"TIME_ABSOLUTE", "TIME_RELATIVE"}:
            rate, offset = _clock(values[0])
            continue
        found = _LEAD.fullmatch(code)
        if found is None:
            continue
        lead = standard_lead(ChannelName(code="", scheme="", meaning=found.group(1), label=""))
        if lead is NotALead.NOT_AUGMENTED:
            raise EcgRefused(
                RefusalReason.LEADS_AMBIGUOUS,
                "limb leads are VR, VL or VF without augmentation",
                "have the recorder export aVR, aVL and aVF",
            )
        if not isinstance(lead, str):
            continue
        signal = _millivolts(values[0], lead)
        if lead in leads and not np.array_equal(leads[lead], signal):
            raise EcgRefused(
                RefusalReason.LEADS_AMBIGUOUS, f"two different sequences are both called lead {lead}", _HINT
            )
        leads[lead] = signal
        samples += signal.size
        if samples > MAX_SAMPLES:
            raise EcgRefused(RefusalReason.TOO_LARGE, f"more than {MAX_SAMPLES} samples", "send a resting ECG")
    if len({signal.size for signal in leads.values()}) > 1:
        raise EcgRefused(RefusalReason.DAMAGED, "leads recorded together differ in length", _HINT)
    if leads and rate is None:
        raise EcgRefused(RefusalReason.BAD_SAMPLING, "a sequence set has no time sequence", _HINT)
    return Group(
        leads=leads,
        sampling_hz=rate or LOWEST_SAMPLING_HZ,
        samples=max((signal.size for signal in leads.values()), default=0),
        offset_seconds=offset,
    )


def _clock(value: Element) -> tuple[float, float | None]:
    """Samples a second and the first one's instant in seconds (GLIST_TS or GLIST_PQ), None where it is not told."""
    step, unit = _number(_attribute(value, "increment", "value")), _attribute(value, "increment", "unit")
    if step is None or unit not in _SECONDS or step * _SECONDS[unit] <= 0.0:
        raise EcgRefused(RefusalReason.BAD_SAMPLING, "the time between samples is not told in seconds", _HINT)
    rate = 1.0 / (step * _SECONDS[unit])
    if not LOWEST_SAMPLING_HZ <= rate <= HIGHEST_SAMPLING_HZ:
        raise EcgRefused(
            RefusalReason.BAD_SAMPLING,
            f"the sampling frequency is {rate:g} Hz",
            f"between {LOWEST_SAMPLING_HZ:g} and {HIGHEST_SAMPLING_HZ:g} Hz is expected",
        )
    head, head_unit = _attribute(value, "head", "value"), _attribute(value, "head", "unit")
    stamp = _TIMESTAMP.fullmatch(head)
    if stamp is not None:
        # Only differences between sets of one file count: all have the same offset from UTC.
        try:
            whole = datetime.strptime(stamp.group(1), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            return rate, None
        return rate, whole.timestamp() + float(stamp.group(2) or 0.0)
    start = _number(head)
    return rate, start * _SECONDS[head_unit] if start is not None and head_unit in _SECONDS else None


def _millivolts(value: Element, lead: str) -> NDArray[np.float64]:
    """Origin + digits * scale (SLIST_PQ), in mV."""
    scale, unit = _number(_attribute(value, "scale", "value")), _attribute(value, "scale", "unit")
    origin, origin_unit = _number(_attribute(value, "origin", "value") or "0"), _attribute(value, "origin", "unit")
    factor, offset_factor = MILLIVOLTS.get(unit.upper()), MILLIVOLTS.get((origin_unit or unit).upper())
    if not scale or origin is None or factor is None or offset_factor is None:
        raise EcgRefused(
            RefusalReason.BAD_UNITS,
            f"the scale of lead {lead} is not told in volts",
            "the export must name uV or mV",
        )
    digits = _below(value, "digits")
    try:
        raw = np.array((digits[0].text or "").split() if digits else [], dtype=np.float64)
    except ValueError as error:
        raise EcgRefused(RefusalReason.DAMAGED, f"the samples of lead {lead} are not numbers", _HINT) from error
    if raw.size == 0:
        raise EcgRefused(RefusalReason.EMPTY, f"lead {lead} has no samples", _HINT)
    if not np.isfinite(raw).all():
        raise EcgRefused(RefusalReason.DAMAGED, f"samples of lead {lead} are not finite", _HINT)
    signal: NDArray[np.float64] = raw * (scale * factor) + origin * offset_factor
    if np.ptp(signal) > HIGHEST_MILLIVOLTS:
        raise EcgRefused(
            RefusalReason.BAD_UNITS,
            f"lead {lead} spans {np.ptp(signal):.0f} mV",
            f"no ECG spans {HIGHEST_MILLIVOLTS:g} mV: scale or unit is wrong at the recorder",
        )
    return signal


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _on_one_clock(groups: list[Group]) -> list[Group]:
    """Offsets from the first set's, so that instants of this century keep their microseconds."""
    known = [group.offset_seconds for group in groups if group.offset_seconds is not None]
    first = min(known, default=0.0)
    return [
        Group(
            leads=group.leads,
            sampling_hz=group.sampling_hz,
            samples=group.samples,
            offset_seconds=None if group.offset_seconds is None else group.offset_seconds - first,
        )
        for group in groups
    ]
