"""Make phantom patients as DICOM objects, and write cohorts of them with the truth beside.

In: an index, a seed and a scenario; out: Part 10 bytes and what a correct system must make of them. The same
arguments give the same bytes. Nothing here resembles a real person; every name begins with "Phantom".
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from pathlib import Path

import numpy as np

from inference.phantoms import dicom
from inference.phantoms.chest import draw_build, draw_chest
from inference.phantoms.ecg import draw_ecg, draw_recording
from inference.phantoms.sheet import Layout, SheetText, draw_sheet
from inference.phantoms.signs import EcgSigns, chest_signs, draw_pressure, ecg_signs

JAPAN = timezone(timedelta(hours=9), "+0900")
"""The phantoms' local time. A third of the patients write it into each object, the others leave it out."""


class Scenario(StrEnum):
    """What a phantom patient puts to the test."""

    PAIRED_WAVEFORM = "paired-waveform"  # a PA radiograph and a 12-lead waveform within seven days
    PAIRED_PDF_3X4 = "paired-pdf-3x4"  # the ECG is a page of 3x4 and a rhythm strip
    PAIRED_PDF_6X2 = "paired-pdf-6x2"  # the ECG is a page of 6x2
    TWO_ECGS = "two-ecgs"  # two within seven days; the nearer one counts
    AP_VIEW = "ap-view"  # the radiograph is AP: nothing may pair
    ECG_NINE_DAYS_AWAY = "ecg-nine-days-away"  # nothing may pair
    CONTRADICTING_BIRTH_DATE = "contradicting-birth-date"  # the ECG says another one: held, nothing may pair
    RADIOGRAPH_ONLY = "radiograph-only"  # nothing to pair
    ECG_ONLY = "ecg-only"  # nothing to pair; not part of a cohort, where a row is a radiograph's


_FIRST_EIGHT = (
    Scenario.PAIRED_WAVEFORM,
    Scenario.PAIRED_PDF_3X4,
    Scenario.AP_VIEW,
    Scenario.PAIRED_PDF_6X2,
    Scenario.ECG_NINE_DAYS_AWAY,
    Scenario.TWO_ECGS,
    Scenario.CONTRADICTING_BIRTH_DATE,
    Scenario.PAIRED_WAVEFORM,
)
_SECOND_EIGHT = (
    Scenario.PAIRED_WAVEFORM,
    Scenario.PAIRED_PDF_3X4,
    Scenario.PAIRED_WAVEFORM,
    Scenario.PAIRED_PDF_6X2,
    Scenario.RADIOGRAPH_ONLY,
    Scenario.PAIRED_WAVEFORM,
    Scenario.TWO_ECGS,
    Scenario.PAIRED_PDF_3X4,
)


def scenario_of(index: int) -> Scenario:
    """The scenario of patient `index` in a cohort: a cycle of sixteen of which four may not pair.

    Three of them (AP view, nine days, birth date) stand among the first eight, for small cohorts.
    """
    return (_FIRST_EIGHT + _SECOND_EIGHT)[index % 16]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is true of a phantom patient: one row of truth.csv, whose columns are these fields."""

    patient_id: str
    radiograph_uid: str  # SOP Instance UID; "" for `Scenario.ECG_ONLY`
    ecg_uid: str  # SOP Instance UID of the ECG that must be paired; "" where nothing may pair
    mpap_mmhg: float


@dataclass(frozen=True, kw_only=True)
class PhantomObject:
    """One DICOM object of a phantom patient."""

    name: str  # file name, such as "radiograph.dcm"
    sop_instance_uid: str
    part10: bytes


@dataclass(frozen=True, kw_only=True)
class PhantomPatient:
    """A phantom patient: its objects, the radiograph first, and the truth."""

    scenario: Scenario
    objects: tuple[PhantomObject, ...]
    truth: Truth


@dataclass(frozen=True, kw_only=True)
class _Name:
    given: str
    ideographic: str = ""
    phonetic: str = ""


_NAMES = {
    "F": (
        _Name(given="Hanako", ideographic="花子", phonetic="はなこ"),
        _Name(given="Ada"),
        _Name(given="Sakura", ideographic="桜", phonetic="さくら"),
        _Name(given="Greta"),
        _Name(given="Yumi", ideographic="由美", phonetic="ゆみ"),
        _Name(given="Ines"),
    ),
    "M": (
        _Name(given="Taro", ideographic="太郎", phonetic="たろう"),
        _Name(given="Karl"),
        _Name(given="Kenji", ideographic="健二", phonetic="けんじ"),
        _Name(given="Otto"),
        _Name(given="Makoto", ideographic="誠", phonetic="まこと"),
        _Name(given="Henry"),
    ),
}


def make_patient(
    index: int,
    seed: int,
    scenario: Scenario | None = None,
    *,
    mpap_mmhg: float | None = None,
    radiograph_at: datetime | None = None,
) -> PhantomPatient:
    """Phantom patient `index` of cohort `seed`.

    Parameters
    ----------
    index, seed
        Together they fix the patient: UIDs, name, pressure, both examinations.
    scenario
        What to make; by default the cohort's own, `scenario_of(index)`.
    mpap_mmhg
        Set the pressure instead of drawing it.
    radiograph_at
        When the radiograph was taken (timezone-aware) instead of a drawn time; ECGs keep their distance.
    """
    scenario = scenario_of(index) if scenario is None else scenario
    rng = np.random.default_rng([seed, index, 0])
    pressure = draw_pressure(rng) if mpap_mmhg is None else mpap_mmhg
    sex = str(rng.choice(["F", "M"]))
    at = _radiograph_time(rng) if radiograph_at is None else radiograph_at.astimezone(JAPAN)
    person = _person(index, seed, sex, rng)
    # Each examination has a stream of its own, so that no scenario changes another examination's picture.
    chest_rng, ecg_rng = np.random.default_rng([seed, index, 1]), np.random.default_rng([seed, index, 2])
    gap = _gap(rng)
    far = timedelta(hours=float(rng.uniform(118.0, 150.0)))

    objects: list[PhantomObject] = []
    if scenario is not Scenario.ECG_ONLY:
        objects.append(_radiograph(index, seed, scenario, person, pressure, at, chest_rng))
    radiograph_uid = objects[0].sop_instance_uid if objects else ""
    ecg_uid = ""
    if scenario is not Scenario.RADIOGRAPH_ONLY:
        signs = ecg_signs(pressure, ecg_rng)
        make = _Ecg(index=index, seed=seed, signs=signs, rng=ecg_rng)
        form = _FORMS.get(scenario, (None, Layout.THREE_BY_FOUR, Layout.SIX_BY_TWO)[index % 3])
        ecg_person = person
        ecg_at = at + gap
        if scenario is Scenario.ECG_NINE_DAYS_AWAY:
            ecg_at = at + timedelta(days=9 if gap > timedelta(0) else -9)
        if scenario is Scenario.CONTRADICTING_BIRTH_DATE:
            ecg_person = person.with_birth_date(_another_birth_date(person.birth_date))
        objects.append(make("ecg.dcm", form, ecg_person, ecg_at))
        if scenario is Scenario.TWO_ECGS:
            # The farther one lies on the other side of the radiograph, still within seven days.
            farther_at = at - far if gap > timedelta(0) else at + far
            objects.append(make("ecg-farther.dcm", Layout.THREE_BY_FOUR, person, farther_at))
        if scenario in PAIRING:
            ecg_uid = objects[1].sop_instance_uid
    truth = Truth(patient_id=person.patient_id, radiograph_uid=radiograph_uid, ecg_uid=ecg_uid, mpap_mmhg=pressure)
    return PhantomPatient(scenario=scenario, objects=tuple(objects), truth=truth)


PAIRING = frozenset({Scenario.PAIRED_WAVEFORM, Scenario.PAIRED_PDF_3X4, Scenario.PAIRED_PDF_6X2, Scenario.TWO_ECGS})
"""The scenarios in which a radiograph and an ECG must be paired."""

_FORMS: dict[Scenario, Layout | None] = {  # None is a waveform
    Scenario.PAIRED_WAVEFORM: None,
    Scenario.PAIRED_PDF_3X4: Layout.THREE_BY_FOUR,
    Scenario.PAIRED_PDF_6X2: Layout.SIX_BY_TWO,
    Scenario.TWO_ECGS: None,
}


def write_cohort(
    out: Path, *, patients: int, seed: int, progress: Callable[[int], None] = lambda _done: None
) -> list[Truth]:
    """Write a cohort of DICOM files and `truth.csv` under `out`; a folder a patient.

    Parameters
    ----------
    out
        Folder to write to; made if absent. Files of the same name are replaced.
    patients, seed
        How many, and which. The same pair gives byte-identical files.
    progress
        Called after each patient with the number done.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    truths = []
    for index in range(patients):
        patient = make_patient(index, seed)
        folder = out / patient.truth.patient_id
        folder.mkdir(exist_ok=True)
        for item in patient.objects:
            (folder / item.name).write_bytes(item.part10)
        truths.append(patient.truth)
        progress(index + 1)
    with (out / "truth.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([field.name for field in fields(Truth)])
        rows.writerows(astuple(truth) for truth in truths)
    return truths


def _radiograph_time(rng: np.random.Generator) -> datetime:
    day = datetime(2024, 1, 8, tzinfo=JAPAN) + timedelta(days=int(rng.integers(0, 600)))
    return day + timedelta(seconds=int(rng.integers(8 * 3600, 17 * 3600)))


def _gap(rng: np.random.Generator) -> timedelta:
    """From radiograph to ECG: an hour to four days, either way."""
    hours = float(rng.uniform(1.0, 96.0)) * (1 if rng.random() < 0.5 else -1)
    return timedelta(seconds=round(hours * 3600.0))


def _person(index: int, seed: int, sex: str, rng: np.random.Generator) -> dicom.Person:
    name = _NAMES[sex][index % 6]
    born = datetime(1938, 1, 1, tzinfo=UTC) + timedelta(days=int(rng.integers(0, 60 * 365)))
    groups = [f"Phantom^{name.given}"]
    if name.ideographic:
        groups += [f"幻影^{name.ideographic}", f"げんえい^{name.phonetic}"]
    return dicom.Person(
        name="=".join(groups),
        patient_id=f"PH{seed:04d}-{index:05d}",
        issuer="PULMOLINK-PHANTOMS",
        birth_date=f"{born:%Y%m%d}",
        sex=sex,
        writes_offset=index % 3 == 0,
    )


def _another_birth_date(birth_date: str) -> str:
    """A valid date of another year."""
    return f"{int(birth_date[:4]) + 2:04d}{birth_date[4:6]}15"


def _radiograph(
    index: int,
    seed: int,
    scenario: Scenario,
    person: dicom.Person,
    mpap_mmhg: float,
    at: datetime,
    rng: np.random.Generator,
) -> PhantomObject:
    signs = chest_signs(mpap_mmhg, rng)
    pixels = draw_chest(signs, draw_build(rng, female=person.sex == "F"), rng)
    examination = dicom.Examination(seed=seed, index=index, role="radiograph", at=at)
    part10 = dicom.radiograph(
        examination,
        person,
        pixels,
        view="AP" if scenario is Scenario.AP_VIEW else "PA",
        digital=index % 2 == 0,
        inverted=index % 4 in (1, 2),
    )
    return PhantomObject(name="radiograph.dcm", sop_instance_uid=examination.uid("instance"), part10=part10)


class _Ecg:
    """Makes the ECGs of one patient: each is a recording of its own of the same heart."""

    def __init__(self, *, index: int, seed: int, signs: EcgSigns, rng: np.random.Generator) -> None:
        self.index, self.seed, self.signs, self.rng = index, seed, signs, rng

    def __call__(self, name: str, form: Layout | None, person: dicom.Person, at: datetime) -> PhantomObject:
        recording = draw_recording(self.rng)
        steps = draw_ecg(self.signs, recording, self.rng)
        examination = dicom.Examination(seed=self.seed, index=self.index, role=name.removesuffix(".dcm"), at=at)
        if form is None:
            part10 = dicom.waveform(examination, person, steps)
        else:
            given = person.name.split("=")[0].removeprefix("Phantom^")
            text = SheetText(
                patient_name=f"PHANTOM, {given}",
                patient_id=person.patient_id,
                recorded=f"{at:%Y-%m-%d %H:%M}",
                beats_per_minute=round(recording.beats_per_minute),
            )
            part10 = dicom.encapsulated_pdf(examination, person, draw_sheet(steps, form, text))
        return PhantomObject(name=name, sop_instance_uid=examination.uid("instance"), part10=part10)
