"""The benchmark of inference runs and writes what it promises; its figures are not judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks import inference


def test_a_quick_run_puts_this_predictor_beside_the_plain_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", "dinov2-small", "--quick", "--only", "pulmolink fp32", "--out", str(tmp_path)]
    assert inference.main(arguments) == 0
    lines = [json.loads(line) for line in (tmp_path / "inference.jsonl").read_text(encoding="utf-8").splitlines()]
    examinations = {line["parameters"]["contender"]: line for line in lines if line["benchmark"] == "examination"}
    assert set(examinations) == {"plain", "pulmolink fp32"}
    for line in examinations.values():
        assert line["median"] > 0
        assert line["parameters"]["gflop"] == pytest.approx(111, abs=1)
        assert line["parameters"]["maximum_delta_mmhg"] < 0.001
        assert line["parameters"]["share_of_gemm"] > 0
    assert {line["benchmark"] for line in lines} >= {"gemm", "memory", "part", "examination"}
    assert any("no GPU was measured" in line.get("skipped", "") for line in lines)
    assert "plain: timm eager fp32, nine single forwards" in capsys.readouterr().out
