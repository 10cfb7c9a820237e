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
    done, net = _shown(tool("chromium"), pages[name], tmp_path)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert said == []
    assert _requests_of_the_page(net) == set()
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("L"))
    assert pixels.shape == (HEIGHT, WIDTH)
    # Ink from the band at the top to the footer, and a margin on both sides: nothing runs out of the page.
    inked = np.flatnonzero((pixels < 128).any(axis=1))
    assert inked[0] < 60
    assert inked[-1] > 1200
    assert (pixels[:, -10:] > 200).all()


def test_a_page_that_asks_for_something_elsewhere_is_found_out(tool: Callable[[str], str], tmp_path: Path) -> None:
    """The test above could fail."""
    page = tmp_path / "page.html"
    page.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("no")</script>', encoding="utf-8")
    done, net = _shown(tool("chromium"), page, tmp_path)
    assert any("CONSOLE" in line for line in done.stderr.splitlines())
    assert _requests_of_the_page(net) == {"http://127.0.0.1:9/x.png"}


def _shown(program: str, page: Path, folder: Path) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Let Chromium draw `page` as page.png in `folder`; what it said, and the log of its network."""
    net = folder / "net.json"
    done = subprocess.run(
        [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
         f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", f"--log-net-log={net}",
         f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={folder / 'page.png'}", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done, net


def _requests_of_the_page(net: Path) -> set[str]:
    """Every address that the page made the browser ask for; those that it asks for itself come from no origin."""
    text = net.read_text(encoding="utf-8").rstrip().rstrip(",")
    body = json.loads(text if text.endswith("}") else text + "]}")
    kind = body["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    begun = [event["params"] for event in body["events"] if event["type"] == kind and "url" in event.get("params", {})]
    return {request["url"] for request in begun if request.get("initiator") != "not an origin"}
