"""What a header makes of an object. Worst is taking a film that is no PA chest, next refusing one that is."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs_node.flow import sop_classes
from pacs_node.flow.classify import Classification, classify
from pacs_node.flow.sop_classes import (
    AMBULATORY_ECG,
    COMPREHENSIVE_3D_SR,
    DIGITAL_XRAY_FOR_PRESENTATION,
    DIGITAL_XRAY_FOR_PROCESSING,
    ENCAPSULATED_PDF,
    GENERAL_ECG,
    HEMODYNAMIC_WAVEFORM,
    SECONDARY_CAPTURE,
)
from storage.records import Disposition, Kind
from tests.unit.flow.headers import LEADS, code, header, radiograph, waveform

PA_SCT = code("272479007", meaning="postero-anterior")
AP_SCT = code("399348003", meaning="antero-posterior")
BLANK = {"ViewPosition": None}
UNSAID = {"ViewPosition": None, "BodyPartExamined": None}


def reason(verdict: Classification) -> str:
    return verdict.reason.partition(":")[0]


ACCEPTED_RADIOGRAPHS: dict[str, Dataset] = {
    "ViewPosition PA": radiograph(),
    "ViewPosition in lower case with spaces": radiograph(ViewPosition=" pa "),
    "ViewPosition spelt out": radiograph(ViewPosition="POSTEROANTERIOR"),
    "digital radiograph for presentation": radiograph(
        SOPClassUID=DIGITAL_XRAY_FOR_PRESENTATION, Modality="DX", PresentationIntentType="FOR PRESENTATION"
    ),
    "digitised film": radiograph(SOPClassUID=SECONDARY_CAPTURE, Modality="RG"),
    "SNOMED CT view code, no ViewPosition": radiograph(**BLANK, ViewCodeSequence=PA_SCT),
    "SNOMED RT view code R-40888": radiograph(**BLANK, ViewCodeSequence=code("R-40888", "SRT")),
    "SNOMED RT view code R-10214 of older devices": radiograph(**BLANK, ViewCodeSequence=code("R-10214", "SRT")),
    "private view code with a plain meaning": radiograph(**BLANK, ViewCodeSequence=code("7", "99ACME", "PA")),
    "position PA beside the code for frontal": radiograph(ViewCodeSequence=code("399033003", meaning="frontal")),
    "position and code agree": radiograph(ViewCodeSequence=PA_SCT),
    "series description in English": radiograph(**BLANK, SeriesDescription="W Chest PA"),
    "series description with underscores": radiograph(**BLANK, SeriesDescription="CHEST_PA_1"),
    "series description with a slash": radiograph(**BLANK, SeriesDescription="Chest P/A"),
    "German description": radiograph(**BLANK, SeriesDescription="Thorax p.a."),
    "French description": radiograph(**BLANK, SeriesDescription="Thorax de face, postéro-antérieur"),
    "Portuguese description": radiograph(**BLANK, SeriesDescription="TÓRAX PA"),
    "Japanese description, letters without a space": radiograph(**BLANK, SeriesDescription="胸部PA"),
    "Japanese description, full-width letters": radiograph(**BLANK, SeriesDescription="胸部正面ＰＡ"),
    "Japanese description, full-width arrow": radiograph(**BLANK, ProtocolName="胸部正面(Ｐ→Ａ)"),
    "Japanese description, back to front": radiograph(**BLANK, SeriesDescription="胸部 立位 後前方向"),
    "arrow of ASCII signs": radiograph(**BLANK, AcquisitionDeviceProcessingDescription="CHEST,P->A"),
    "performed procedure step": radiograph(**BLANK, PerformedProcedureStepDescription="XR Chest PA erect"),
    "body part THORAX": radiograph(BodyPartExamined="THORAX"),
    "body part with an underscore": radiograph(BodyPartExamined="CHEST_PA"),
    "body part LUNG": radiograph(BodyPartExamined="LUNG"),
    "coded region, SNOMED CT": radiograph(BodyPartExamined=None, AnatomicRegionSequence=code("51185008")),
    "coded region, today's code": radiograph(BodyPartExamined=None, AnatomicRegionSequence=code("816094009")),
    "coded region, SNOMED RT": radiograph(BodyPartExamined=None, AnatomicRegionSequence=code("T-D3000", "SRT")),
    "region of a private code named chest": radiograph(
        BodyPartExamined=None, AnatomicRegionSequence=code("12", "99ACME", "Chest")
    ),
    "chest in the study description only": radiograph(BodyPartExamined=None, StudyDescription="XR CHEST 2 VIEWS"),
    "chest in Japanese only": radiograph(BodyPartExamined=None, SeriesDescription="胸部正面"),
    "one description of a two-view examination": radiograph(SeriesDescription="Chest PA & LAT"),
    "the same in Japanese": radiograph(SeriesDescription="胸部正面・側面", StudyDescription="胸部(正面・側面)"),
    "one protocol for both directions": radiograph(ProtocolName="Chest PA/AP"),
    "ordered with ribs, taken of the chest": radiograph(
        SeriesDescription="Chest PA", StudyDescription="XR RIBS UNILATERAL W PA CHEST"
    ),
    "ordered as PA, image frontal": radiograph(**BLANK, StudyDescription="XR CHEST PA", PatientOrientation=["L", "F"]),
    "frontal orientation": radiograph(PatientOrientation=["L", "F"]),
    "modality left blank": radiograph(Modality=""),
    "one frame said in so many words": radiograph(NumberOfFrames="1"),
}

IGNORED_RADIOGRAPHS: dict[str, tuple[Dataset, str]] = {
    "ViewPosition AP": (radiograph(ViewPosition="AP"), "view_ap"),
    "ViewPosition AP axial": (radiograph(ViewPosition="AP AXIAL"), "view_ap"),
    "ViewPosition LL": (radiograph(ViewPosition="LL"), "view_lateral"),
    "ViewPosition RL": (radiograph(ViewPosition="RL"), "view_lateral"),
    "ViewPosition LATERAL": (radiograph(ViewPosition="LATERAL"), "view_lateral"),
    "ViewPosition decubitus": (radiograph(ViewPosition="RLD"), "view_other"),
    "ViewPosition oblique": (radiograph(ViewPosition="PA OBLIQUE"), "view_other"),
    "ViewPosition frontal: either": (radiograph(ViewPosition="FRONTAL"), "view_other"),
    "no view at all": (radiograph(**BLANK), "view_unknown"),
    "empty ViewPosition": (radiograph(ViewPosition=""), "view_unknown"),
    "frontal in words: either": (radiograph(**BLANK, SeriesDescription="Chest frontal"), "view_unknown"),
    "frontal in Japanese: either": (radiograph(**BLANK, SeriesDescription="胸部 立位 正面"), "view_unknown"),
    "frontal as a code: either": (radiograph(**BLANK, ViewCodeSequence=code("399033003")), "view_unknown"),
    "PA only as a part of words": (radiograph(**BLANK, SeriesDescription="PAEDIATRIC CHEST"), "view_unknown"),
    "both views in one description": (radiograph(**BLANK, SeriesDescription="Chest PA LAT"), "view_unknown"),
    "PA only as ordered": (radiograph(**BLANK, StudyDescription="XR CHEST PA"), "view_unknown"),
    "AP code": (radiograph(**BLANK, ViewCodeSequence=AP_SCT), "view_ap"),
    "AP code, SNOMED RT": (radiograph(**BLANK, ViewCodeSequence=code("R-10206", "SRT")), "view_ap"),
    "left lateral code": (radiograph(**BLANK, ViewCodeSequence=code("399173006")), "view_lateral"),
    "lateral code, SNOMED RT": (radiograph(**BLANK, ViewCodeSequence=code("R-102CD", "SRT")), "view_lateral"),
    "postero-anterior oblique code": (
        radiograph(**BLANK, ViewCodeSequence=code("399059000", meaning="postero-anterior oblique")),
        "view_other",
    ),
    "AP in the description": (radiograph(**BLANK, SeriesDescription="Chest AP erect"), "view_ap"),
    "AP in Japanese": (radiograph(**BLANK, SeriesDescription="胸部Ａ→Ｐ"), "view_ap"),
    "AP, front to back in Japanese": (radiograph(**BLANK, SeriesDescription="胸部 前後方向"), "view_ap"),
    "lateral in the description": (radiograph(**BLANK, SeriesDescription="Chest lateral"), "view_lateral"),
    "lateral in Japanese": (radiograph(**BLANK, SeriesDescription="胸部側面"), "view_lateral"),
    "lateral in French": (radiograph(**BLANK, SeriesDescription="Thorax profil"), "view_lateral"),
    "lateral orientation alone": (radiograph(**BLANK, PatientOrientation=["A", "F"]), "view_lateral"),
    "PA against lateral orientation": (radiograph(PatientOrientation=["P", "F"]), "view_contradiction"),
    "PA against an AP series": (radiograph(SeriesDescription="Chest AP"), "view_contradiction"),
    "PA against a lateral series": (radiograph(SeriesDescription="Chest LAT"), "view_contradiction"),
    "PA against the order of an AP": (radiograph(StudyDescription="XR Chest AP"), "view_contradiction"),
    "PA against the AP code": (radiograph(ViewCodeSequence=AP_SCT), "view_contradiction"),
    "PA beside an unknown code": (radiograph(ViewCodeSequence=code("1", "99X", "axial")), "view_contradiction"),
    "PA said of a bedside film": (radiograph(SeriesDescription="PORTABLE CHEST"), "view_contradiction"),
    "PA said of an ordered bedside film": (radiograph(StudyDescription="胸部ﾎﾟｰﾀﾌﾞﾙ"), "view_contradiction"),
    "PA said of a lying patient": (radiograph(SeriesDescription="Chest PA supine"), "view_contradiction"),
    "PA said of a lying patient in Japanese": (radiograph(SeriesDescription="胸部 仰臥位"), "view_contradiction"),
    "lordotic": (radiograph(SeriesDescription="Chest PA lordotic"), "view_special"),
    "expiration": (radiograph(SeriesDescription="胸部PA 呼気"), "view_special"),
    "dual energy bone picture": (radiograph(SeriesDescription="Chest PA Bone"), "view_special"),
    "bone suppressed": (radiograph(SeriesDescription="PA soft tissue"), "view_special"),
    "tomosynthesis": (radiograph(SeriesDescription="Chest PA Tomosynthesis"), "view_special"),
    "body part HAND": (radiograph(BodyPartExamined="HAND"), "body_part"),
    "body part ABDOMEN": (radiograph(BodyPartExamined="ABDOMEN"), "body_part"),
    "body part TSPINE": (radiograph(BodyPartExamined="TSPINE"), "body_part"),
    "body part RIB": (radiograph(BodyPartExamined="RIB"), "body_part"),
    "chest and abdomen": (radiograph(BodyPartExamined="CHEST_ABDOMEN"), "body_part"),
    "ribs sent with body part chest": (radiograph(SeriesDescription="Ribs PA"), "body_part"),
    "ribs sent with body part chest, Japanese": (radiograph(SeriesDescription="左肋骨 PA"), "body_part"),
    "thoracic spine in Japanese": (radiograph(**UNSAID, SeriesDescription="胸椎 PA"), "body_part"),
    "thoracic spine sent with body part chest": (radiograph(ProtocolName="T-Spine PA"), "body_part"),
    "babygram": (radiograph(SeriesDescription="Babygram chest PA"), "body_part"),
    "coded region is the hand": (
        radiograph(BodyPartExamined=None, AnatomicRegionSequence=code("85562004", meaning="Hand")),
        "body_part",
    ),
    "coded region contradicts the body part": (
        radiograph(AnatomicRegionSequence=code("122495006", meaning="Thoracic spine")),
        "body_part",
    ),
    "no body part anywhere": (radiograph(BodyPartExamined=None), "body_part_unknown"),
    "for processing by class": (
        radiograph(SOPClassUID=DIGITAL_XRAY_FOR_PROCESSING, Modality="DX"),
        "for_processing",
    ),
    "for processing by intent": (
        radiograph(SOPClassUID=DIGITAL_XRAY_FOR_PRESENTATION, PresentationIntentType="FOR PROCESSING"),
        "for_processing",
    ),
    "a CT picture": (radiograph(SOPClassUID=SECONDARY_CAPTURE, Modality="CT"), "modality"),
    "a screenshot": (radiograph(SOPClassUID=SECONDARY_CAPTURE, Modality="OT"), "modality"),
    "a localizer": (radiograph(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
    "a film loop": (radiograph(NumberOfFrames="30"), "multi_frame"),
    "a phantom of quality control": (radiograph(QualityControlImage="YES"), "quality_control"),
}


@pytest.mark.parametrize("dataset", ACCEPTED_RADIOGRAPHS.values(), ids=ACCEPTED_RADIOGRAPHS.keys())
def test_a_header_that_says_pa_chest_is_taken(dataset: Dataset) -> None:
    assert classify(dataset) == Classification(kind=Kind.RADIOGRAPH, disposition=Disposition.ACCEPTED)


@pytest.mark.parametrize(("dataset", "expected"), IGNORED_RADIOGRAPHS.values(), ids=IGNORED_RADIOGRAPHS.keys())
def test_any_other_radiograph_is_ignored_with_the_reason(dataset: Dataset, expected: str) -> None:
    verdict = classify(dataset)
    assert (verdict.kind, verdict.disposition) == (Kind.OTHER, Disposition.IGNORED)
    assert reason(verdict) == expected


EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")

ACCEPTED_ECGS: dict[str, tuple[Dataset, bool]] = {
    "twelve leads": (waveform(), False),
    "eight leads that give the others": (waveform(EIGHT), False),
    "eight leads with aVL and aVF": (waveform(("aVL", "aVF", *EIGHT[2:])), False),
    "general ECG class": (waveform(sop_class=GENERAL_ECG), False),
    "twelve leads in the hemodynamic class": (waveform(sop_class=HEMODYNAMIC_WAVEFORM, Modality="HD"), False),
    "ten seconds in the ambulatory class": (waveform(sop_class=AMBULATORY_ECG), False),
    "a waveform made by us for the demo": (waveform(Manufacturer="pulmolink"), False),
    "PDF of modality ECG": (header(ENCAPSULATED_PDF, Modality="ECG"), False),
    "PDF titled ECG": (header(ENCAPSULATED_PDF, Modality="DOC", DocumentTitle="Resting 12-Lead ECG"), False),
    "PDF titled in Japanese": (header(ENCAPSULATED_PDF, Modality="OT", DocumentTitle="標準１２誘導心電図"), False),
    "PDF titled in German": (header(ENCAPSULATED_PDF, Modality="DOC", SeriesDescription="Ruhe-EKG"), False),
    "PDF titled in French": (header(ENCAPSULATED_PDF, StudyDescription="Électrocardiogramme de repos"), False),
    "PDF titled in Spanish": (header(ENCAPSULATED_PDF, DocumentTitle="Electrocardiograma"), False),
    "PDF with a coded title": (
        header(ENCAPSULATED_PDF, ConceptNameCodeSequence=code("11524-6", "LN", "EKG study")),
        False,
    ),
    "PDF without a title from an ECG cart": (header(ENCAPSULATED_PDF, Modality="OT"), True),
    "picture of modality ECG": (header(SECONDARY_CAPTURE, Modality="ECG"), False),
    "picture titled ECG": (header(SECONDARY_CAPTURE, Modality="OT", SeriesDescription="12_LEAD_ECG"), False),
    "picture from an ECG cart": (header(SECONDARY_CAPTURE, Modality="OT"), True),
}

NOT_ECGS: dict[str, tuple[Dataset, bool, Disposition, str]] = {
    "waveform without ECG leads": (
        waveform((), sop_class=HEMODYNAMIC_WAVEFORM),
        False,
        Disposition.IGNORED,
        "not_an_ecg",
    ),
    "seven leads": (waveform(EIGHT[:-1]), False, Disposition.REFUSED, "leads_missing"),
    "one limb lead": (waveform(("I", *EIGHT[2:])), False, Disposition.REFUSED, "leads_missing"),
    "a beat of one second": (waveform(seconds=1), False, Disposition.IGNORED, "not_an_ecg"),
    "a day of twelve leads": (
        waveform(sop_class=AMBULATORY_ECG, seconds=86400),
        False,
        Disposition.IGNORED,
        "not_resting_ecg",
    ),
    "an exercise test of ten minutes": (waveform(seconds=600), False, Disposition.IGNORED, "not_resting_ecg"),
    "an exercise test by its title": (
        waveform(StudyDescription="Exercise ECG"),
        False,
        Disposition.IGNORED,
        "not_resting_ecg",
    ),
    "a stress ECG in Japanese": (
        header(ENCAPSULATED_PDF, Modality="ECG", DocumentTitle="運動負荷心電図"),
        False,
        Disposition.IGNORED,
        "not_resting_ecg",
    ),
    "a Holter report": (
        header(ENCAPSULATED_PDF, Modality="ECG", DocumentTitle="Holter ECG 24h"),
        False,
        Disposition.IGNORED,
        "not_resting_ecg",
    ),
    "a Holter report from an ECG cart": (
        header(ENCAPSULATED_PDF, DocumentTitle="ホルター心電図"),
        True,
        Disposition.IGNORED,
        "not_resting_ecg",
    ),
    "a letter": (
        header(ENCAPSULATED_PDF, Modality="DOC", DocumentTitle="Discharge letter"),
        False,
        Disposition.IGNORED,
        "document_not_ecg",
    ),
    "an echocardiography report": (
        header(ENCAPSULATED_PDF, Modality="DOC", DocumentTitle="Echocardiogram"),
        False,
        Disposition.IGNORED,
        "document_not_ecg",
    ),
    "a CT picture that mentions the ECG": (
        header(SECONDARY_CAPTURE, Modality="CT", SeriesDescription="ECG gating"),
        False,
        Disposition.IGNORED,
        "modality",
    ),
}


@pytest.mark.parametrize(("dataset", "ecg_documents"), ACCEPTED_ECGS.values(), ids=ACCEPTED_ECGS.keys())
def test_a_resting_ecg_with_the_needed_leads_is_taken(dataset: Dataset, ecg_documents: bool) -> None:
    verdict = classify(dataset, ecg_documents=ecg_documents)
    assert verdict == Classification(kind=Kind.ECG, disposition=Disposition.ACCEPTED)


@pytest.mark.parametrize(
    ("dataset", "ecg_documents", "disposition", "expected"), NOT_ECGS.values(), ids=NOT_ECGS.keys()
)
def test_what_is_no_resting_twelve_lead_ecg_says_why(
    dataset: Dataset, ecg_documents: bool, disposition: Disposition, expected: str
) -> None:
    verdict = classify(dataset, ecg_documents=ecg_documents)
    assert (verdict.disposition, reason(verdict)) == (disposition, expected)


def test_a_refused_ecg_names_the_missing_leads() -> None:
    assert "missing V6" in classify(waveform(EIGHT[:-1])).reason


@pytest.mark.parametrize("sop_class", [SECONDARY_CAPTURE, ENCAPSULATED_PDF, COMPREHENSIVE_3D_SR])
def test_our_own_results_are_never_processed_again(sop_class: str) -> None:
    own = header(sop_class, Manufacturer="pulmolink", Modality="CR", BodyPartExamined="CHEST", ViewPosition="PA")
    verdict = classify(own, ecg_documents=True)
    assert (verdict.kind, verdict.disposition, reason(verdict)) == (Kind.OWN, Disposition.IGNORED, "own_result")


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.2", COMPREHENSIVE_3D_SR, ""])
def test_another_sop_class_is_ignored_by_name(sop_class: str) -> None:
    verdict = classify(header(sop_class))
    assert (verdict.kind, reason(verdict)) == (Kind.OTHER, "sop_class")


def test_no_reason_repeats_free_text_of_the_header() -> None:
    """A technologist may type a name anywhere; reasons go to lists and their codes to logs."""
    typed = "Tanaka^Hanako"
    for dataset in (
        radiograph(ViewPosition=typed),
        radiograph(BodyPartExamined=typed),
        radiograph(SeriesDescription=f"{typed} AP"),
        header(ENCAPSULATED_PDF, DocumentTitle=typed),
        waveform(StudyDescription=f"Holter {typed}"),
    ):
        assert "Tanaka" not in classify(dataset).reason


def test_elements_that_contradict_their_type_say_nothing_and_stop_nothing() -> None:
    odd = radiograph(NumberOfFrames=None)
    odd.add_new("ViewCodeSequence", "LO", "not a sequence")
    odd.add_new("PatientOrientation", "IS", None)
    assert classify(odd).kind is Kind.RADIOGRAPH
    empty = waveform()
    empty.WaveformSequence = Sequence([])
    assert reason(classify(empty)) == "not_an_ecg"


class TestRealFiles:
    def test_a_philips_pa_chest_radiograph(self, philips_radiograph: Path) -> None:
        verdict = classify(dcmread(philips_radiograph, stop_before_pixels=True))
        assert verdict == Classification(kind=Kind.RADIOGRAPH, disposition=Disposition.ACCEPTED)

    def test_a_mortara_ecg(self, mortara_ecg: Path) -> None:
        assert classify(dcmread(mortara_ecg)).disposition is Disposition.ACCEPTED

    @pytest.mark.parametrize(
        ("name", "kind", "code"),
        [
            ("cxr/philips_cr_pa_monochrome1_j2k.dcm", Kind.RADIOGRAPH, ""),
            ("cxr/rsna_cr_pa_jpeg.dcm", Kind.RADIOGRAPH, ""),
            ("cxr/nih_dx_in_sc_implicit.dcm", Kind.OTHER, "body_part_unknown"),
            ("ecg_dicom/mortara_eli250.dcm", Kind.ECG, ""),
            ("ecg_dicom/ecgtoolkit_example.dcm", Kind.ECG, ""),
            ("charset/chrJapMulti.dcm", Kind.RADIOGRAPH, ""),  # Agfa CR
            ("charset/chrKoreanMulti.dcm", Kind.RADIOGRAPH, ""),
            ("charset/chrH31.dcm", Kind.OTHER, "modality"),
        ],
    )
    def test_samples(self, samples: Path, name: str, kind: Kind, code: str) -> None:
        verdict = classify(dcmread(samples / name, stop_before_pixels=True))
        assert (verdict.kind, reason(verdict)) == (kind, code)


def test_every_lead_of_the_builder_is_known() -> None:
    """Guards the tables above: a lead misnamed here would make refusals look right."""
    assert len(LEADS) == 12
    assert classify(waveform(tuple(LEADS))).disposition is Disposition.ACCEPTED
    assert sop_classes.TWELVE_LEAD_ECG in sop_classes.WAVEFORMS
