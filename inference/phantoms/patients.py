"""Make phantom patients as DICOM objects.

In: an index, a seed, a scenario and a visit; out: Part 10 bytes and what a correct system must make of them. The
same arguments give the same bytes. Nothing here resembles a real person; every name begins with "Phantom".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from enum import StrEnum

import numpy as np

from inference.phantoms import dicom
from inference.phantoms.chest import draw_build, draw_chest
from inference.phantoms.ecg import draw_ecg, draw_recording
from inference.phantoms.pressure import (
    Difficulty,
    Shown,
    first_pressure,
    next_pressure,
    shown_by_chest,
    shown_by_ecg,
)
from inference.phantoms.scan import scan_sheet
from inference.phantoms.sheet import Layout, SheetText, draw_sheet
from inference.phantoms.signs import EcgSigns, chest_signs, ecg_signs

JAPAN = timezone(timedelta(hours=9), "+0900")
"""The phantoms' local time. A third of the patients write it into each object, the others leave it out."""


class Scenario(StrEnum):
    """What a phantom patient puts to the test."""

    PAIRED_WAVEFORM = "paired-waveform"  # a PA radiograph and a 12-lead waveform within seven days
    PAIRED_PDF_3X4 = "paired-pdf-3x4"  # the ECG is a page of 3x4 and a rhythm strip
    PAIRED_PDF_6X2 = "paired-pdf-6x2"  # the ECG is a page of 6x2
    PAIRED_SCAN = "paired-scan"  # the ECG is a scanned page of 3x4 and a rhythm strip; not part of the usual mixture
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
class Described:
    """What a cohort's table says of a visit beside the pressure."""

    sex: str
    age: int  # years, at the radiograph
    smoker: bool
    ph_group: int  # clinical group 1 to 5; drawn at random, it shows on nothing
    site: str
    scanner: str
    radiograph_at: datetime
    ecg_at: datetime | None  # of the ECG that must be paired
    catheter_on: date


@dataclass(frozen=True, kw_only=True)
class PhantomPatient:
    """A phantom patient at one visit: its objects, the radiograph first, the truth, and what the objects show of it."""

    scenario: Scenario
    objects: tuple[PhantomObject, ...]
    truth: Truth
    shown: Shown
    described: Described


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
    difficulty: Difficulty = Difficulty.EASY,
    visit: int = 0,
) -> PhantomPatient:
    """Phantom patient `index` of cohort `seed` at one visit.

    Parameters
    ----------
    index, seed
        Together they fix the patient: UIDs, name, pressure, all examinations.
    scenario
        What to make; by default the cohort's own, `scenario_of(index)`.
    mpap_mmhg
        Set the pressure at the first visit instead of drawing it.
    radiograph_at
        When the first radiograph was taken (timezone-aware) instead of a drawn time; ECGs keep their distance.
    difficulty
        How much of the pressure the examinations show.
    visit
        0 is the first; later ones follow four to eight months after one another.
    """
    scenario = scenario_of(index) if scenario is None else scenario
    plan = plan_visit(index, seed, difficulty, visit=visit, mpap_mmhg=mpap_mmhg, radiograph_at=radiograph_at)
    person, at, gap, shown = plan.person, plan.radiograph_at, plan.gap, plan.shown

    objects: list[PhantomObject] = []
    if scenario is not Scenario.ECG_ONLY:
        examination = dicom.Examination(seed=seed, index=index, role="radiograph", at=at, visit=visit)
        objects.append(_radiograph(examination, scenario, person, shown.chest_mmhg, plan.chest_rng))
    radiograph_uid = objects[0].sop_instance_uid if objects else ""
    ecg_uid = ""
    if scenario is not Scenario.RADIOGRAPH_ONLY:
        signs = ecg_signs(shown.ecg_mmhg, plan.ecg_rng)
        make = _Ecg(index=index, seed=seed, visit=visit, signs=signs, rng=plan.ecg_rng)
        form = _FORMS.get(scenario, (None, Layout.THREE_BY_FOUR, Layout.SIX_BY_TWO)[index % 3])
        ecg_person = person
        ecg_at = at + gap
        if scenario is Scenario.ECG_NINE_DAYS_AWAY:
            ecg_at = at + timedelta(days=9 if gap > timedelta(0) else -9)
        if scenario is Scenario.CONTRADICTING_BIRTH_DATE:
            ecg_person = person.with_birth_date(_another_birth_date(person.birth_date))
        objects.append(make("ecg", form, ecg_person, ecg_at, scanned=scenario is Scenario.PAIRED_SCAN))
        if scenario is Scenario.TWO_ECGS:
            # The farther one lies on the other side of the radiograph, still within seven days.
            farther_at = at - plan.far if gap > timedelta(0) else at + plan.far
            objects.append(make("ecg-farther", Layout.THREE_BY_FOUR, person, farther_at))
        if scenario in PAIRING:
            ecg_uid = objects[1].sop_instance_uid
    truth = Truth(
        patient_id=person.patient_id, radiograph_uid=radiograph_uid, ecg_uid=ecg_uid, mpap_mmhg=shown.mpap_mmhg
    )
    described = describe(index, seed, person, at, at + gap if ecg_uid else None)
    return PhantomPatient(scenario=scenario, objects=tuple(objects), truth=truth, shown=shown, described=described)


PAIRING = frozenset(
    {
        Scenario.PAIRED_WAVEFORM,
        Scenario.PAIRED_PDF_3X4,
        Scenario.PAIRED_PDF_6X2,
        Scenario.PAIRED_SCAN,
        Scenario.TWO_ECGS,
    }
)
"""The scenarios in which a radiograph and an ECG must be paired."""

_FORMS: dict[Scenario, Layout | None] = {  # None is a waveform
    Scenario.PAIRED_WAVEFORM: None,
    Scenario.PAIRED_PDF_3X4: Layout.THREE_BY_FOUR,
    Scenario.PAIRED_PDF_6X2: Layout.SIX_BY_TWO,
    Scenario.PAIRED_SCAN: Layout.THREE_BY_FOUR,
    Scenario.TWO_ECGS: None,
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A visit before anything is drawn: who, when, how high the pressure is and what shows of it."""

    person: dicom.Person
    radiograph_at: datetime
    gap: timedelta  # from the radiograph to the ECG that pairs
    far: timedelta  # to one that lies farther
    shown: Shown
    chest_rng: np.random.Generator  # each examination has a stream of its own, so that no scenario changes
    ecg_rng: np.random.Generator  # another examination's picture


def plan_visit(
    index: int,
    seed: int,
    difficulty: Difficulty,
    *,
    visit: int = 0,
    mpap_mmhg: float | None = None,
    radiograph_at: datetime | None = None,
) -> Plan:
    """What `make_patient` draws by. The generators stand where the signs are drawn next."""
    rng = np.random.default_rng([seed, index, 0])
    pressure = first_pressure(difficulty, rng) if mpap_mmhg is None else mpap_mmhg
    sex = str(rng.choice(["F", "M"]))
    at = _radiograph_time(rng) if radiograph_at is None else radiograph_at.astimezone(JAPAN)
    person = _person(index, seed, sex, rng)
    gap = _gap(rng)
    far = timedelta(hours=float(rng.uniform(118.0, 150.0)))
    before, following = None, np.random.default_rng([seed, index, 4])
    for _ in range(visit):
        before, pressure = pressure, next_pressure(difficulty, pressure, following)
        at += timedelta(days=int(following.integers(120, 240)))
        gap = _gap(following)
    chest_rng, ecg_rng = _stream(seed, index, 1, visit), _stream(seed, index, 2, visit)
    shown = Shown(
        mpap_mmhg=pressure,
        chest_mmhg=shown_by_chest(difficulty, pressure, chest_rng),
        ecg_mmhg=shown_by_ecg(difficulty, pressure, before, ecg_rng),
    )
    return Plan(person=person, radiograph_at=at, gap=gap, far=far, shown=shown, chest_rng=chest_rng, ecg_rng=ecg_rng)


def _stream(seed: int, index: int, part: int, visit: int) -> np.random.Generator:
    return np.random.default_rng([seed, index, part, visit] if visit else [seed, index, part])


def describe(
    index: int, seed: int, person: dicom.Person, radiograph_at: datetime, ecg_at: datetime | None
) -> Described:
    """What a table says beside the pressure. Smoking, group and site are drawn and show on nothing."""
    rng = np.random.default_rng([seed, index, 3])
    born = datetime.strptime(person.birth_date, "%Y%m%d").replace(tzinfo=JAPAN)
    birthday_to_come = (radiograph_at.month, radiograph_at.day) < (born.month, born.day)
    smoker, group = bool(rng.random() < 0.25), int(rng.choice([1, 2, 3, 4, 5], p=[0.35, 0.2, 0.15, 0.25, 0.05]))
    return Described(
        sex=person.sex,
        age=radiograph_at.year - born.year - int(birthday_to_come),
        smoker=smoker,
        ph_group=group,
        site="north" if rng.random() < 0.6 else "south",
        scanner="phantom-dx" if index % 2 == 0 else "phantom-cr",
        radiograph_at=radiograph_at,
        ecg_at=ecg_at,
        catheter_on=(radiograph_at + timedelta(days=int(rng.integers(-2, 3)))).date(),
    )


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
    examination: dicom.Examination,
    scenario: Scenario,
    person: dicom.Person,
    shown_mmhg: float,
    rng: np.random.Generator,
) -> PhantomObject:
    signs = chest_signs(shown_mmhg, rng)
    pixels = draw_chest(signs, draw_build(rng, female=person.sex == "F"), rng)
    part10 = dicom.radiograph(
        examination,
        person,
        pixels,
        view="AP" if scenario is Scenario.AP_VIEW else "PA",
        digital=examination.index % 2 == 0,
        inverted=examination.index % 4 in (1, 2),
    )
    return PhantomObject(name=_file_name(examination), sop_instance_uid=examination.uid("instance"), part10=part10)


def _file_name(examination: dicom.Examination) -> str:
    return examination.role + (f"-{examination.visit + 1}" if examination.visit else "") + ".dcm"


class _Ecg:
    """Makes the ECGs of one visit: each is a recording of its own of the same heart."""

    def __init__(self, *, index: int, seed: int, visit: int, signs: EcgSigns, rng: np.random.Generator) -> None:
        self.index, self.seed, self.visit, self.signs, self.rng = index, seed, visit, signs, rng

    def __call__(
        self, role: str, form: Layout | None, person: dicom.Person, at: datetime, *, scanned: bool = False
    ) -> PhantomObject:
        recording = draw_recording(self.rng)
        steps = draw_ecg(self.signs, recording, self.rng)
        examination = dicom.Examination(seed=self.seed, index=self.index, role=role, at=at, visit=self.visit)
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
            page = draw_sheet(steps, form, text)
            if scanned:
                part10 = dicom.scan(examination, person, scan_sheet(page, self.rng))
            else:
                part10 = dicom.encapsulated_pdf(examination, person, page)
        return PhantomObject(name=_file_name(examination), sop_instance_uid=examination.uid("instance"), part10=part10)
