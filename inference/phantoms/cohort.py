"""Write cohorts of phantom patients: DICOM files, the truth, and a table that `pulmolink model train` reads."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, fields, replace
from enum import StrEnum
from pathlib import Path

from inference.phantoms.patients import PhantomPatient, Scenario, Truth, make_patient
from inference.phantoms.pressure import Difficulty

COHORT_COLUMNS = (
    "patient",
    "radiograph",
    "ecg",
    "mpap_mmhg",
    "rhc_date",
    "sex",
    "age",
    "smoker",
    "ph_group",
    "site",
    "scanner",
)


class Forms(StrEnum):
    """In which form a cohort's ECGs come."""

    SITE = "site"  # waveforms and pages, and in each sixteen patients four whose examinations may not pair
    WAVEFORM = "waveform"
    PDF = "pdf"  # pages of 3x4 and 6x2 in turn
    SCAN = "scan"


def write_cohort(
    out: Path,
    *,
    patients: int,
    seed: int,
    difficulty: Difficulty = Difficulty.EASY,
    visits: int = 1,
    forms: Forms = Forms.SITE,
    progress: Callable[[int], None] = lambda _done: None,
) -> list[Truth]:
    """Write a cohort under `out`, a folder a patient, with three tables beside.

    `truth.csv` has a row a radiograph and what must be paired with it; `cohort.csv` the pairs with their pressure as
    a catheter laboratory would list them; `shown.csv` what each examination shows of the pressure, which no reader
    of pictures can know, for the oracle.

    Parameters
    ----------
    out
        Folder to write to; made if absent. Files of the same name are replaced.
    patients, seed, difficulty, visits, forms
        How many, and which. The same arguments give byte-identical files.
    progress
        Called after each patient with the number done.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    made: list[PhantomPatient] = []
    for index in range(patients):
        for visit in range(visits):
            patient = make_patient(index, seed, _scenario(forms, index), difficulty=difficulty, visit=visit)
            folder = out / patient.truth.patient_id
            folder.mkdir(exist_ok=True)
            for item in patient.objects:
                (folder / item.name).write_bytes(item.part10)
            made.append(_without_bytes(patient))
        progress(index + 1)
    _write(out / "truth.csv", [field.name for field in fields(Truth)], (astuple(patient.truth) for patient in made))
    _write(out / "cohort.csv", COHORT_COLUMNS, (_listed(patient) for patient in made if patient.truth.ecg_uid))
    _write(
        out / "shown.csv",
        ("patient", "radiograph_uid", "mpap_mmhg", "chest_mmhg", "ecg_mmhg"),
        (
            (
                patient.truth.patient_id,
                patient.truth.radiograph_uid,
                *(f"{value:.3f}" for value in astuple(patient.shown)),
            )
            for patient in made
        ),
    )
    return [patient.truth for patient in made]


def _scenario(forms: Forms, index: int) -> Scenario | None:
    """None is the usual mixture."""
    pages = (Scenario.PAIRED_PDF_3X4, Scenario.PAIRED_PDF_6X2)
    return {
        Forms.SITE: None,
        Forms.WAVEFORM: Scenario.PAIRED_WAVEFORM,
        Forms.PDF: pages[index % 2],
        Forms.SCAN: Scenario.PAIRED_SCAN,
    }[forms]


def _without_bytes(patient: PhantomPatient) -> PhantomPatient:
    """The same without the pixels, of which a cohort would fill the memory."""
    return replace(patient, objects=tuple(replace(item, part10=b"") for item in patient.objects))


def _listed(patient: PhantomPatient) -> Iterator[object]:
    """A row of `COHORT_COLUMNS`; paths are relative to the cohort's folder."""
    told = patient.described
    yield patient.truth.patient_id
    yield from (f"{patient.truth.patient_id}/{item.name}" for item in patient.objects[:2])
    yield patient.truth.mpap_mmhg
    yield told.catheter_on.isoformat()
    yield from (told.sex, told.age, "yes" if told.smoker else "no", told.ph_group, told.site, told.scanner)


def _write(path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
