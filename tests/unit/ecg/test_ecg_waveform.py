"""DICOM waveforms: the right groups, leads and millivolts, or a refusal with the right reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ecg_ingest import LEADS, EcgRefused, EcgSource, LeadImages, RefusalReason, RenderStyle, read
from ecg_ingest.channels import can_complete, waveform_leads
from tests.unit.ecg.ecg_builders import Group, Signals, part10, waveform

STYLE = RenderStyle()


def read_groups(*groups: Group, big_endian: bool = False) -> LeadImages:
    return read(part10(waveform(*groups, big_endian=big_endian), big_endian=big_endian), style=STYLE)


def refusal(data: bytes | Dataset) -> EcgRefused:
    with pytest.raises(EcgRefused) as refused:
        read(data if isinstance(data, bytes) else part10(data), style=STYLE)
    assert refused.value.detail
    return refused.value


def only(heart: Signals, *leads: str, start: float = 0.0, end: float = 10.0) -> dict[str, np.ndarray]:
    return {lead: heart[lead][round(start * 500) : round(end * 500)] for lead in leads}


def test_the_real_mortara_recording_is_read_whole(mortara_ecg: Path) -> None:
    images = read(mortara_ecg.read_bytes(), style=STYLE)
    assert images.source is EcgSource.WAVEFORM
    assert images.pixels.shape == (12, 48, 224, 3)
    assert (images.seconds_recorded, images.sampling_hz) == (10.0, 1000.0)
    assert images.derived_leads == ()
    one, two, three = images.signals_mv[:3]
    assert np.abs(one + three - two).max() < 0.01  # the recorder rounds to 1.25 uV
    assert 0.5 < np.ptp(two) < 3.0


def test_a_real_recording_with_a_wrong_padding_value_is_read(samples: Path) -> None:
    images = read((samples / "ecg_dicom" / "ecgtoolkit_example.dcm").read_bytes(), style=STYLE)
    assert images.seconds_recorded == 10.0
    assert np.isfinite(images.signals_mv).all()


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(
    ("interpretation", "sensitivity", "unit", "baseline", "correction"),
    [
        ("SS", 1.25, "uV", 0.0, "1"),
        ("SS", 2.5, "uV", 12.5, "1"),
        ("SS", 0.001, "mV", 0.0, None),
        ("SS", 5.0, "uV", None, ""),
        ("SL", 0.5, "uV", 0.0, "1"),
        ("US", 1.25, "uV", -20000.0, "1"),
        ("UL", 1.25, "uV", -20000.0, "1"),
        ("SB", 40.0, "uV", 0.0, "1"),
        ("UB", 40.0, "uV", -5120.0, "1"),
        ("SS", 1.25e-6, "V", 0.0, "1"),
    ],
)
def test_millivolts_come_back_from_every_encoding(
    heart: Signals,
    big_endian: bool,
    interpretation: str,
    sensitivity: float,
    unit: str,
    baseline: float | None,
    correction: str | None,
) -> None:
    images = read_groups(
        Group(
            signals=heart,
            interpretation=interpretation,
            sensitivity=sensitivity,
            unit=unit,
            baseline=baseline,
            correction=correction,
        ),
        big_endian=big_endian,
    )
    step = sensitivity * {"uV": 1e-3, "mV": 1.0, "V": 1e3}[unit]
    for lead, row in zip(LEADS, images.signals_mv, strict=True):
        assert np.abs(row - heart[lead]).max() <= 0.51 * step + 1e-6


def test_sensitivity_is_multiplied_by_its_correction_factor(heart: Signals) -> None:
    halved = {lead: signal / 2 for lead, signal in heart.items()}
    images = read_groups(Group(signals=halved, correction="2"))
    np.testing.assert_allclose(images.signals_mv[1], heart["II"], atol=2e-3)


@pytest.mark.parametrize(
    "codes",
    [
        {
            lead: (f"5.6.3-9-{n}", "SCPECG", "")
            for lead, n in zip(LEADS, (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8), strict=True)
        },
        {
            lead: (f"2:{n}", "MDC", "")
            for lead, n in zip(LEADS, (31, 32, 111, 112, 113, 114, 33, 34, 35, 36, 37, 38), strict=True)
        },
        {lead: ("", "99LOCAL", f"Lead {lead}") for lead in LEADS},
        {lead: ("X", "99LOCAL", f"{lead} (Einthoven)" if lead == "I" else lead.upper()) for lead in LEADS},
    ],
    ids=["scp-ecg", "derived", "meaning", "meaning-upper-case"],
)
def test_leads_are_known_by_every_way_of_naming_them(heart: Signals, codes: dict[str, tuple[str, str, str]]) -> None:
    images = read_groups(Group(signals=heart, codes=codes))
    for lead, row in zip(LEADS, images.signals_mv, strict=True):
        np.testing.assert_allclose(row, heart[lead], atol=1e-3)


def test_a_channel_label_names_the_lead_where_the_code_does_not(heart: Signals) -> None:
    dataset = waveform(Group(signals=heart, codes={lead: ("", "", "") for lead in LEADS}))
    for lead, channel in zip(LEADS, dataset.WaveformSequence[0].ChannelDefinitionSequence, strict=True):
        channel.ChannelLabel = lead
    assert waveform_leads(dataset) == set(LEADS)
    assert read(part10(dataset), style=STYLE).derived_leads == ()


def test_a_code_overrules_a_wrong_free_text(heart: Signals) -> None:
    images = read_groups(Group(signals=heart, codes={"V1": ("2:3", "MDC", "Lead V6")}))
    np.testing.assert_allclose(images.signals_mv[6], heart["V1"], atol=1e-3)


def test_eight_leads_give_the_other_four_exactly(heart: Signals) -> None:
    images = read_groups(Group(signals=only(heart, "I", "II", *LEADS[6:])))
    assert images.derived_leads == ("III", "aVR", "aVL", "aVF")
    for row, lead in enumerate(LEADS[:6]):
        np.testing.assert_allclose(images.signals_mv[row], heart[lead], atol=2e-3)


def test_seven_leads_are_refused_naming_the_missing(heart: Signals) -> None:
    refused = refusal(waveform(Group(signals=only(heart, "I", "II", *LEADS[7:]))))
    assert refused.reason is RefusalReason.LEADS_MISSING
    assert "V1" in refused.detail
    refused = refusal(waveform(Group(signals=only(heart, "II", *LEADS[6:]))))
    assert refused.reason is RefusalReason.LEADS_MISSING
    assert "aVR" in refused.detail


def test_limb_leads_without_augmentation_are_never_taken_for_augmented(heart: Signals) -> None:
    codes = {"aVR": ("2:88", "MDC", "aVR"), "aVL": ("2:89", "MDC", "aVL"), "aVF": ("2:90", "MDC", "aVF")}
    assert refusal(waveform(Group(signals=heart, codes=codes))).reason is RefusalReason.LEADS_AMBIGUOUS
    one = Group(signals=heart, codes={"aVF": ("", "", "VF")})
    assert refusal(waveform(one)).reason is RefusalReason.LEADS_AMBIGUOUS
    beside = Group(signals=heart | {"VF": heart["aVF"] / 1.5}, codes={"VF": ("2:90", "MDC", "VF")})
    np.testing.assert_allclose(read_groups(beside).signals_mv[5], heart["aVF"], atol=1e-3)


def test_the_median_beat_is_never_the_recording(heart: Signals) -> None:
    beat = Group(signals=only(heart, *LEADS, end=1.2), label="MEDIAN BEAT", originality="DERIVED")
    images = read_groups(beat, Group(signals=heart))
    assert images.seconds_recorded == 10.0
    assert refusal(waveform(beat)).reason is RefusalReason.TOO_SHORT
    unmarked = Group(signals=only(heart, *LEADS, end=6.0), label="MEDIAN BEAT", originality=None)
    assert refusal(waveform(unmarked)).reason is RefusalReason.TOO_SHORT


def test_of_two_whole_groups_the_longer_is_taken_and_not_mixed(heart: Signals) -> None:
    doubled = {lead: 2 * signal[:3000] for lead, signal in heart.items()}
    images = read_groups(Group(signals=doubled), Group(signals=heart))
    assert images.seconds_recorded == 10.0
    np.testing.assert_allclose(images.signals_mv[9], heart["V4"], atol=1e-3)


def sequential(heart: Signals, offsets: tuple[float | None, ...] = (0.0, 2500.0, 5000.0, 7500.0)) -> list[Group]:
    return [
        Group(signals=only(heart, *LEADS[3 * k : 3 * k + 3], start=2.5 * k, end=2.5 * k + 2.5), offset_ms=offsets[k])
        for k in range(4)
    ]


def test_four_sequential_groups_and_a_rhythm_group_keep_their_own_seconds(heart: Signals) -> None:
    images = read_groups(*sequential(heart), Group(signals=only(heart, "II")))
    whole = read_groups(Group(signals=heart))
    # The last columns lean on the sample after the column, which a sheet does not have.
    np.testing.assert_array_equal(images.pixels[:, :, 2:-2], whole.pixels[:, :, 2:-2])
    assert np.isnan(images.signals_mv[0, 1250:]).all()
    assert np.isnan(images.signals_mv[11, :3750]).all()
    assert np.isfinite(images.signals_mv[1]).all()


def test_sequential_groups_without_offsets_are_not_compared_with_one_another(heart: Signals) -> None:
    for offsets in ((None,) * 4, (0.0,) * 4):
        images = read_groups(*sequential(heart, offsets))
        codes = {finding.code for finding in images.quality}
        assert {"times_unknown", "window_moved"} <= codes


def test_limb_and_chest_groups_recorded_at_once_are_joined(heart: Signals) -> None:
    images = read_groups(Group(signals=only(heart, *LEADS[:6])), Group(signals=only(heart, *LEADS[6:])))
    np.testing.assert_array_equal(images.pixels, read_groups(Group(signals=heart)).pixels)


def test_groups_of_different_rates_share_one_time_axis(heart: Signals) -> None:
    slow = {lead: heart[lead][::2] for lead in LEADS[6:]}
    images = read_groups(Group(signals=only(heart, *LEADS[:6])), Group(signals=slow, hz=250.0))
    assert images.sampling_hz == 500.0
    assert np.corrcoef(images.signals_mv[9][:-2], heart["V4"][:-2])[0, 1] > 0.99


def test_a_lead_that_occurs_twice_must_be_the_same(heart: Signals) -> None:
    same = Group(signals=heart, repeat=[("V1", heart["V1"])])
    assert read_groups(same).derived_leads == ()
    other = Group(signals=heart, repeat=[("V1", heart["V2"])])
    assert refusal(waveform(other)).reason is RefusalReason.LEADS_AMBIGUOUS
    groups = [*sequential(heart), Group(signals={"II": heart["V5"]})]
    assert refusal(waveform(*groups)).reason is RefusalReason.LEADS_AMBIGUOUS


def test_padding_moves_the_window_and_says_so(heart: Signals) -> None:
    holed = {lead: signal.copy() for lead, signal in heart.items()}
    for signal in holed.values():
        signal[:400] = np.nan
    images = read_groups(Group(signals=holed, padding=-32768))
    moved = {finding.lead for finding in images.quality if finding.code == "window_moved"}
    assert moved == {"I", "II", "III"}
    assert np.isnan(images.signals_mv[:, :400]).all()
    np.testing.assert_allclose(images.signals_mv[0, 400:], heart["I"][400:], atol=1e-3)


def test_a_skewed_channel_is_put_back_in_time(heart: Signals) -> None:
    late = dict(heart)
    late["V3"] = np.roll(heart["V3"], -3)
    dataset = waveform(Group(signals=late))
    dataset.WaveformSequence[0].ChannelDefinitionSequence[8].ChannelSampleSkew = "3"
    images = read(part10(dataset), style=STYLE)
    np.testing.assert_allclose(images.signals_mv[8, 10:-10], heart["V3"][10:-10], atol=1e-3)


def broken(heart: Signals, what: str) -> Dataset:  # noqa: PLR0912
    dataset = waveform(Group(signals=heart))
    group = dataset.WaveformSequence[0]
    channel = group.ChannelDefinitionSequence[4]
    match what:
        case "rate 0":
            group.SamplingFrequency = "0"
        case "no rate":
            del group.SamplingFrequency
        case "absurd rate":
            group.SamplingFrequency = "1e9"
        case "cut data":
            group.WaveformData = group.WaveformData[:-1000]
        case "no data":
            del group.WaveformData
        case "no samples":
            group.NumberOfWaveformSamples = 0
        case "no groups":
            dataset.WaveformSequence = []
        case "no definitions":
            del group.ChannelDefinitionSequence
        case "11 definitions":
            del group.ChannelDefinitionSequence[11]
        case "no sensitivity":
            del channel.ChannelSensitivity
        case "sensitivity 0":
            channel.ChannelSensitivity = "0"
        case "no unit":
            del channel.ChannelSensitivityUnitsSequence
        case "mmHg":
            channel.ChannelSensitivityUnitsSequence[0].CodeValue = "mm[Hg]"
        case "volts for microvolts":
            channel.ChannelSensitivityUnitsSequence[0].CodeValue = "V"
        case "24 bits":
            group.WaveformBitsAllocated = 24
        case "skewed by a second":
            channel.ChannelTimeSkew = "1"
        case "33 groups":
            dataset.WaveformSequence = [group] * 33
    return dataset


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("rate 0", RefusalReason.BAD_SAMPLING),
        ("no rate", RefusalReason.BAD_SAMPLING),
        ("absurd rate", RefusalReason.BAD_SAMPLING),
        ("skewed by a second", RefusalReason.BAD_SAMPLING),
        ("cut data", RefusalReason.DAMAGED),
        ("11 definitions", RefusalReason.DAMAGED),
        ("24 bits", RefusalReason.DAMAGED),
        ("no data", RefusalReason.EMPTY),
        ("no samples", RefusalReason.EMPTY),
        ("no groups", RefusalReason.EMPTY),
        ("no definitions", RefusalReason.LEADS_MISSING),
        ("no sensitivity", RefusalReason.BAD_UNITS),
        ("sensitivity 0", RefusalReason.BAD_UNITS),
        ("no unit", RefusalReason.BAD_UNITS),
        ("mmHg", RefusalReason.BAD_UNITS),
        ("volts for microvolts", RefusalReason.BAD_UNITS),
        ("33 groups", RefusalReason.TOO_LARGE),
    ],
)
def test_a_faulty_object_is_refused_with_its_reason(heart: Signals, what: str, reason: RefusalReason) -> None:
    assert refusal(broken(heart, what)).reason is reason


def test_two_seconds_are_too_short(heart: Signals) -> None:
    assert refusal(waveform(Group(signals=only(heart, *LEADS, end=2.0)))).reason is RefusalReason.TOO_SHORT


def test_a_disconnected_electrode_is_refused_and_a_low_voltage_ecg_is_not(heart: Signals) -> None:
    flat = dict(heart) | {"V2": np.full(5000, 0.3)}
    refused = refusal(waveform(Group(signals=flat)))
    assert refused.reason is RefusalReason.FLAT_LEAD
    assert "V2" in refused.detail
    fallen_off = dict(heart) | {"V2": np.where(np.arange(5000) < 2500, heart["V2"], 0.0)}
    assert refusal(waveform(Group(signals=fallen_off))).reason is RefusalReason.FLAT_LEAD
    low = {lead: 0.2 * signal for lead, signal in heart.items()}
    assert read_groups(Group(signals=low, sensitivity=0.5)).pixels.shape[0] == 12


def test_a_waveform_without_standard_leads_is_not_an_ecg(heart: Signals) -> None:
    refused = refusal(waveform(Group(signals={"Respiration": heart["I"], "ART": heart["II"]})))
    assert refused.reason is RefusalReason.NOT_AN_ECG


def test_the_header_alone_says_which_leads_there_are(heart: Signals) -> None:
    eight = waveform(
        Group(signals=only(heart, "I", "II", *LEADS[6:])),
        Group(signals=only(heart, *LEADS, end=1.2), label="MEDIAN BEAT", originality="DERIVED"),
    )
    del eight.WaveformSequence[0].WaveformData
    assert waveform_leads(eight) == {"I", "II", *LEADS[6:]}
    assert can_complete(waveform_leads(eight))
    assert not can_complete({"I", *LEADS[6:]})
    assert not can_complete({"I", "II", *LEADS[7:]})
    assert waveform_leads(Dataset()) == frozenset()
    assert waveform_leads(waveform(*sequential(heart))) == set(LEADS)
    eight.WaveformSequence[0].SamplingFrequency = None
    assert waveform_leads(eight) == frozenset()
