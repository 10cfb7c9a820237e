"""A package predicts a labelled cohort as the service would, row by row, and every row it cannot use is named."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from ecg_ingest import RenderStyle, read
from inference.evaluation.errors import EvaluationError, TableRefused
from inference.evaluation.table import read_table
from inference.package import read_package, write_package
from inference.phantoms import Forms, write_cohort
from inference.predictor import Predictor
from inference.radiograph import read_radiograph
from inference.split import split_as_told, write_split
from pacs_node.commands.model import model
from pacs_node.commands.model_predict import predict_cohort
from pacs_node.labelled import Folder
from pacs_node.opening.opener import Opener

ZONE = ZoneInfo("UTC")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, patients=3, seed=4, forms=Forms.WAVEFORM)
    return folder / "cohort.csv"


def changed(cohort: Path, name: str, change: Callable[[list[dict[str, str]]], None]) -> Path:
    with cohort.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    change(rows)
    path = cohort.with_name(name)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_predictions_are_those_of_the_service(
    labelled: Path, tmp_path: Path, make_package: Callable[..., Path], opener: Opener
) -> None:
    package = make_package()
    out = tmp_path / "out" / "predictions.csv"
    assert (
        predict_cohort(
            package, labelled, Folder(labelled.parent), out, opener, part=None, zone=ZONE, drop_refused=False
        )
        == ()
    )
    found = read_table(out).of("random-demo 0.1.0")
    assert found.patients == 3
    predictor = Predictor.load(package)
    with labelled.open(encoding="utf-8", newline="") as stream:
        first = next(csv.DictReader(stream))
    chest = predictor.chest(
        read_radiograph((labelled.parent / first["radiograph"]).read_bytes(), predictor.preprocessing)
    )
    style = RenderStyle(**predictor.ecg_style)  # type: ignore[arg-type]
    leads = read((labelled.parent / first["ecg"]).read_bytes(), style=style).pixels
    served = predictor.predict(chest.embedding, leads)
    # A kept picture has half precision.
    assert found.predicted_mmhg[0] == pytest.approx(served.mpap_mmhg, abs=0.01)
    assert found.upper_mmhg[0] == pytest.approx(served.interval_high_mmhg, abs=0.01)
    assert found.measured_mmhg[0] == pytest.approx(float(first["mpap_mmhg"]))


def test_a_missing_file_is_named_and_refused_unless_it_may_be_left_out(
    labelled: Path, tmp_path: Path, make_package: Callable[..., Path], opener: Opener
) -> None:
    def lose(rows: list[dict[str, str]]) -> None:
        rows[1]["ecg"] = "nowhere.dcm"

    package, cohort, out = make_package(), changed(labelled, "lost.csv", lose), tmp_path / "predictions.csv"

    def predict(*, drop_refused: bool) -> list[str]:
        arguments = (package, cohort, Folder(cohort.parent), out, opener)
        return [str(r) for r in predict_cohort(*arguments, part=None, zone=ZONE, drop_refused=drop_refused)]

    with pytest.raises(TableRefused, match="row 2: ECG: the file cannot be read"):
        predict(drop_refused=False)
    assert not out.exists()
    assert predict(drop_refused=True) == ["row 2: ECG: the file cannot be read (No such file or directory)"]
    assert len(read_table(out).of().examination) == 2


def test_of_a_cohort_with_a_split_the_test_part_is_predicted(
    labelled: Path, tmp_path: Path, make_package: Callable[..., Path], opener: Opener
) -> None:
    def divide(rows: list[dict[str, str]]) -> None:
        for row, part in zip(rows, ("train", "test", "test"), strict=True):
            row["split"] = part

    package, cohort, out = make_package(), changed(labelled, "split.csv", divide), tmp_path / "predictions.csv"
    for part, count in ((None, 2), ("train", 1), ("all", 3)):
        predict_cohort(package, cohort, Folder(cohort.parent), out, opener, part=part, zone=ZONE, drop_refused=False)
        assert len(read_table(out).of().examination) == count
    with pytest.raises(EvaluationError, match="gives no split"):
        predict_cohort(
            package, labelled, Folder(labelled.parent), out, opener, part="test", zone=ZONE, drop_refused=False
        )


@pytest.fixture
def examined_by(
    labelled: Path, tmp_path: Path, make_package: Callable[..., Path], opener: Opener
) -> Callable[[dict[str, str]], list[str]]:
    """Predict as a training's split says, the part of each row as given; the rows that were examined."""

    def predict(parts: dict[str, str]) -> list[str]:
        with labelled.open(encoding="utf-8", newline="") as stream:
            patients = [row["patient"] for row in csv.DictReader(stream)]
        split, out = tmp_path / "split.csv", tmp_path / "predictions.csv"
        write_split(split, list(parts), patients[: len(parts)], split_as_told(list(parts.values())))
        arguments = (make_package(), labelled, Folder(labelled.parent), out, opener)
        predict_cohort(*arguments, part=None, zone=ZONE, drop_refused=False, split=split)
        return list(read_table(out).of().examination)

    return predict


def test_the_split_of_a_training_tells_its_test_patients(
    examined_by: Callable[[dict[str, str]], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert examined_by({"row 1": "train", "row 2": "test", "row 3": "validation"}) == ["row 2"]
    assert "does not name" not in capsys.readouterr().err


def test_patients_that_the_split_of_a_training_does_not_name_are_counted(
    examined_by: Callable[[dict[str, str]], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert examined_by({"row 1": "test"}) == ["row 1"]
    assert "warning: split.csv does not name 2 patients of the table" in capsys.readouterr().err


def test_bytes_that_a_training_patient_also_has_are_not_evaluated_as_a_test_patients(
    labelled: Path, tmp_path: Path, make_package: Callable[..., Path], opener: Opener
) -> None:
    """Guards: only the rows of the part were compared, and the leak is between the parts."""

    def leak(rows: list[dict[str, str]]) -> None:
        for row, part in zip(rows, ("train", "test", "test"), strict=True):
            row["split"] = part
        (labelled.parent / "copy.dcm").write_bytes((labelled.parent / rows[0]["radiograph"]).read_bytes())
        rows[1]["radiograph"] = "copy.dcm"

    cohort, out = changed(labelled, "leak.csv", leak), tmp_path / "predictions.csv"
    arguments = (make_package(), cohort, Folder(cohort.parent), out, opener)
    left_out = predict_cohort(*arguments, part=None, zone=ZONE, drop_refused=True)
    assert [str(row) for row in left_out] == ["row 2: the radiograph's bytes also stand under another patient"]
    assert list(read_table(out).of().examination) == ["row 3"]


@pytest.mark.parametrize("content", ["patient,part\nA,dev\n", "who,what\nA,test\n", "patient,part\nA,test\nA,train\n"])
def test_another_file_is_not_taken_for_a_split(
    labelled: Path, tmp_path: Path, make_package: Callable[..., Path], opener: Opener, content: str
) -> None:
    (tmp_path / "split.csv").write_text(content, encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"^--split: "):
        predict_cohort(
            make_package(),
            labelled,
            Folder(labelled.parent),
            tmp_path / "predictions.csv",
            opener,
            part=None,
            zone=ZONE,
            drop_refused=False,
            split=tmp_path / "split.csv",
        )


def test_the_table_that_a_package_was_trained_on_is_not_evaluated_as_if_it_were_new(
    labelled: Path,
    tmp_path: Path,
    make_package: Callable[..., Path],
    opener: Opener,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Guards: a figure of training patients reported as that of held-out ones."""
    package, out = make_package(), tmp_path / "predictions.csv"
    made = read_package(package)
    data = {"cohort_sha256": hashlib.sha256(labelled.read_bytes()).hexdigest()}
    write_package(
        package,
        dataclasses.replace(made.manifest, data=data),
        weights=made.weights,
        calibration=made.calibration,
        golden=made.golden,
        card="# taught\n",
    )
    arguments = (package, labelled, Folder(labelled.parent), out, opener)
    with pytest.raises(EvaluationError, match="trained on this very table"):
        predict_cohort(*arguments, part=None, zone=ZONE, drop_refused=False)
    assert not out.exists()
    predict_cohort(*arguments, part="all", zone=ZONE, drop_refused=False)
    assert "warning: the package was trained on this very table" in capsys.readouterr().err
    assert len(read_table(out).of().examination) == 3


@pytest.mark.parametrize(
    "arguments", [[], ["--cohort", __file__], [__file__, "--cohort", __file__], [__file__, "--part", "test"]]
)
def test_what_to_evaluate_must_be_said_once(tmp_path: Path, arguments: list[str]) -> None:
    assert CliRunner().invoke(model, ["evaluate", *arguments, "--out", str(tmp_path / "out")]).exit_code == 2
