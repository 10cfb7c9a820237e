"""A table of predictions is read as it stands, and every row that cannot be used is named by its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference.evaluation.errors import EvaluationError, TableRefused
from inference.evaluation.table import Table, parse_table, read_table

HEADER = "examination,patient,mpap_mmhg,predicted_mmhg,lower_mmhg,upper_mmhg,acquired_at,sex,age,smoker,site,model"
GOOD = [
    "E1,P1,30,31.5,20,43,2024-03-01T10:00:00+09:00,F,61,no,A,m",
    "E2,P1,28,29,,,2024-09-01,f,61,0,A,m",
    "E3,P2,45,38,27,49,,,,former,,m",
]


def table(*rows: str, header: str = HEADER, drop_refused: bool = False) -> Table:
    return parse_table([f"{line}\n" for line in (header, *rows)], drop_refused=drop_refused)


def refusals(*rows: str, header: str = HEADER) -> list[str]:
    with pytest.raises(TableRefused) as caught:
        table(*rows, header=header)
    return [str(row) for row in caught.value.rows]


def test_values_groups_and_times_arrive_and_empty_cells_stay_unknown() -> None:
    read = table(*GOOD).of()
    assert read.patient.tolist() == [0, 0, 1]
    assert read.measured_mmhg.tolist() == [30.0, 28.0, 45.0]
    assert np.isnan(read.lower_mmhg).tolist() == [False, True, False]
    assert read.acquired_at[0] == np.datetime64("2024-03-01T01:00:00")  # in UTC
    assert np.isnat(read.acquired_at[2])
    assert read.groups["sex"].tolist() == ["F", "F", ""]
    assert read.groups["smoker"].tolist() == ["no", "no", "former"]
    assert np.isnan(read.probabilities["probability_above_20"]).all()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("E9,P9,nan,30,,,,,,,,m", "line 5, mpap_mmhg: is not finite"),
        ("E9,P9,inf,30,,,,,,,,m", "line 5, mpap_mmhg: is not finite"),
        ("E9,P9,,30,,,,,,,,m", "line 5, mpap_mmhg: is empty"),
        ("E9,P9,434,30,,,,,,,,m", "line 5, mpap_mmhg: 434 lies outside 1 to 150"),
        ("E9,P9,-3,30,,,,,,,,m", "line 5, mpap_mmhg: -3 lies outside 1 to 150"),
        ("E9,P9,30,high,,,,,,,,m", "line 5, predicted_mmhg: is not a number"),
        ("E9,P9,30,30,20,,,,,,,m", "line 5, lower_mmhg: one bound of the interval without the other"),
        ("E9,P9,30,30,40,20,,,,,,m", "line 5, lower_mmhg: lies above upper_mmhg"),
        ("E9,P9,30,30,,,1st of May,,,,,m", "line 5, acquired_at: is not an ISO 8601 date or time"),
        ("E9,P9,30,30,,,,X,,,,m", "line 5, sex: is none of m, f, o"),
        ("E9,P9,30,30,,,,,140,,,m", "line 5, age: 140 lies outside 0 to 120"),
        ("E9,P9,30,30,,,,,,maybe,,m", "line 5, smoker: is none of yes, true, 1, no, false, 0, current, former, never"),
        (",P9,30,30,,,,,,,,m", "line 5, examination: is empty"),
        ("E9,,30,30,,,,,,,,m", "line 5, patient: is empty"),
        ("E9,P9,30", "line 5: has 3 cells, the head 12"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_column_and_reason(row: str, reason: str) -> None:
    assert refusals(*GOOD, row) == [reason]


@pytest.mark.parametrize(
    ("row", "reasons"),
    [
        ("E2,P1,28,30,,,,,,,,m", ["line 3, examination: stands twice", "line 5, examination: stands twice"]),
        (
            "E2,P2,28,30,,,,,,,,other",
            [f"line {line}, patient: differs between rows of one examination" for line in (3, 5)],
        ),
        (
            "E2,P1,29,30,,,,,,,,other",
            [f"line {line}, mpap_mmhg: differs between rows of one examination" for line in (3, 5)],
        ),
        (
            "E9,P1,29,30,,,,M,,,,m",
            [f"line {line}, sex: differs between rows of one patient" for line in (2, 3, 5)],
        ),
    ],
)
def test_rows_that_contradict_each_other_are_all_refused(row: str, reasons: list[str]) -> None:
    assert refusals(*GOOD, row) == reasons


def test_a_missing_double_or_unknown_column_refuses_the_table() -> None:
    assert refusals("a", header="examination,patient,mpap_mmhg") == ["line 1, predicted_mmhg: the column is missing"]
    assert "line 1, site: the column stands twice" in refusals(*GOOD, header=f"{HEADER},site")
    # A misspelt optional column would otherwise be lost without a word.
    assert "line 1, lower: the column is not known; nothing would read it" in refusals(*GOOD, header=f"{HEADER},lower")


def test_no_refusal_quotes_a_patient_or_an_examination() -> None:
    assert "P-SECRET" not in "".join(
        refusals(*GOOD, "E-SECRET,P-SECRET,nan,1,,,,,,,,m", "E-SECRET,P-SECRET,3,1,,,,,,,,m")
    )
    with pytest.raises(TableRefused) as caught:
        table(*GOOD, "E-SECRET,P-SECRET,nan,1,,,,,,,,m")
    assert "SECRET" not in str(caught.value)


def test_refused_rows_may_be_left_out_and_are_remembered() -> None:
    read = table(*GOOD, "E9,P9,nan,30,,,,,,,,m", drop_refused=True)
    assert len(read.of().examination) == 3
    assert [str(row) for row in read.refused] == ["line 5, mpap_mmhg: is not finite"]


def test_of_several_models_one_must_be_named() -> None:
    read = table(*GOOD, "E1,P1,30,35,,,,,,,,other")
    with pytest.raises(EvaluationError, match="2 models: 'm', 'other'"):
        read.of()
    with pytest.raises(EvaluationError, match="does not hold the model 'third'"):
        read.of("third")
    assert read.of("other").predicted_mmhg.tolist() == [35.0]


def test_an_empty_table_and_one_that_is_not_text_are_refused(tmp_path: Path) -> None:
    assert refusals() == ["file: holds no row"]
    file = tmp_path / "table.csv"
    file.write_bytes(HEADER.encode() + b"\n\xff\xfe\x00")
    with pytest.raises(TableRefused, match="not UTF-8"):
        read_table(file)


def test_rows_chosen_from_a_table_keep_their_order_and_number_patients_anew() -> None:
    read = table(*GOOD).of()
    chosen = read.rows(np.array([2, 0]))
    assert chosen.examination.tolist() == ["E3", "E1"]
    assert chosen.patient.tolist() == [0, 1]
    assert chosen.patients == 2
