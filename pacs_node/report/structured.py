"""The Structured Report: an examination with its estimate in, a Comprehensive 3D SR out.

The tree is an Imaging Measurement Report (TID 1500): one group with the estimate (TID 1501) and nine groups
with the patches it was averaged from (TID 1410). It states numbers and their sources; it asserts no disease.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    CompositeContentItem,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    GraphicTypeValues,
    ImageContentItem,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurement,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
    WaveformContentItem,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes as dictionary
from pydicom.sr.coding import Code
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DT

from pacs_node.report import codes, identifiers
from pacs_node.report.header import Header, plain_text
from pacs_node.report.image_library import image_library
from pacs_node.report.inputs import RESEARCH_ONLY, SYNTHETIC_DEMO, ReportInputs, clipped_patch
from pacs_node.report.quality import InputQuality, input_qualities
from pacs_node.report.writing import (
    add_equipment_and_times,
    add_patient_and_study,
    part10,
    series_description,
)

SERIES_NUMBER = 9701
UPPER_LIMIT_OF_NORMAL_MMHG = 20  # 2022 ESC/ERS guidelines: pulmonary hypertension is mPAP > 20 mmHg
_WAVEFORM_CLASSES = "1.2.840.10008.5.1.4.1.1.9."
"""Root of the waveform storage SOP classes (PS3.4 B.5)."""
_NOON = "date only, noon taken"


def structured_report(inputs: ReportInputs) -> bytes:
    """The report as a DICOM file, Explicit VR Little Endian.

    The same inputs give the same bytes. The document belongs to the radiograph's study, in a series of its
    own; it is PRELIMINARY and UNVERIFIED until a person says otherwise, and qualified as RESEARCH.
    """
    radiograph, ecg = inputs.radiograph_header, inputs.ecg_header
    tree = _tree(inputs)[0]
    # highdicom 0.28 copies and re-reads the tree it is given, and reads no WAVEFORM item (`KeyError`). It has
    # the bare root here, and the tree follows: it would only have searched it for evidence, given in full.
    root = ContainerContentItem(name=codes.IMAGING_MEASUREMENT_REPORT, template_id="1500")
    root.ContentSequence = ContentSequence()
    document = Comprehensive3DSR(
        evidence=[_evidence(radiograph), _evidence(ecg)],
        content=root,
        series_instance_uid=_uid(inputs, identifiers.SR_SERIES),
        series_number=SERIES_NUMBER,
        sop_instance_uid=_uid(inputs, identifiers.SR_DOCUMENT),
        instance_number=inputs.revision,
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=_predecessors(inputs),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=series_description(inputs, "SR"),
        content_qualification="RESEARCH",
        coding_schemes=[codes.local_scheme()],
        specific_character_set=None,
    )
    document.ContentSequence = tree.ContentSequence
    add_patient_and_study(document, radiograph)
    add_equipment_and_times(document, inputs)
    for equipment in document.ContributingEquipmentSequence:
        equipment.ContributionDateTime = DT(inputs.written_at.strftime("%Y%m%d%H%M%S.%f%z"))
    return part10(document, radiograph)


def _uid(inputs: ReportInputs, role: str) -> UID:
    return identifiers.report_uid(inputs.run_digest, inputs.revision, role)


def _evidence(header: Header) -> Dataset:
    """Just what highdicom reads of evidence. Names never pass through it: it logs those it dislikes."""
    evidence = Dataset()
    evidence.SOPClassUID = header.sop_class_uid
    evidence.SOPInstanceUID = header.sop_instance_uid
    evidence.SeriesInstanceUID = header.series_instance_uid
    evidence.StudyInstanceUID = header.study_instance_uid
    for keyword in ("PatientID", "PatientName", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(evidence, keyword, None)
    for keyword in ("PatientBirthDate", "StudyDate", "StudyTime", "ReferringPhysicianName"):
        setattr(evidence, keyword, None)
    return evidence


def _predecessors(inputs: ReportInputs) -> list[Dataset] | None:
    earlier = inputs.predecessor
    if earlier is None:
        return None
    document = Dataset()
    document.SOPClassUID = earlier.sop_class_uid
    document.SOPInstanceUID = earlier.sop_instance_uid
    document.SeriesInstanceUID = earlier.series_instance_uid
    document.StudyInstanceUID = earlier.study_instance_uid
    return [document]


def _tree(inputs: ReportInputs) -> MeasurementReport:
    report = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(
                observer_type=dictionary.DCM.Device,
                observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
                    uid=identifiers.device_uid(inputs.device.ae_title),
                    name=inputs.device.ae_title,
                    manufacturer_name="pulmolink",
                    model_name=f"pulmolink {plain_text(inputs.device.software_version)}",
                ),
            )
        ),
        procedure_reported=codes.IMAGING_PROCEDURE,
        title=codes.IMAGING_MEASUREMENT_REPORT,
        imaging_measurements=[_estimate_group(inputs), *(_patch_group(inputs, index) for index in range(9))],
    )
    # highdicom's own library fails on a radiograph without spacing or orientation, so ours takes its place:
    # before the measurements, where TID 1500 has it.
    root = report[0].ContentSequence
    root.insert(len(root) - 1, image_library(inputs.radiograph_header))
    return report


def _estimate_group(inputs: ReportInputs) -> MeasurementsAndQualitativeEvaluations:
    prediction, radiograph = inputs.prediction, inputs.radiograph_header
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            identifier="mPAP estimate", uid=_uid(inputs, identifiers.ESTIMATE_TRACKING)
        ),
        measurements=[
            _estimate(inputs),
            _limit(codes.INTERVAL_LOWER, prediction.interval_low_mmhg),
            _limit(codes.INTERVAL_UPPER, prediction.interval_high_mmhg),
            _percent(codes.INTERVAL_LEVEL, prediction.interval_level),
            _percent(codes.PROBABILITY_ABOVE_20, prediction.probability_above_20),
            _percent(codes.PROBABILITY_AT_LEAST_25, prediction.probability_at_least_25),
            Measurement(
                name=codes.DAYS_BETWEEN,
                value=round(inputs.gap_seconds / 86400, 3),
                unit=codes.DAY,
                derivation=codes.CALCULATED,
            ),
        ],
        qualitative_evaluations=[
            _normality(inputs),
            *(_quality(inputs, quality) for quality in input_qualities(inputs)),
        ],
        source_images=[
            SourceImageForMeasurementGroup(
                referenced_sop_class_uid=radiograph.sop_class_uid,
                referenced_sop_instance_uid=radiograph.sop_instance_uid,
            )
        ],
    )
    content = group[0].ContentSequence
    content.append(_reference(inputs.ecg_header, RelationshipTypeValues.CONTAINS))
    for text in _explanations(inputs):
        content.append(_comment(text, RelationshipTypeValues.CONTAINS))
    # Warnings go before the first number, after the two tracking items: nobody shall read it without them.
    for position, text in enumerate(_warnings(inputs), start=2):
        content.insert(position, _comment(text, RelationshipTypeValues.CONTAINS))
    return group


def _estimate(inputs: ReportInputs) -> Measurement:
    """The one value with the code of mean pulmonary artery pressure."""
    prediction, radiograph = inputs.prediction, inputs.radiograph_header
    estimate = Measurement(
        name=codes.MEAN_PULMONARY_ARTERY_PRESSURE,
        value=round(prediction.mpap_mmhg, 1),
        unit=codes.MILLIMETRE_OF_MERCURY,
        derivation=codes.ESTIMATED,
        finding_sites=[FindingSite(anatomic_location=codes.PULMONARY_ARTERY)],
        referenced_images=[
            SourceImageForMeasurement(
                referenced_sop_class_uid=radiograph.sop_class_uid,
                referenced_sop_instance_uid=radiograph.sop_instance_uid,
            )
        ],
        algorithm_id=AlgorithmIdentification(
            name=plain_text(prediction.model.name),
            version=plain_text(prediction.model.version),
            parameters=_parameters(inputs),
            family=codes.ARTIFICIAL_INTELLIGENCE,
        ),
    )
    estimate[0].ContentSequence.append(_reference(inputs.ecg_header, RelationshipTypeValues.INFERRED_FROM))
    return estimate


def _normality(inputs: ReportInputs) -> QualitativeEvaluation:
    """How the estimate lies to the limit of normal: stated only where the whole interval lies on one side.

    The interval is tens of mmHg wide; calling a point estimate within it normal would reassure falsely. And it holds
    for inputs like those it was made for: with an input that does not meet the standard nothing is stated.
    """
    verdict = codes.NORMALITY_UNDETERMINED
    if not all(quality.meets_standard for quality in input_qualities(inputs)):
        pass
    elif inputs.prediction.interval_low_mmhg > UPPER_LIMIT_OF_NORMAL_MMHG:
        verdict = codes.ABNORMALLY_HIGH
    elif inputs.prediction.interval_high_mmhg <= UPPER_LIMIT_OF_NORMAL_MMHG:
        verdict = codes.NORMAL
    normality = QualitativeEvaluation(name=codes.NORMALITY, value=verdict)
    normality[0].ContentSequence = [
        _comment(
            f"the whole prediction interval compared with {UPPER_LIMIT_OF_NORMAL_MMHG} mmHg, the upper limit "
            "of normal (2022 ESC/ERS guidelines); a statement about the number, not a diagnosis",
            RelationshipTypeValues.HAS_PROPERTIES,
        )
    ]
    return normality


def _parameters(inputs: ReportInputs) -> list[str]:
    prediction, model, leads = inputs.prediction, inputs.prediction.model, inputs.leads
    style = leads.style
    parameters = [
        f"model package sha256={model.digest}",
        f"preprocessing sha256={model.preprocessing_digest}",
        f"run sha256={inputs.run_digest}",
        f"architecture={model.architecture}",
        f"kind={model.kind}",
        f"code={prediction.code_version}",
        f"ECG read from {leads.source.value}"
        + (f", page layout {leads.page_layout}" if leads.page_layout else "")
        + f", {leads.seconds_recorded:g} s at {leads.sampling_hz:g} Hz",
        f"lead images: layout {style.layout}, {style.seconds_per_lead:g} s a lead, "
        f"{style.millivolts_full_height:g} mV high, {style.paper_mm_per_second:g} mm/s, "
        f"{style.paper_mm_per_millivolt:g} mm/mV, grid {'on' if style.grid else 'off'}",
    ]
    if leads.derived_leads:
        parameters.append(f"leads computed from others={', '.join(leads.derived_leads)}")
    return [plain_text(parameter) for parameter in parameters]


def _limit(name: Code, mmhg: float) -> Measurement:
    return Measurement(name=name, value=round(mmhg, 1), unit=codes.MILLIMETRE_OF_MERCURY, derivation=codes.CALCULATED)


def _percent(name: Code, share: float) -> Measurement:
    return Measurement(name=name, value=round(share * 100, 1), unit=codes.PERCENT, derivation=codes.CALCULATED)


def _quality(inputs: ReportInputs, quality: InputQuality) -> QualitativeEvaluation:
    """The quality code of one input: which input, by reference; what was found, in words."""
    header = inputs.radiograph_header if quality.subject == "radiograph" else inputs.ecg_header
    evaluation = QualitativeEvaluation(
        name=codes.QUALITY_ASSESSMENT,
        value=codes.QUALITY_MET if quality.meets_standard else codes.QUALITY_NOT_MET,
    )
    evaluation[0].ContentSequence = [
        _comment(plain_text(f"{quality.subject}: {note}"), RelationshipTypeValues.HAS_PROPERTIES)
        for note in quality.notes or ("nothing found",)
    ] + [_reference(header, RelationshipTypeValues.INFERRED_FROM)]
    return evaluation


def _reference(header: Header, relationship: RelationshipTypeValues) -> Any:
    """The object as source of measurement: WAVEFORM, COMPOSITE for a document, IMAGE for a picture."""
    kind: Any = ImageContentItem
    if header.sop_class_uid.startswith(_WAVEFORM_CLASSES):
        kind = WaveformContentItem
    elif not header.rows:
        kind = CompositeContentItem
    return kind(
        name=codes.SOURCE_OF_MEASUREMENT,
        referenced_sop_class_uid=header.sop_class_uid,
        referenced_sop_instance_uid=header.sop_instance_uid,
        relationship_type=relationship,
    )


def _comment(text: str, relationship: RelationshipTypeValues) -> TextContentItem:
    return TextContentItem(name=codes.COMMENT, value=text, relationship_type=relationship)


def _warnings(inputs: ReportInputs) -> list[str]:
    model = inputs.prediction.model
    warnings = [RESEARCH_ONLY, plain_text(f"Model {model.name} {model.version}, sha256 {model.digest}")]
    if inputs.is_synthetic_demo:
        warnings.insert(1, SYNTHETIC_DEMO)
    return warnings


def _explanations(inputs: ReportInputs) -> list[str]:
    return [
        "Radiograph of " + _when(inputs.radiograph_local, inputs.radiograph_date_only),
        "ECG of " + _when(inputs.ecg_local, inputs.ecg_date_only),
        "The estimate is the mean of the nine patches below. The "
        f"{inputs.prediction.interval_level * 100:g} % prediction interval, not the estimate alone, "
        "is the answer",
    ]


def _when(at: datetime, date_only: bool) -> str:
    return f"{at:%Y-%m-%d} ({_NOON})" if date_only else f"{at:%Y-%m-%d %H:%M %z}"


def _patch_group(inputs: ReportInputs, index: int) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """One patch: where it lies on the radiograph, as a closed polyline, and what it gave."""
    radiograph = inputs.radiograph_header
    left, top, right, bottom = clipped_patch(inputs.geometry, index)
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            identifier=f"patch {index + 1} of 9, row {index // 3 + 1} column {index % 3 + 1}",
            uid=_uid(inputs, identifiers.patch_tracking(index)),
        ),
        referenced_region=ImageRegion(
            graphic_type=GraphicTypeValues.POLYLINE,
            graphic_data=np.array(
                [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], dtype=np.float32
            ),
            source_image=SourceImageForRegion(
                referenced_sop_class_uid=radiograph.sop_class_uid,
                referenced_sop_instance_uid=radiograph.sop_instance_uid,
            ),
        ),
        measurements=[
            Measurement(
                name=CodedConcept.from_code(codes.PATCH_ESTIMATE),
                value=round(inputs.prediction.patch_mpap_mmhg[index], 1),
                unit=codes.MILLIMETRE_OF_MERCURY,
                derivation=codes.ESTIMATED,
            )
        ],
    )


def warm_up() -> None:
    """Let highdicom read its attribute tables now (half a second), so that the first patient's report need not wait."""
    uid = str(ComputedRadiographyImageStorage)
    ImageRegion(
        graphic_type=GraphicTypeValues.POINT,
        graphic_data=np.zeros((1, 2), dtype=np.float32),
        source_image=SourceImageForRegion(referenced_sop_class_uid=uid, referenced_sop_instance_uid="2.25.1"),
    )
