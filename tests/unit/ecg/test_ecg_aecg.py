"""HL7 aECG: every lead in millivolts from its own sequence, or a refusal with the right reason; hostile XML too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from ecg_ingest import LEADS, EcgRefused, EcgSource, RefusalReason, RenderStyle, read
from tests.unit.ecg.ecg_builders import Signals

STYLE = RenderStyle()


@dataclass(kw_only=True)
class Sequences:
    """One sequence set as an exporter writes it; `signals` in mV."""

    signals: Signals
    increment: str = "0.002"
    increment_unit: str = "s"
    head: str = '<head value="20021122091000.000"/>'
    time: str = "TIME_ABSOLUTE"
    unit: str = "uV"
    scale: float = 2.5
    origin: str = '<origin value="0" unit="uV"/>'
    codes: Mapping[str, str] = field(default_factory=dict)


def aecg(*sets: Sequences, series: str = "RHYTHM", prolog: str = '<?xml version="1.0" encoding="utf-8"?>') -> bytes:
    body = "".join(f"<component>{_sequence_set(one)}</component>" for one in sets)
    return (
        f'{prolog}<AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f'<component><series><code code="{series}"/>{body}</series></component></AnnotatedECG>'
    ).encode()


def _sequence_set(one: Sequences) -> str:
    factor = {"uV": 1e-3, "mV": 1.0, "mmHg": 1.0}[one.unit] * one.scale
    clock = (
        f'<component><sequence><code code="{one.time}"/><value xsi:type="GLIST_TS">{one.head}'
        f'<increment value="{one.increment}" unit="{one.increment_unit}"/></value></sequence></component>'
    )
    leads = "".join(
        f'<component><sequence><code code="{one.codes.get(lead, f"MDC_ECG_LEAD_{lead.upper()}")}"/>'
        f'<value xsi:type="SLIST_PQ">{one.origin}<scale value="{one.scale}" unit="{one.unit}"/>'
        f"<digits>{' '.join(str(round(v / factor)) for v in values)}</digits></value></sequence></component>"
        for lead, values in one.signals.items()
    )
    return f"<sequenceSet>{clock}{leads}</sequenceSet>"


def refusal(data: bytes) -> EcgRefused:
    with pytest.raises(EcgRefused) as refused:
        read(data, style=STYLE)
    assert refused.value.detail
    return refused.value


def test_every_lead_comes_from_its_own_sequence_to_the_last_digit(heart: Signals) -> None:
    images = read(aecg(Sequences(signals=heart, scale=1.25)), style=STYLE)
    assert (images.source, images.sampling_hz, images.seconds_recorded) == (EcgSource.WAVEFORM, 500.0, 10.0)
    for lead, row in zip(LEADS, images.signals_mv, strict=True):
        assert np.abs(row - heart[lead]).max() <= 1.25e-3, lead


def test_origin_scale_and_unit_count(heart: Signals) -> None:
    origin = '<origin value="500" unit="uV"/>'
    images = read(aecg(Sequences(signals=heart, unit="mV", scale=0.001, origin=origin)), style=STYLE)
    assert np.abs(images.signals_mv[1] - (heart["II"] + 0.5)).max() < 1e-3


@pytest.mark.parametrize(("increment", "unit", "hz"), [("0.004", "s", 250.0), ("1", "ms", 1000.0), ("2000", "us", 500)])
def test_the_time_sequence_gives_the_sampling_frequency(heart: Signals, increment: str, unit: str, hz: float) -> None:
    images = read(aecg(Sequences(signals=heart, increment=increment, increment_unit=unit)), style=STYLE)
    assert images.sampling_hz == pytest.approx(hz)


def test_eight_leads_give_the_other_four(heart: Signals) -> None:
    eight = {lead: heart[lead] for lead in ("I", "II", *LEADS[6:])}
    images = read(aecg(Sequences(signals=eight)), style=STYLE)
    assert images.derived_leads == ("III", "aVR", "aVL", "aVF")
    assert np.abs(images.signals_mv[5] - heart["aVF"]).max() < 5e-3


def test_sets_that_follow_one_another_lie_where_their_times_say(heart: Signals) -> None:
    """A 3x4 export: four sets of 2.5 s, each with its own beginning."""
    columns = [
        Sequences(
            signals={lead: heart[lead][k * 1250 : (k + 1) * 1250] for lead in LEADS[3 * k : 3 * k + 3]},
            head=f'<head value="2002112209100{2.5 * k:.3f}"/>',
        )
        for k in range(4)
    ]
    images = read(aecg(*columns), style=STYLE)
    for index, lead in enumerate(LEADS):
        shown = np.flatnonzero(np.isfinite(images.signals_mv[index]))
        assert (shown[0], shown.size) == (1250 * (index // 3), 1250)
        assert np.abs(images.signals_mv[index][shown] - heart[lead][shown]).max() < 5e-3


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_do_no_harm(heart: Signals, encoding: str) -> None:
    text = aecg(Sequences(signals=heart), prolog='<?xml version="1.0"?>').decode()
    assert read(text.encode(encoding), style=STYLE).seconds_recorded == 10.0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unit": "mmHg"}, RefusalReason.BAD_UNITS),
        ({"scale": 2500.0, "unit": "mV"}, RefusalReason.BAD_UNITS),
        ({"increment": "0"}, RefusalReason.BAD_SAMPLING),
        ({"increment": "0.002", "increment_unit": "h"}, RefusalReason.BAD_SAMPLING),
        ({"increment": "5"}, RefusalReason.BAD_SAMPLING),
        ({"time": "OTHER"}, RefusalReason.BAD_SAMPLING),
        ({"codes": {"aVR": "MDC_ECG_LEAD_VR"}}, RefusalReason.LEADS_AMBIGUOUS),
        ({"codes": {"III": "MDC_ECG_LEAD_II"}}, RefusalReason.LEADS_AMBIGUOUS),
        ({"codes": {"V3": "MDC_ECG_LEAD_V7"}}, RefusalReason.LEADS_MISSING),
        ({"codes": {lead: "MDC_RESP" for lead in LEADS}}, RefusalReason.NOT_AN_ECG),
        ({"codes": {"I": "MDC_ECG_LEAD_II", "II": "MDC_ECG_LEAD_I"}}, RefusalReason.LEAD_ALGEBRA),
    ],
)
def test_what_is_not_told_or_contradicts_itself_is_refused(
    heart: Signals, change: dict[str, object], reason: RefusalReason
) -> None:
    one = Sequences(signals=heart)
    for name, value in change.items():
        setattr(one, name, value)
    data = aecg(one)
    if one.scale == 2500.0:  # as if the unit had been uV
        data = aecg(Sequences(signals=heart)).replace(b'value="2.5" unit="uV"', b'value="2500" unit="mV"')
    assert refusal(data).reason is reason


def test_averaged_beats_fragments_and_uneven_leads_are_refused(heart: Signals) -> None:
    assert refusal(aecg(Sequences(signals=heart), series="REPRESENTATIVE_BEAT")).reason is RefusalReason.EMPTY
    short = {lead: values[:600] for lead, values in heart.items()}
    assert refusal(aecg(Sequences(signals=short))).reason is RefusalReason.TOO_SHORT
    uneven = {**heart, "V6": heart["V6"][:4000]}
    assert refusal(aecg(Sequences(signals=uneven))).reason is RefusalReason.DAMAGED


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE AnnotatedECG [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9))
    + "]>"
)
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE AnnotatedECG [<!ENTITY a SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize("prolog", [BOMB, OUTSIDE, '<?xml version="1.0"?><!DOCTYPE AnnotatedECG SYSTEM "x.dtd">'])
def test_document_types_and_entities_are_never_expanded(heart: Signals, prolog: str) -> None:
    assert refusal(aecg(Sequences(signals=heart), prolog=prolog)).reason is RefusalReason.DAMAGED


@pytest.mark.parametrize("cut", [40, 300, 5000, 100_000])
def test_a_file_that_breaks_off_is_refused(heart: Signals, cut: int) -> None:
    data = aecg(Sequences(signals=heart))[:cut]
    assert refusal(data).reason in {RefusalReason.DAMAGED, RefusalReason.UNSUPPORTED_FORM}


@pytest.mark.parametrize(
    "digits", [b"1 2 three", b"nan " * 5000, b"", b"1e400 " * 5000, "\u0661\u0662".encode() * 3], ids=repr
)
def test_samples_that_are_no_numbers_are_refused(heart: Signals, digits: bytes) -> None:
    data = aecg(Sequences(signals=heart))
    start, end = data.index(b"<digits>") + 8, data.index(b"</digits>")
    assert refusal(data[:start] + digits + data[end:]).reason in {RefusalReason.DAMAGED, RefusalReason.EMPTY}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b'<?xml version="1.0"?><RestingECG><PatientDemographics/></RestingECG>', "GE MUSE XML"),
        (b'<?xml version="1.0"?><restingecgdata xmlns="http://www3.medical.philips.com">', "Philips XML"),
        (b"@ MFR Standard 12 leads ECG      ", "MFER"),
        (b"\0" * 16 + b"SCPECG" + b"\0" * 40, "SCP-ECG"),
        (b"<html><body>no ECG</body></html>", "XML file of no known kind"),
    ],
)
def test_other_records_are_refused_by_name(data: bytes, name: str) -> None:
    refused = refusal(data)
    assert refused.reason is RefusalReason.UNSUPPORTED_FORM
    assert name in refused.detail


def test_the_same_ecg_as_aecg_and_as_dicom_gives_the_same_signals(samples: Path) -> None:
    """ECGToolkit's example comes in both forms: 2.5 uV a digit there, 1.25 uV here or better."""
    xml = read((samples / "ecg_signal" / "Example_aECG.xml").read_bytes(), style=STYLE)
    dicom = read((samples / "ecg_dicom" / "ecgtoolkit_example.dcm").read_bytes(), style=STYLE)
    assert xml.signals_mv.shape == dicom.signals_mv.shape
    assert np.abs(xml.signals_mv - dicom.signals_mv).max() < 0.005
    assert np.array_equal(xml.pixels, dicom.pixels) or np.abs(xml.pixels.astype(int) - dicom.pixels).mean() < 0.5
