"""The benchmark of the checks runs and writes what it promises; its figures are not judged here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from inference.phantoms.wrong_films import WrongFilm
from tests.benchmarks import trust


def test_a_quick_run_measures_every_mistake_by_every_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trust.main(["--quick", "--out", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "trust.jsonl").read_text(encoding="utf-8").splitlines()]
    measured = {(line["parameters"]["kind"], line["parameters"]["check"]) for line in lines}
    assert measured >= {(kind.value, check) for kind in WrongFilm for check in ("embedding", "pixels", "either")}
    assert measured >= {(kind, "embedding") for kind in trust.WRONG_ECGS}
    printed = capsys.readouterr().out
    assert "false flags" in printed
    assert all(kind.value in printed for kind in WrongFilm)


def test_the_area_is_that_of_scikit_learn_ties_included() -> None:
    rng = np.random.default_rng(2)
    strange, usual = rng.integers(2, 9, 40).astype(float), rng.integers(0, 7, 70).astype(float)
    expected = roc_auc_score([1] * 40 + [0] * 70, np.concatenate([strange, usual]))
    assert trust.auroc(strange, usual) == pytest.approx(expected)
