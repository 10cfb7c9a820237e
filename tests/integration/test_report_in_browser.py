"""The evaluation report as a browser shows it: whole, alone, without a word in the console."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.evaluation.comparison import compare
from inference.evaluation.evaluate import evaluate
from inference.evaluation.page import Provenance
from inference.evaluation.plots import all_figures, comparison_forest
from inference.evaluation.resampling import Resampling
from inference.evaluation.writing import write_comparison, write_evaluation
from tests.unit.inference.evaluation_examples import cohort

WIDTH, HEIGHT = 1100, 7000
PROVENANCE = Provenance(
    identity=None, table_sha256="a" * 64, code_version="0.1.0", made_at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
)
FOOTER = "example, research use only"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("reports")
    once = Resampling(repeats=200)
    predictions, other = cohort(), cohort(noise=8.0, model="another")
    evaluation = evaluate(predictions, once)
    write_evaluation(out / "evaluation", evaluation, all_figures(predictions, evaluation, FOOTER), PROVENANCE)
    comparison = compare(predictions, other, once)
    write_comparison(out / "comparison", comparison, (comparison_forest(comparison, FOOTER),), PROVENANCE)
    return {name: out / name / "report.html" for name in ("evaluation", "comparison")}


@pytest.mark.parametrize("name", ["evaluation", "comparison"])
def test_a_report_is_drawn_alone_and_without_complaint(
    pages: dict[str, Path], name: str, tool: Callable[[str], str], tmp_path: Path
) -> None:
    page, picture, net = pages[name], tmp_path / "page.png", tmp_path / "net.json"
    done = subprocess.run(
        [tool("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
         f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", f"--log-net-log={net}",
         f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={picture}", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert said == []
    asked = _requests(net)
    assert {address for address in asked if not address.startswith(("file:", "data:", "chrome"))} == set()
    pixels = np.asarray(Image.open(picture).convert("L"))
    assert pixels.shape == (HEIGHT, WIDTH)
    # Ink from the band at the top to the footer, and a margin on both sides: nothing runs out of the page.
    inked = np.flatnonzero((pixels < 128).any(axis=1))
    assert inked[0] < 60
    assert inked[-1] > 1200
    assert (pixels[:, -10:] > 200).all()


def _requests(net: Path) -> set[str]:
    """Every address that the browser began to ask for."""
    text = net.read_text(encoding="utf-8").rstrip().rstrip(",")
    body = json.loads(text if text.endswith("}") else text + "]}")
    kind = body["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    return {event["params"]["url"] for event in body["events"] if event["type"] == kind and "url" in event["params"]}
