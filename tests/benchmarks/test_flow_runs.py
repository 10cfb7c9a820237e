"""The benchmark runs and writes what it promises; its figures are not judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks import flow

ANSWER = "answer (last acknowledgement to arrival in the archive)"


def test_a_quick_run_writes_one_complete_json_object_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert flow.main(["--quick", "--out", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "flow.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["benchmark"] for line in lines} >= {ANSWER, "stage", "memory"}
    for line in lines:
        assert line["machine"]["cpu"]
        assert line["machine"]["cores"] >= 1
        assert line["versions"]["pulmolink"]
        if "skipped" not in line:
            assert line["median"] > 0
            assert len(line["samples"]) == line["count"] > 0
    answers = {line["parameters"]["report"] for line in lines if line["benchmark"] == ANSWER}
    assert answers == {"SR", "overlay"}
    printed = capsys.readouterr().out
    assert all(title in printed for title in (ANSWER, "memory"))
