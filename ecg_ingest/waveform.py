"""A DICOM waveform object to one recording of standard leads in millivolts.

Chooses the groups that are the recording itself, never averaged beats; scales, masks and aligns their
channels; refuses what is ambiguous. Computes no missing lead and draws nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.channels import (
    MINIMUM_STRIP_SECONDS,
    NotALead,
    can_complete,
    channel_name,
    is_averaged,
    number,
    sequence,
    standard_lead,
    text,
)
from ecg_ingest.lead_images import LEADS, EcgRefused, QualityFinding, RefusalReason
from ecg_ingest.recording import Recording
from ecg_ingest.samples import Encoding, decode

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CONTINUOUS_SECONDS = 5.0
"""A group this long is a rhythm recording; shorter ones are parts of a sheet, or beats."""

LOWEST_SAMPLING_HZ, HIGHEST_SAMPLING_HZ = 80.0, 20_000.0
MAX_GROUPS = 32
MAX_OFFSET_SECONDS = 600.0  # between the first and the last group of one ECG
MAX_SKEW_SECONDS = 0.1  # between the channels of one group
HIGHEST_MILLIVOLTS = 50.0  # peak to peak; beyond it the declared unit is wrong

MILLIVOLTS = {"UV": 1e-3, "MV": 1.0, "V": 1e3, "NV": 1e-6}
_SAME_LEAD = 0.2  # normalised difference up to which two channels of one name are the same lead


@dataclass(frozen=True, kw_only=True)
class Group:
    """One multiplex group's standard leads, in mV."""

    leads: dict[str, NDArray[np.float64]]
    sampling_hz: float
    samples: int
    offset_seconds: float | None  # from the recording's reference time, None where the file does not say

    @property
    def seconds(self) -> float:
        """How long the group lasts, padding included."""
        return self.samples / self.sampling_hz


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What a group says of itself before its samples are touched."""

    item: Dataset
    sampling_hz: float
    samples: int
    leads: frozenset[str]

    @property
    def seconds(self) -> float:
        return self.samples / self.sampling_hz


def read_waveform(dataset: Dataset, *, big_endian: bool) -> Recording:
    """The twelve leads (or those of them that exist) of a waveform object.

    One group of at least 5 s that holds or completes the twelve leads is taken alone: the one with most
    leads, then the longest, then the first. Otherwise all usable groups are laid on the time axis that
    their MultiplexGroupTimeOffset gives (sequential 3 x 4 with a rhythm group, limb and chest groups).

    Parameters
    ----------
    dataset : pydicom.Dataset
        A waveform object with its samples.
    big_endian : bool
        Whether the file's transfer syntax is Explicit VR Big Endian.

    Raises
    ------
    EcgRefused
        With the reason; see the functions below.
    """
    groups = sequence(dataset, "WaveformSequence")
    if not groups:
        raise EcgRefused(RefusalReason.EMPTY, "the waveform object holds no multiplex group", "send it again")
    if len(groups) > MAX_GROUPS:
        raise EcgRefused(RefusalReason.TOO_LARGE, f"{len(groups)} multiplex groups; at most {MAX_GROUPS} are read")
    headers = _usable_headers(groups)
    alone = [header for header in headers if header.seconds >= CONTINUOUS_SECONDS and can_complete(header.leads)]
    if alone:
        best = max(alone, key=lambda header: (len(header.leads), header.seconds))
        return lay_out([_decode_group(best, big_endian)])
    return lay_out([_decode_group(header, big_endian) for header in headers])


def _usable_headers(groups: list[Dataset]) -> list[_Header]:
    """The groups that are part of the recording and carry standard leads."""
    usable: list[_Header] = []
    averaged = short = 0
    for item in groups:
        if is_averaged(item):
            averaged += 1
            continue
        definitions = sequence(item, "ChannelDefinitionSequence")
        meant = [standard_lead(channel_name(definition)) for definition in definitions]
        leads = frozenset(lead for lead in meant if isinstance(lead, str))
        if definitions and not leads:
            continue
        sampling_hz, samples = _sampling(item)
        if samples / sampling_hz < MINIMUM_STRIP_SECONDS:
            short += 1
            continue
        if not definitions:
            raise EcgRefused(
                RefusalReason.LEADS_MISSING,
                "a multiplex group does not say which channel is which lead",
                "the recorder must write the Channel Definition Sequence",
            )
        if NotALead.NOT_AUGMENTED in meant and not leads.issuperset({"aVR", "aVL", "aVF"}):
            raise EcgRefused(
                RefusalReason.LEADS_AMBIGUOUS,
                "limb leads are VR, VL or VF without augmentation",
                "have the recorder send aVR, aVL and aVF",
            )
        usable.append(_Header(item=item, sampling_hz=sampling_hz, samples=samples, leads=leads))
    if usable:
        return usable
    if short:
        raise EcgRefused(
            RefusalReason.TOO_SHORT,
            f"no multiplex group lasts {MINIMUM_STRIP_SECONDS} s",
            "a single beat is not enough; send the whole recording",
        )
    if averaged:
        raise EcgRefused(
            RefusalReason.TOO_SHORT,
            "the object holds averaged beats only",
            "send the rhythm recording (Waveform Originality ORIGINAL)",
        )
    raise EcgRefused(
        RefusalReason.NOT_AN_ECG,
        "no channel is one of the twelve standard leads",
        "other waveforms (pressure, respiration, three-lead monitoring) are not used",
    )


def _sampling(item: Dataset) -> tuple[float, int]:
    """Sampling frequency (Hz) and samples per channel, within what an ECG can have."""
    try:
        rate, samples = number(item, "SamplingFrequency"), number(item, "NumberOfWaveformSamples")
    except ValueError as error:
        raise EcgRefused(
            RefusalReason.BAD_SAMPLING,
            "the sampling frequency is not a number",
            "correct the recorder's export",
        ) from error
    if rate is None or not math.isfinite(rate) or not LOWEST_SAMPLING_HZ <= rate <= HIGHEST_SAMPLING_HZ:
        raise EcgRefused(
            RefusalReason.BAD_SAMPLING,
            "the sampling frequency is " + ("absent" if rate is None else f"{rate:g} Hz"),
            f"between {LOWEST_SAMPLING_HZ:g} and {HIGHEST_SAMPLING_HZ:g} Hz is expected",
        )
    if samples is None or not math.isfinite(samples) or samples < 1:
        raise EcgRefused(RefusalReason.EMPTY, "a multiplex group has no samples", "send the object again")
    return rate, int(samples)


def _decode_group(header: _Header, big_endian: bool) -> Group:
    """Scale a group's channels to mV and keep the standard leads."""
    item = header.item
    definitions = sequence(item, "ChannelDefinitionSequence")
    channels = number(item, "NumberOfWaveformChannels")
    if channels is None or int(channels) != len(definitions):
        raise EcgRefused(
            RefusalReason.DAMAGED,
            f"{0 if channels is None else int(channels)} channels are counted and {len(definitions)} defined",
            "the recorder's export is wrong: no channel can be told from another",
        )
    data = item.get("WaveformData")
    if not isinstance(data, bytes) or not data:
        raise EcgRefused(RefusalReason.EMPTY, "a multiplex group holds no waveform data", "send the object again")
    raw = decode(
        data,
        Encoding(
            channels=len(definitions),
            samples=header.samples,
            bits_allocated=int(number(item, "WaveformBitsAllocated") or 0),
            interpretation=text(item, "WaveformSampleInterpretation").upper(),
            big_endian=big_endian,
            words=item["WaveformData"].VR != "OB",
            padding=_padding_value(item),
        ),
    )
    leads: dict[str, NDArray[np.float64]] = {}
    for definition, samples in zip(definitions, raw, strict=True):
        lead = standard_lead(channel_name(definition))
        if not isinstance(lead, str):
            continue
        values = _shifted(_to_millivolts(samples, definition, lead), _skew(definition, header.sampling_hz))
        if lead in leads and not np.array_equal(leads[lead], values, equal_nan=True):
            raise EcgRefused(
                RefusalReason.LEADS_AMBIGUOUS,
                f"two different channels are both called lead {lead}",
                "correct the lead codes at the recorder",
            )
        leads[lead] = values
    offset = number(item, "MultiplexGroupTimeOffset")  # milliseconds
    return Group(
        leads=leads,
        sampling_hz=header.sampling_hz,
        samples=header.samples,
        offset_seconds=None if offset is None or not math.isfinite(offset) else offset / 1000.0,
    )


def _padding_value(item: Dataset) -> bytes | None:
    """WaveformPaddingValue as bytes in the file's byte order (pydicom leaves OB and OW as bytes)."""
    value = item.get("WaveformPaddingValue")
    return value if isinstance(value, bytes) and value else None


def _to_millivolts(raw: NDArray[np.float64], definition: Dataset, lead: str) -> NDArray[np.float64]:
    """Raw * sensitivity * correction + baseline (PS3.3 C.10.9.1.4), in mV.

    An empty or absent correction factor is 1 and an absent baseline 0; without sensitivity or unit there
    is no scale.
    """
    try:
        sensitivity = number(definition, "ChannelSensitivity")
        correction = number(definition, "ChannelSensitivityCorrectionFactor")
        baseline = number(definition, "ChannelBaseline")
    except ValueError as error:
        raise EcgRefused(
            RefusalReason.BAD_UNITS,
            f"the sensitivity of lead {lead} is not a number",
            "correct the recorder's export",
        ) from error
    units = sequence(definition, "ChannelSensitivityUnitsSequence")
    unit = text(units[0], "CodeValue").replace("µ", "u").replace("μ", "u").upper() if units else ""
    if sensitivity is None or unit not in MILLIVOLTS:
        raise EcgRefused(
            RefusalReason.BAD_UNITS,
            f"lead {lead} is in {unit[:16]!r}, not in volts"
            if sensitivity is not None and unit
            else f"lead {lead} has no channel sensitivity or unit",
            "the recorder must write Channel Sensitivity in uV or mV",
        )
    factor = sensitivity * (1.0 if correction is None else correction)
    offset = 0.0 if baseline is None else baseline
    if not (math.isfinite(factor) and math.isfinite(offset)) or factor == 0.0:
        raise EcgRefused(
            RefusalReason.BAD_UNITS,
            f"the sensitivity of lead {lead} is zero or not finite",
            "correct the export",
        )
    values: NDArray[np.float64] = (raw * factor + offset) * MILLIVOLTS[unit]
    present = values[np.isfinite(values)]
    if present.size and np.ptp(present) > HIGHEST_MILLIVOLTS:
        raise EcgRefused(
            RefusalReason.BAD_UNITS,
            f"lead {lead} spans {np.ptp(present):.0f} mV",
            f"no ECG spans {HIGHEST_MILLIVOLTS:g} mV: sensitivity or unit is wrong at the recorder",
        )
    return values


def _skew(definition: Dataset, sampling_hz: float) -> float:
    """How many samples later than the group's start this channel begins (PS3.3 C.10.9.1.4.3)."""
    try:
        in_samples = number(definition, "ChannelSampleSkew")
        in_seconds = number(definition, "ChannelTimeSkew")
    except ValueError as error:
        raise EcgRefused(
            RefusalReason.BAD_SAMPLING, "a channel's skew is not a number", "correct the recorder's export"
        ) from error
    skew = in_samples if in_samples is not None else (in_seconds or 0.0) * sampling_hz
    if not math.isfinite(skew) or abs(skew) > MAX_SKEW_SECONDS * sampling_hz:
        raise EcgRefused(
            RefusalReason.BAD_SAMPLING,
            f"a channel starts {skew:g} samples apart from its group",
            f"up to {MAX_SKEW_SECONDS:g} s between channels is believed",
        )
    return skew


def _shifted(values: NDArray[np.float64], skew: float) -> NDArray[np.float64]:
    """The channel on its group's sample times; less than half a sample is left alone."""
    if abs(skew) < 0.5:
        return values
    index = np.arange(values.size, dtype=np.float64)
    return np.interp(index - skew, index, values, left=np.nan, right=np.nan)


def lay_out(groups: list[Group]) -> Recording:
    """All groups on one time axis at the highest sampling frequency among them."""
    rate = max(group.sampling_hz for group in groups)
    known = [group.offset_seconds or 0.0 for group in groups]
    # Short groups that all claim the same instant are columns of a sheet whose offsets nobody filled in.
    filled_in = len(set(known)) > 1 or all(group.seconds >= CONTINUOUS_SECONDS for group in groups)
    timed = len(groups) == 1 or (filled_in and all(group.offset_seconds is not None for group in groups))
    first = min(known) if timed else 0.0
    starts = [offset - first if timed else 0.0 for offset in known]
    if max(starts) > MAX_OFFSET_SECONDS:
        raise EcgRefused(
            RefusalReason.BAD_SAMPLING,
            f"the groups lie {max(starts):.0f} s apart",
            "they are not parts of one 12-lead ECG",
        )
    length = max(math.ceil((start + group.seconds) * rate) for start, group in zip(starts, groups, strict=True))
    signals = np.full((len(LEADS), length), np.nan)
    clocks = list(range(len(LEADS)))
    for order, index in enumerate(sorted(range(len(groups)), key=lambda index: -groups[index].seconds)):
        for lead, values in groups[index].leads.items():
            row = LEADS.index(lead)
            placed = _placed(values, groups[index].sampling_hz, starts[index], rate, length)
            if np.isfinite(signals[row]).any():
                _confirm_same(lead, signals[row], placed, comparable=timed)
                continue
            signals[row] = placed
            clocks[row] = 0 if timed else order
    findings: tuple[QualityFinding, ...] = ()
    if not timed and len(groups) > 1:
        findings = (
            QualityFinding(code="times_unknown", lead="", detail="the groups do not say how they follow one another"),
        )
    return Recording(signals_mv=signals, sampling_hz=rate, clocks=tuple(clocks), derived_leads=(), findings=findings)


def _placed(
    values: NDArray[np.float64], sampling_hz: float, start_seconds: float, rate: float, length: int
) -> NDArray[np.float64]:
    """A channel on the common time axis, NaN outside it."""
    if sampling_hz == rate:
        row = np.full(length, np.nan)
        first = round(start_seconds * rate)
        row[first : first + values.size] = values[: length - first]
        return row
    times = np.arange(length) / rate
    own = start_seconds + np.arange(values.size) / sampling_hz
    return np.interp(times, own, values, left=np.nan, right=np.nan)


def _confirm_same(lead: str, kept: NDArray[np.float64], other: NDArray[np.float64], *, comparable: bool) -> None:
    """Refuse when a lead occurs in two groups that contradict each other where they overlap."""
    both = np.isfinite(kept) & np.isfinite(other)
    if not comparable or not both.any():
        return
    a, b = kept[both] - np.median(kept[both]), other[both] - np.median(other[both])
    scale = math.sqrt(float(np.mean(a * a)) + float(np.mean(b * b)))
    if scale > 0.0 and math.sqrt(float(np.mean((a - b) ** 2))) / scale > _SAME_LEAD:
        raise EcgRefused(
            RefusalReason.LEADS_AMBIGUOUS,
            f"lead {lead} occurs in two groups with different signals",
            "correct the lead codes or the group time offsets at the recorder",
        )
