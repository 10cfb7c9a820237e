"""A cohort's table: each row is either sound or refused by its number and reason, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from ecg_ingest import RenderStyle
from inference.cohort import CohortRow, Refusal, RowFault, TableRefused, check_dates, read_cohort
from inference.evaluation.table import parse_table
from inference.examinations import Examination, keep_examinations, kept_examinations
from inference.phantoms import Forms, Scenario, make_patient, write_cohort
from inference.radiograph import RadiographPreprocessing
from inference.split import split_as_told, split_by_patient, write_split
from pacs_node.labelled import Folder, Reading, read_examinations
from pacs_node.opening.opener import Opener

HEAD = "patient,radiograph,ecg,mpap_mmhg,rhc_date,sex,age,smoker,split"
SOUND = "A,a.dcm,ae.dcm,31.5,2026-03-01,F,61,yes,train"


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: str, head: str = HEAD) -> Path:
        path = tmp_path / "cohort.csv"
        path.write_text("\n".join((head, *rows)) + "\n", encoding="utf-8")
        return path

    return write


def test_a_sound_row_comes_back_typed(table: Callable[..., Path]) -> None:
    (row,) = read_cohort(table(SOUND)).rows
    assert (row.patient, row.mpap_mmhg, row.rhc_on, row.split) == ("A", 31.5, date(2026, 3, 1), "train")
    assert dict(row.attributes)["smoker"] == "yes"


@pytest.mark.parametrize(("sex", "smoker"), [("f", "former"), ("M", "Never"), ("O", "TRUE"), ("", "")])
def test_words_that_evaluation_understands_may_stand_in_a_cohort(
    table: Callable[..., Path], tmp_path: Path, sex: str, smoker: str
) -> None:
    (row,) = read_cohort(table(f"B,b.dcm,be.dcm,30,2026-03-01,{sex},61,{smoker},train")).rows
    attributes = dict(row.attributes)
    lines = ["examination,patient,mpap_mmhg,predicted_mmhg,sex,smoker"]
    evaluated = parse_table([*lines, f"E,B,30,31,{attributes['sex']},{attributes['smoker']}"]).of()
    assert evaluated.groups["sex"][0] == sex.upper()
    assert (evaluated.groups["smoker"][0] == "") == (smoker == "")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (",b.dcm,be.dcm,30,2026-03-01,F,61,no,train", RowFault.BLANK),
        ("B,b.dcm,,30,2026-03-01,F,61,no,train", RowFault.BLANK),
        ("B,b.dcm,be.dcm,,2026-03-01,F,61,no,train", RowFault.BLANK),
        ("B,b.dcm,be.dcm,nan,2026-03-01,F,61,no,train", RowFault.NOT_A_NUMBER),
        ("B,b.dcm,be.dcm,inf,2026-03-01,F,61,no,train", RowFault.NOT_A_NUMBER),
        ("B,b.dcm,be.dcm,thirty,2026-03-01,F,61,no,train", RowFault.NOT_A_NUMBER),
        ("B,b.dcm,be.dcm,300,2026-03-01,F,61,no,train", RowFault.OUT_OF_RANGE),
        ("B,b.dcm,be.dcm,-3,2026-03-01,F,61,no,train", RowFault.OUT_OF_RANGE),
        ("B,b.dcm,be.dcm,30,01/03/2026,F,61,no,train", RowFault.NOT_A_DATE),
        ("B,b.dcm,be.dcm,30,2026-03-01,woman,61,no,train", RowFault.UNKNOWN_VALUE),
        ("B,b.dcm,be.dcm,30,2026-03-01,F,261,no,train", RowFault.OUT_OF_RANGE),
        ("B,b.dcm,be.dcm,30,2026-03-01,F,61,perhaps,train", RowFault.UNKNOWN_VALUE),
        ("B,b.dcm,be.dcm,30,2026-03-01,F,61,no,dev", RowFault.UNKNOWN_VALUE),
        ("B,b.dcm,be.dcm,30,5,2026-03-01,F,61,no,train", RowFault.CELLS),
        ("B,b.dcm,be.dcm", RowFault.CELLS),
    ],
)
def test_a_bad_row_is_refused_by_its_number_and_the_others_stay(
    table: Callable[..., Path], row: str, fault: RowFault
) -> None:
    checked = read_cohort(table(SOUND, row))
    assert [kept.row for kept in checked.rows] == [1]
    assert [(refusal.row, refusal.fault) for refusal in checked.refused] == [(2, fault)]


def test_a_patient_in_two_splits_loses_all_rows(table: Callable[..., Path]) -> None:
    checked = read_cohort(table(SOUND, "A,a2.dcm,ae2.dcm,30,2026-06-01,F,61,yes,test", "B,b,be,20,2026-03-01,,,,test"))
    assert [row.row for row in checked.rows] == [3]
    assert [(refusal.row, refusal.fault) for refusal in checked.refused] == [
        (1, RowFault.TWO_SPLITS),
        (2, RowFault.TWO_SPLITS),
    ]


def test_a_repeated_row_counts_once_and_a_contradicting_one_not_at_all(table: Callable[..., Path]) -> None:
    checked = read_cohort(table(SOUND, SOUND.replace("a.dcm", "./a.dcm")))
    assert [row.row for row in checked.rows] == [1]
    assert [(refusal.row, refusal.fault, refusal.detail) for refusal in checked.refused] == [
        (2, RowFault.DUPLICATE, "repeats row 1")
    ]
    checked = read_cohort(table(SOUND, SOUND.replace("31.5", "41.5")))
    assert checked.rows == ()
    assert [refusal.fault for refusal in checked.refused] == [RowFault.CONTRADICTION] * 2


def test_one_file_under_two_patients_is_refused_for_both(table: Callable[..., Path]) -> None:
    checked = read_cohort(table(SOUND, "B,a.dcm,be.dcm,30,2026-03-01,F,61,no,train"))
    assert checked.rows == ()
    assert {refusal.fault for refusal in checked.refused} == {RowFault.TWO_PATIENTS}


def test_a_table_that_is_no_cohort_is_refused_as_a_whole(table: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(TableRefused, match="lacks the columns rhc_date"):
        read_cohort(table("A,a,b,30", head="patient,radiograph,ecg,mpap_mmhg"))
    with pytest.raises(TableRefused, match="some rows only"):
        read_cohort(table(SOUND, "B,b,be,20,2026-03-01,,,,"))
    (tmp_path / "noise.parquet").write_bytes(b"PAR1" + bytes(40))
    with pytest.raises(TableRefused, match="not a Parquet file"):
        read_cohort(tmp_path / "noise.parquet")
    (tmp_path / "latin.csv").write_bytes("patient,Größe\n".encode("latin-1"))
    with pytest.raises(TableRefused, match="UTF-8"):
        read_cohort(tmp_path / "latin.csv")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("\ufeffpatient;radiograph;ecg;mpap_mmhg;rhc_date\nA;a;ae;31,5;2026-03-01\n", "semicolons between its cells"),
        ("patient\tradiograph\tecg\tmpap_mmhg\trhc_date\n", "tabs between its cells"),
    ],
)
def test_what_a_spreadsheet_writes_instead_is_told_by_what_to_do(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "cohort.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TableRefused, match=said) as caught:
        read_cohort(path)
    assert caught.value.hint == "save it as CSV in UTF-8, with commas between cells and points in numbers"


def test_a_decimal_comma_is_named_and_an_empty_line_shifts_no_number(table: Callable[..., Path]) -> None:
    checked = read_cohort(table(SOUND, "", 'B,b.dcm,be.dcm,"31,5",2026-03-01,F,61,no,train'))
    (refusal,) = checked.refused
    assert (refusal.row, refusal.detail) == (3, "mpap_mmhg is not a number; write a point, not a comma")


def test_capitals_make_no_other_value(table: Callable[..., Path]) -> None:
    checked = read_cohort(table(SOUND, "B,b.dcm,be.dcm,30,2026-03-01,f,61,Never,Train"))
    assert [(row.split, dict(row.attributes)["sex"]) for row in checked.rows] == [("train", "F")] * 2
    assert dict(checked.rows[1].attributes)["smoker"] == "never"


@pytest.mark.parametrize(
    ("column", "meant"),
    [("ecg_dat", "ecg_date"), ("Smoker", "smoker"), ("ph group", "ph_group"), ("radiograph-date", "radiograph_date")],
)
def test_a_column_that_looks_like_a_slip_of_a_known_one_is_an_error_with_a_hint(
    table: Callable[..., Path], column: str, meant: str
) -> None:
    """Otherwise a whole column, and what it would have refused, is silently not there."""
    head = "patient,radiograph,ecg,mpap_mmhg,rhc_date"
    with pytest.raises(TableRefused, match=f"looks like a slip: '{column}' for {meant}") as caught:
        read_cohort(table("A,a,ae,30,2026-03-01,x", head=f"{head},{column}"))
    assert caught.value.hint == "rename it, or take it out"


def test_columns_that_nothing_reads_are_named(table: Callable[..., Path]) -> None:
    checked = read_cohort(table(SOUND + ",4.1,x", head=HEAD + ",cardiac_output,ages"))
    assert checked.unread == ("cardiac_output", "ages")  # the table has an age: no slip
    assert len(checked.rows) == 1
    assert read_cohort(table(SOUND)).unread == ()


def test_parquet_says_the_same_as_csv(table: Callable[..., Path], tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = {
        "patient": ["A"],
        "radiograph": ["a.dcm"],
        "ecg": ["ae.dcm"],
        "mpap_mmhg": [31.5],
        "rhc_date": [date(2026, 3, 1)],
        "sex": ["F"],
        "age": [61.0],
        "smoker": [True],
        "split": ["train"],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "cohort.parquet")
    assert read_cohort(tmp_path / "cohort.parquet").rows == read_cohort(table(SOUND)).rows


def test_seven_days_from_the_catheterisation_are_near_enough_and_eight_are_not(table: Callable[..., Path]) -> None:
    (row,) = read_cohort(table(SOUND)).rows
    assert check_dates(row, date(2026, 3, 8), date(2026, 2, 22)) is None
    too_far = check_dates(row, date(2026, 3, 1), date(2026, 3, 9))
    assert too_far is not None
    assert (too_far.fault, too_far.detail) == (
        RowFault.TOO_FAR,
        "the ECG is 8 days from the catheterisation, more than 7",
    )
    unknown = check_dates(row, None, date(2026, 3, 1))
    assert unknown is not None
    assert unknown.fault is RowFault.NO_DATE


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients with waveforms, and files that must not be used."""
    out = tmp_path_factory.mktemp("phantoms")
    write_cohort(out, patients=3, seed=6, forms=Forms.WAVEFORM)
    lateral = make_patient(4, 6, Scenario.AP_VIEW)
    (out / "ap.dcm").write_bytes(lateral.objects[0].part10)
    (out / "colour.dcm").write_bytes(make_patient(5, 6, Scenario.PAIRED_SCAN).objects[1].part10)
    return out


def read_rows(opener: Opener, folder: Path, *rows: CohortRow) -> tuple[list[Examination], list[Refusal]]:
    refused: list[Refusal] = []
    reading = Reading(
        radiograph=RadiographPreprocessing(), style=RenderStyle(), opener=opener, zone=ZoneInfo("Asia/Tokyo")
    )
    return [made for _, made in read_examinations(rows, Folder(folder), reading, refused.append)], refused


def test_a_phantom_cohort_is_read_whole(phantoms: Path, opener: Opener) -> None:
    checked = read_cohort(phantoms / "cohort.csv")
    assert checked.refused == ()
    made, refused = read_rows(opener, phantoms, *checked.rows)
    assert refused == []
    assert [one.mpap_mmhg for one in made] == [row.mpap_mmhg for row in checked.rows]
    assert made[0].picture.shape == (512, 512)
    assert made[0].lead_images.shape == (12, 48, 224, 3)
    assert made[0].acquired_at.endswith("+00:00")


def test_each_file_that_cannot_be_used_is_refused_with_its_reason(phantoms: Path, opener: Opener) -> None:
    from dataclasses import replace

    rows = read_cohort(phantoms / "cohort.csv").rows
    first, other = rows[0], rows[1]
    cases = [
        (replace(first, radiograph="none.dcm"), RowFault.MISSING_FILE, "radiograph"),
        (replace(first, ecg="../../etc/hostname"), RowFault.OUTSIDE_FOLDER, "leads out"),
        (replace(first, radiograph="colour.dcm", patient="X"), RowFault.TWO_PATIENTS, "different patients"),
        (replace(first, ecg=other.ecg), RowFault.TWO_PATIENTS, "different patients"),
        (replace(first, radiograph=first.ecg), RowFault.RADIOGRAPH, "no_pixel_data"),
        (replace(first, ecg=first.radiograph), RowFault.ECG, ""),
        (replace(first, rhc_on=date(2020, 1, 1)), RowFault.TOO_FAR, "days from the catheterisation"),
        (replace(first, radiograph_on=date(2020, 1, 1)), RowFault.CONTRADICTION, "another date"),
    ]
    for row, fault, said in cases:
        made, refused = read_rows(opener, phantoms, row)
        assert made == []
        assert [refusal.fault for refusal in refused] == [fault]
        assert said in refused[0].detail
        assert first.patient not in refused[0].detail


def test_pictures_in_colour_and_other_views_are_refused(phantoms: Path, opener: Opener) -> None:
    from dataclasses import replace

    first = read_cohort(phantoms / "cohort.csv").rows[0]
    scan = make_patient(5, 6, Scenario.PAIRED_WAVEFORM)
    (phantoms / "ecg5.dcm").write_bytes(scan.objects[1].part10)
    _, refused = read_rows(opener, phantoms, replace(first, patient="X", radiograph="colour.dcm", ecg="ecg5.dcm"))
    assert refused[0].fault is RowFault.RADIOGRAPH
    assert "not_monochrome" in refused[0].detail
    (phantoms / "ecg4.dcm").write_bytes(make_patient(4, 6, Scenario.PAIRED_WAVEFORM).objects[1].part10)
    _, refused = read_rows(opener, phantoms, replace(first, patient="Y", radiograph="ap.dcm", ecg="ecg4.dcm"))
    assert refused[0].fault is RowFault.RADIOGRAPH


def test_a_cohort_of_every_fault_names_each_row_and_guesses_nothing(
    phantoms: Path, tmp_path: Path, opener: Opener
) -> None:
    """Row by row through the command that trains: missing files, values out of range or none, a patient in two parts,
    repeats, colour."""
    from click.testing import CliRunner

    from pacs_node.cli import root

    head, *rows = (phantoms / "cohort.csv").read_text(encoding="utf-8").splitlines()
    columns = head.split(",")
    (phantoms / "ecg6.dcm").write_bytes(make_patient(5, 6, Scenario.PAIRED_WAVEFORM).objects[1].part10)
    sound = [dict(zip(columns, row.split(","), strict=True)) | {"split": "train"} for row in rows]
    first = sound[0]
    date_ = first["rhc_date"]
    table = [
        *sound,
        first | {"patient": "M1", "radiograph": "none.dcm", "ecg": "none-ecg.dcm"},
        first | {"patient": "M2", "radiograph": "b.dcm", "ecg": "be.dcm", "mpap_mmhg": "300"},
        first | {"patient": "M3", "radiograph": "c.dcm", "ecg": "ce.dcm", "mpap_mmhg": "nan"},
        first | {"patient": "M4", "radiograph": "d.dcm", "ecg": "de.dcm", "split": "train"},
        first | {"patient": "M4", "radiograph": "e.dcm", "ecg": "ee.dcm", "split": "test"},
        sound[1],
        first | {"patient": "M5", "radiograph": "colour.dcm", "ecg": "ecg6.dcm", "rhc_date": date_},
    ]
    path = tmp_path / "cohort.csv"
    lines = [",".join([*columns, "split"]), *(",".join(row.values()) for row in table)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    arguments = ["model", "train", "--cohort", str(path), "--data", str(phantoms), "--out", str(tmp_path / "run"),
                 "--backbone", "micro-vit", "--ecg", "micro", "--weights", "none"]  # fmt: skip
    result = CliRunner().invoke(root, arguments)
    assert result.exit_code == 1
    n = len(sound)
    told = [line.split(",", 2) for line in (tmp_path / "run" / "refused.csv").read_text("utf-8").splitlines()[1:]]
    assert [(int(row), fault) for row, fault, _ in told] == [
        (n + 1, "missing_file"),
        (n + 2, "out_of_range"),
        (n + 3, "not_a_number"),
        (n + 4, "two_splits"),
        (n + 5, "two_splits"),
        (n + 6, "duplicate"),
        (n + 7, "radiograph"),
    ]
    assert "not_monochrome" in told[-1][2]
    for row in range(n + 1, n + 8):
        assert f"row {row} refused" in result.output
    assert not (tmp_path / "run" / "package").exists()


def test_the_same_bytes_under_two_patients_are_refused_for_both(phantoms: Path, opener: Opener) -> None:
    from dataclasses import replace

    first = read_cohort(phantoms / "cohort.csv").rows[0]
    copy = phantoms / "copy.dcm"
    copy.write_bytes((phantoms / first.radiograph).read_bytes())
    made, refused = read_rows(opener, phantoms, first, replace(first, row=2, patient="Z", radiograph="copy.dcm"))
    assert made == []  # whose it is, nobody knows: not the first one's either
    assert [(refusal.row, refusal.fault) for refusal in refused] == [
        (1, RowFault.TWO_PATIENTS),
        (2, RowFault.TWO_PATIENTS),
    ]
    made, refused = read_rows(opener, phantoms, first)
    assert (len(made), refused) == (1, [])


def test_examinations_kept_in_a_folder_come_back_and_only_for_the_same_key(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    made = [
        Examination(
            patient_id=f"P{number}",
            picture=rng.random((512, 512), dtype=np.float32).astype(np.float16),
            lead_images=rng.integers(0, 256, (12, 48, 224, 3), dtype=np.uint8),
            mpap_mmhg=20.0 + number,
            attributes={"sex": "F"},
        )
        for number in range(2)
    ]
    kept = keep_examinations(tmp_path, "k1", iter(made))
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(made, kept, strict=True))
    again = kept_examinations(tmp_path, "k1")
    assert again is not None
    assert np.array_equal(again[1].lead_images, made[1].lead_images)
    assert again[1].attributes == {"sex": "F"}
    assert kept_examinations(tmp_path, "k2") is None


def test_the_split_is_by_patient_seeded_and_written_down(tmp_path: Path) -> None:
    ids = [f"P{number // 3}" for number in range(300)]
    split = split_by_patient(ids, seed=5)
    assert [len(part) // 3 for part in (split.train, split.validation, split.calibration, split.test)] == [
        70,
        10,
        0,
        20,
    ]
    assert split.calibrating == split.validation
    path = tmp_path / "split.csv"
    write_split(path, [f"row {number}" for number in range(300)], ids, split)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "examination,patient,part"
    part_of: dict[str, set[str]] = {}
    for line in lines[1:]:
        _, patient, part = line.split(",")
        part_of.setdefault(patient, set()).add(part)
    assert all(len(parts) == 1 for parts in part_of.values())
    assert split_as_told([line.split(",")[2] for line in lines[1:]]) == split
    with pytest.raises(ValueError, match="'dev' is none of"):
        split_as_told(["dev"])
