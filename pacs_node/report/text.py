"""A stored Structured Report as plain text, for terminals and folders. Reads the report, not its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Final

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from pacs_node.report.errors import ReportError

_MEASUREMENTS: Final = "126010"
_TRACKING: Final = "112039"
_PATCH: Final = "PATCH-MPAP"
_COMMENT: Final = "121106"
_WIDTH: Final = 100
_HIDDEN: Final = frozenset({"112040", "121401", "363698007"})
"""Tracking UID, derivation, finding site: for programs, and the same in every report."""
_ALGORITHM: Final = frozenset({"111000", "111001", "111002", "111003"})
_UNITS: Final = {"mm[Hg]": "mmHg", "d": "days"}


def report_text(sr: bytes, *, patient: bool = False) -> str:
    """The report in readable lines.

    Parameters
    ----------
    sr
        The DICOM file as stored.
    patient
        True: also name, ID, birth date, sex and accession number. By default nothing identifies anybody.

    Raises
    ------
    ReportError
        The bytes are no Structured Report.
    """
    try:
        document = dcmread(BytesIO(sr))
    except (InvalidDicomError, EOFError) as error:
        raise ReportError("the bytes are no DICOM file") from error
    if document.get("Modality") != "SR" or "ContentSequence" not in document:
        raise ReportError("the DICOM file is no Structured Report")
    lines = [*_heading(document), *(_patient(document) if patient else ())]
    for container in document.ContentSequence:
        if _code(container) == _MEASUREMENTS:
            lines += _measurements(container)
    lines += _references(document)
    return "\n".join(lines) + "\n"


def _heading(document: Dataset) -> Iterator[str]:
    title = document.ConceptNameCodeSequence[0].CodeMeaning
    yield title.upper()
    yield "=" * len(title)
    offset = document.get("TimezoneOffsetFromUTC", "")
    date, time = str(document.ContentDate), str(document.ContentTime)
    yield _row("made", f"{date[:4]}-{date[4:6]}-{date[6:8]} {time[:2]}:{time[2:4]}:{time[4:6]} {offset}".strip())
    yield _row("series", str(document.get("SeriesDescription", "")))
    yield _row(
        "status",
        f"{document.get('CompletionFlag')}, {document.get('PreliminaryFlag')}, "
        f"{document.get('VerificationFlag')}, for {document.get('ContentQualification')}",
    )
    yield _row("software", f"{document.ManufacturerModelName} {document.SoftwareVersions}")
    yield _row("report UID", str(document.SOPInstanceUID))
    yield _row("study UID", str(document.StudyInstanceUID))


def _patient(document: Dataset) -> Iterator[str]:
    for label, keyword in (
        ("patient", "PatientName"),
        ("patient ID", "PatientID"),
        ("issuer", "IssuerOfPatientID"),
        ("born", "PatientBirthDate"),
        ("sex", "PatientSex"),
        ("accession", "AccessionNumber"),
    ):
        if document.get(keyword):
            yield _row(label, str(document.get(keyword)))


def _measurements(container: Dataset) -> Iterator[str]:
    patches: list[float] = []
    algorithm: list[str] = []
    for group in container.ContentSequence:
        found = [_number(item) for item in group.ContentSequence if _code(item) == _PATCH]
        if found:
            patches += found
            continue
        yield ""
        for item in group.ContentSequence:
            yield from _item(item, indent=0)
            algorithm += [_value(part) for part in item.get("ContentSequence", ()) if _code(part) in _ALGORITHM]
    if patches:
        yield ""
        yield "Estimates of the nine patches of the radiograph, as they lie on it, in mmHg"
        for row in range(0, len(patches), 3):
            yield "".join(f"{mmhg:8.1f}" for mmhg in patches[row : row + 3])
    if algorithm:
        yield ""
        yield "Algorithm"
        yield from (f"  {line}" for line in algorithm)


def _item(item: Dataset, indent: int) -> Iterator[str]:
    """One content item and, deeper, what is below it. References are listed at the end instead."""
    if _code(item) in _HIDDEN | _ALGORITHM or item.ValueType in {
        "IMAGE",
        "WAVEFORM",
        "COMPOSITE",
        "SCOORD",
        "UIDREF",
    }:
        return
    name = item.ConceptNameCodeSequence[0].CodeMeaning
    value = _value(item)
    if _code(item) == _TRACKING:
        yield value.upper() if indent == 0 else _row(name, value, indent)
    elif _code(item) == _COMMENT:
        yield from _paragraph(value, indent)
    else:
        yield _row(name, value, indent, width=44)
    for child in item.get("ContentSequence", ()):
        yield from _item(child, indent + 2)


def _value(item: Dataset) -> str:
    if item.ValueType == "NUM":
        unit = str(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue)
        return f"{_number(item):g} {_UNITS.get(unit, unit)}"
    if item.ValueType == "CODE":
        return str(item.ConceptCodeSequence[0].CodeMeaning)
    return str(item.get("TextValue", ""))


def _number(item: Dataset) -> float:
    return float(item.MeasuredValueSequence[0].NumericValue)


def _references(document: Dataset) -> Iterator[str]:
    yield ""
    yield "Made of"
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in document.get(keyword, ()):
            for series in study.ReferencedSeriesSequence:
                for instance in series.ReferencedSOPSequence:
                    yield f"  {instance.ReferencedSOPClassUID.name}"
                    yield f"    {instance.ReferencedSOPInstanceUID}"
    for study in document.get("PredecessorDocumentsSequence", ()):
        for series in study.ReferencedSeriesSequence:
            for instance in series.ReferencedSOPSequence:
                yield "Replaces the earlier report"
                yield f"    {instance.ReferencedSOPInstanceUID}"


def _code(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def _row(label: str, value: str, indent: int = 0, width: int = 12) -> str:
    return f"{' ' * indent}{label:<{width}} {value}"


def _paragraph(text: str, indent: int) -> Iterator[str]:
    """`text` in lines of at most `_WIDTH` letters."""
    line = " " * indent
    for word in text.split():
        if len(line) + len(word) > _WIDTH and line.strip():
            yield line.rstrip()
            line = " " * indent
        line += f"{word} "
    yield line.rstrip()
