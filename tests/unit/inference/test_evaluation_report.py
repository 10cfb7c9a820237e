"""What an evaluation leaves behind: a page that stands alone, figures, tables, card numbers; and the commands."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from inference.evaluation.canvas import Drawn
from inference.evaluation.evaluate import Evaluation, evaluate
from inference.evaluation.page import Provenance, evaluation_page
from inference.evaluation.plots import all_figures, bland_altman, regression
from inference.evaluation.published import TABLE_FIGURES, YOON, read_published
from inference.evaluation.resampling import Resampling
from inference.evaluation.table import Predictions
from inference.evaluation.writing import (
    FIGURE_NAMES,
    card_metrics,
    card_section,
    evaluation_json,
    write_evaluation,
)
from inference.prediction import ModelIdentity
from pacs_node.commands.model import model
from tests.unit.inference.evaluation_examples import cohort

DEMO = ModelIdentity(
    name="synthetic-demo",
    version="1.0.0",
    kind="synthetic-demo",
    digest="d" * 64,
    preprocessing_digest="p" * 64,
    architecture="micro",
)
PROVENANCE = Provenance(
    identity=DEMO, table_sha256="a" * 64, code_version="0.1.0", made_at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
)


@pytest.fixture(scope="module")
def predictions() -> Predictions:
    groups = {**cohort().groups, "site": np.where(cohort().patient < 5, "<b>North</b>", "A & $\\frac$")}
    return dataclasses.replace(cohort(), groups=groups)


@pytest.fixture(scope="module")
def evaluation(predictions: Predictions) -> Evaluation:
    return evaluate(predictions, Resampling(repeats=300))


@pytest.fixture(scope="module")
def figures(predictions: Predictions, evaluation: Evaluation) -> tuple[Drawn, ...]:
    return all_figures(predictions, evaluation, "example, research use only")


@pytest.fixture(scope="module")
def page(evaluation: Evaluation, figures: tuple[Drawn, ...]) -> str:
    return evaluation_page(evaluation, figures, PROVENANCE)


class Links(HTMLParser):
    """Every address that a page names, and every identifier."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.names: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "action", "data"}:
                self.addresses.append(value or "")
            if name == "id":
                self.names.append(value or "")


class TestPage:
    def test_needs_nothing_from_anywhere(self, page: str) -> None:
        links = Links(page)
        assert [a for a in links.addresses if not a.startswith("#")] == []
        assert "<script" not in page
        assert "@import" not in page
        assert re.findall(r"url\((?!#)", page) == []

    def test_names_every_part_of_a_figure_once_and_points_at_what_is_there(self, page: str) -> None:
        links = Links(page)
        assert len(links.names) == len(set(links.names))
        pointed = {a[1:] for a in links.addresses} | set(re.findall(r"url\(#([^)]+)\)", page))
        assert pointed <= set(links.names)

    def test_says_whose_numbers_these_are_and_that_a_demo_means_nothing(self, page: str) -> None:
        assert "Research use only" in page
        assert "SYNTHETIC DEMO" in page
        assert "d" * 64 in page
        assert "synthetic-demo 1.0.0" in page
        assert "a" * 64 in page

    def test_never_calls_anything_clinically_acceptable(self, page: str) -> None:
        assert "acceptable" not in page

    def test_shows_a_suppressed_group_without_its_numbers_and_explains_it(self, page: str) -> None:
        assert "&lt;b&gt;North&lt;/b&gt;" in page
        assert "<b>North" not in page
        row = page[page.index("&lt;b&gt;North") :].split("</tr>", maxsplit=1)[0]
        assert row.count("suppressed") == 5
        assert "fewer than 10 patients are suppressed" in page

    def test_prints_published_figures_beside_the_measured_ones(self, page: str) -> None:
        assert all(words in page for words in ("Yoon et al., DINOv2 + ECG", "39.6", "0.22 *"))

    def test_says_what_could_not_be_assessed(self, predictions: Predictions) -> None:
        bare = dataclasses.replace(
            predictions.rows(predictions.measured_mmhg > 27),
            lower_mmhg=np.full(int((predictions.measured_mmhg > 27).sum()), np.nan),
        )
        once = bare.rows(np.unique(bare.patient, return_index=True)[1])
        found = evaluate(once, Resampling(repeats=200))
        text = evaluation_page(found, all_figures(once, found, "x"), PROVENANCE)
        assert "the cohort has no controls" in text
        assert "The table gives bounds for fewer than 10 patients" in text
        assert "Fewer than 10 patients with two dated visits" in text


class TestFigures:
    def test_are_all_there(self, figures: tuple[Drawn, ...]) -> None:
        names = ["bland-altman", "regression", "longitudinal", "subgroups", "threshold-20", "threshold-25"]
        assert [figure.name for figure in figures] == names

    def test_are_pictures_of_print_quality_and_vector_graphics(self, figures: tuple[Drawn, ...]) -> None:
        for figure in figures:
            with Image.open(io.BytesIO(figure.png)) as picture:
                assert round(picture.info["dpi"][0]) == 300
                assert picture.width >= 1300
                assert np.ptp(np.asarray(picture.convert("L"))) > 200
            assert ET.fromstring(figure.svg).tag.endswith("svg")  # noqa: S314 - our own

    def test_are_the_same_bytes_again(
        self, predictions: Predictions, evaluation: Evaluation, figures: tuple[Drawn, ...]
    ) -> None:
        again = bland_altman(predictions, evaluation, "example, research use only")
        assert (again.svg, again.png) == (figures[0].svg, figures[0].png)

    def test_of_a_large_cohort_stay_small(self) -> None:
        many = cohort(3000, visits=1)
        found = evaluate(many, Resampling(repeats=200))
        assert len(regression(many, found, "x").svg) < 1_000_000


class TestFiles:
    def test_json_holds_everything_and_no_row_of_a_patient(self, evaluation: Evaluation) -> None:
        body = json.loads(json.dumps(evaluation_json(evaluation, PROVENANCE), allow_nan=False))
        assert body["notice"].startswith("Research use only")
        assert body["figures"]["bias"]["value"] == pytest.approx(evaluation.figures["bias"].value)
        assert body["provenance"]["package"]["digest"] == "d" * 64
        assert set(body["change"]) == {"patients", "changes", "notable_changes", "figures"}
        assert "North" in json.dumps(body["subgroups"])

    def test_card_numbers_stand_under_the_manifests_names(self, evaluation: Evaluation) -> None:
        metrics = card_metrics(evaluation)
        for name in ("mean_absolute_error", "bias", "error_sd", "correlation", "slope", "explained"):
            assert set(metrics[name]) == {"value", "low", "high"}  # type: ignore[call-overload]
        assert metrics["patients"] == evaluation.cohort.patients

    def test_limits_of_agreement_on_the_card_come_with_their_intervals(self, evaluation: Evaluation) -> None:
        assert evaluation.repeated is not None
        upper = evaluation.repeated.upper
        assert f"{upper.value:.1f} ({upper.low:.1f} to {upper.high:.1f}, MOVER)" in card_section(evaluation)

    def test_a_folder_receives_all_of_it(
        self, tmp_path: Path, evaluation: Evaluation, figures: tuple[Drawn, ...]
    ) -> None:
        write_evaluation(tmp_path / "new", evaluation, figures, PROVENANCE)
        names = sorted(str(p.relative_to(tmp_path / "new")) for p in (tmp_path / "new").rglob("*") if p.is_file())
        plain = ["card.json", "card.md", "evaluation.json", "figures.csv", "report.html", "subgroups.csv"]
        assert names == sorted(plain + [f"figures/{f.name}.{kind}" for f in figures for kind in ("png", "svg")])
        with (tmp_path / "new" / "subgroups.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        hidden = [row for row in rows if row["suppressed"] == "yes"]
        assert hidden
        assert all(row["patients"] == row["value"] == "" for row in hidden)

    def test_figures_of_an_earlier_run_do_not_stay_beside_a_new_report(
        self, tmp_path: Path, evaluation: Evaluation, figures: tuple[Drawn, ...]
    ) -> None:
        assert {figure.name for figure in figures} <= set(FIGURE_NAMES)
        (tmp_path / "figures").mkdir()
        (tmp_path / "figures" / "comparison.png").write_bytes(b"old")
        (tmp_path / "figures" / "my-own.png").write_bytes(b"kept")
        write_evaluation(tmp_path, evaluation, figures, PROVENANCE)
        assert not (tmp_path / "figures" / "comparison.png").exists()
        assert (tmp_path / "figures" / "my-own.png").exists()


class TestPublished:
    def test_figures_are_read_by_name(self, tmp_path: Path) -> None:
        file = tmp_path / "paper.csv"
        file.write_text("figure,value\nlabel,A paper\nslope,0.43\n", encoding="utf-8")
        assert dict(read_published(file).values) == {"slope": "0.43"}
        assert read_published(file).label == "A paper"

    @pytest.mark.parametrize("row", ["steepness,0.4", "slope,", "slope,1\nslope,2"])
    def test_what_is_unknown_empty_or_double_is_refused(self, tmp_path: Path, row: str) -> None:
        file = tmp_path / "paper.csv"
        file.write_text(f"figure,value\n{row}\n", encoding="utf-8")
        with pytest.raises(Exception, match=r"1 row is refused"):
            read_published(file)

    def test_what_is_held_of_the_paper_has_a_place_in_the_table(self) -> None:
        assert set(YOON.values) <= set(TABLE_FIGURES)


def write_table(path: Path, *models: Predictions, spoil: bool = False) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        columns = "examination patient mpap_mmhg predicted_mmhg lower_mmhg upper_mmhg acquired_at sex age smoker model"
        writer.writerow(columns.split())
        for p in models:
            for k in range(len(p.patient)):
                measured = "nan" if spoil and k == 3 else f"{p.measured_mmhg[k]:g}"
                numbers = (f"{v[k]:.4f}" for v in (p.predicted_mmhg, p.lower_mmhg, p.upper_mmhg))
                row = [p.examination[k], f"P{p.patient[k]}", measured, *numbers, str(p.acquired_at[k])]
                writer.writerow([*row, p.groups["sex"][k], f"{p.age_years[k]:g}", p.groups["smoker"][k], p.model])
    return path


class TestCommands:
    def test_evaluate_writes_the_report_and_tells_the_essence(self, tmp_path: Path) -> None:
        table = write_table(tmp_path / "t.csv", cohort(24))
        ended = CliRunner().invoke(
            model,
            ["evaluate", str(table), "--out", str(tmp_path / "out"), "--resamples", "200"],
            catch_exceptions=False,
        )
        assert ended.exit_code == 0
        assert "research use only" in ended.output
        assert "Mean absolute error, mmHg" in ended.output
        assert (tmp_path / "out" / "report.html").is_file()

    def test_evaluate_refuses_bad_rows_and_with_leave_ends_in_part(self, tmp_path: Path) -> None:
        table = write_table(tmp_path / "t.csv", cohort(24), spoil=True)
        arguments = ["evaluate", str(table), "--out", str(tmp_path / "out"), "--resamples", "200"]
        ended = CliRunner().invoke(model, arguments)
        assert "line 5, mpap_mmhg: is not finite" in str(ended.exception)
        assert not (tmp_path / "out").exists()
        ended = CliRunner().invoke(model, [*arguments, "--drop-refused", "--json"])
        assert ended.exit_code == 3
        body = json.loads(ended.stdout)
        assert body["cohort"]["rows_refused"] == 1
        assert "line 5" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")

    def test_evaluate_names_the_package_and_refuses_another_models_predictions(self, tmp_path: Path) -> None:
        arguments = ["--package", "synthetic-demo", "--resamples", "200", "--out", str(tmp_path / "out")]
        own = dataclasses.replace(cohort(20, visits=1), model="synthetic-demo")
        table = write_table(tmp_path / "own.csv", own)
        assert CliRunner().invoke(model, ["evaluate", str(table), *arguments]).exit_code == 0
        assert "SYNTHETIC DEMO" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        table = write_table(tmp_path / "other.csv", cohort())
        ended = CliRunner().invoke(model, ["evaluate", str(table), *arguments])
        assert ended.exit_code == 1
        assert "not the same" in ended.output

    def test_compare_takes_two_models_of_one_table(self, tmp_path: Path) -> None:
        table = write_table(tmp_path / "t.csv", cohort(), cohort(model="better", noise=2.0))
        arguments = ["compare", str(table), str(table), "--out", str(tmp_path / "out"), "--resamples", "200", "--json"]
        chosen = ["--first-model", "example", "--second-model", "better"]
        ended = CliRunner().invoke(model, [*arguments, *chosen], catch_exceptions=False)
        assert ended.exit_code == 0
        body = json.loads(ended.stdout)
        assert body["difference"]["mean_absolute_error"]["high"] < 0
        assert (tmp_path / "out" / "figures" / "comparison.svg").is_file()
        same = ["--first-model", "better", "--second-model", "better"]
        assert CliRunner().invoke(model, [*arguments, *same]).exit_code == 2

    def test_neither_draws_nor_computes_before_it_must(self) -> None:
        program = (
            "import sys\nimport pacs_node.commands.model\n"
            "sys.exit([n for n in ('matplotlib', 'scipy', 'numpy', 'torch') if n in sys.modules] or 0)"
        )
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
        assert (ended.returncode, ended.stderr) == (0, "")

    def test_an_evaluation_needs_no_network(self) -> None:
        program = (
            "import sys\nimport inference.evaluation.writing, inference.evaluation.plots\n"
            "sys.exit([n for n in ('torch', 'timm') if n in sys.modules] or 0)"
        )
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
        assert (ended.returncode, ended.stderr) == (0, "")
