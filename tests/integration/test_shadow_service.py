"""A service with a second package: Orthanc gets what is served and nothing else, and a shadow that is killed or of no
use is nobody's trouble."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil

from inference.package import MANIFEST, locate, read_manifest
from tests.integration.conftest import RealPatient
from tests.integration.rig import Node, Orthanc, eventually, storescu


def send(node: Node, patient: RealPatient, program: str) -> None:
    assert storescu(program, node.port, patient.ecg_file, propose="-x=").returncode == 0
    assert storescu(program, node.port, patient.radiograph_file, propose="-xw").returncode == 0


def shadow_process(node: Node) -> psutil.Process | None:
    assert node.process is not None
    for child in psutil.Process(node.process.pid).children():
        if "shadow" in child.cmdline():
            return child
    return None


def test_a_shadow_estimates_live_traffic_and_only_the_store_hears_of_it(
    tmp_path: Path, real_patient: RealPatient, orthanc: Orthanc, tool: Callable[[str], str]
) -> None:
    second = tmp_path / "second"
    shutil.copytree(locate("synthetic-demo"), second)
    (second / MANIFEST).write_bytes(replace(read_manifest(second), version="9.0.0").to_bytes())
    with Node(tmp_path / "node", {"pacs": orthanc.port}, extra=f'[model]\nshadow = "{second}"\n') as node:
        process = eventually(lambda: shadow_process(node), 20, "the shadow runs")
        process.kill()  # before it could do anything; the supervisor starts another
        send(node, real_patient, tool("storescu"))
        eventually(lambda: len(orthanc.instances()) == 2, 60, "SR and overlay in Orthanc")

        def told() -> dict[str, int]:
            body = json.loads(node.run("model", "compare", "--live", "--json").stdout)
            return {name: body[name] for name in ("estimates_served", "estimates_of_both", "due")}

        eventually(
            lambda: told() == {"estimates_served": 1, "estimates_of_both": 1, "due": 0}, 90, "the second estimate"
        )
        assert node.stop() == 0
        log = node.log
    assert len(orthanc.instances()) == 2
    assert '"shadow_estimated"' in log
    for identity in ("RIG-001", "Yamada", "山田", "19500101", "ACC1"):
        assert identity not in log


def test_a_shadow_that_cannot_be_loaded_leaves_the_service_as_it_is(
    tmp_path: Path, real_patient: RealPatient, orthanc: Orthanc, tool: Callable[[str], str]
) -> None:
    with Node(tmp_path / "node", {"pacs": orthanc.port}, extra='[model]\nshadow = "no-such-package"\n') as node:
        send(node, real_patient, tool("storescu"))
        eventually(lambda: len(orthanc.instances()) == 2, 60, "SR and overlay in Orthanc")
        (match,) = eventually(
            lambda: [row for row in node.matches() if row["state"] == "DELIVERED"], 20, "the match is DELIVERED"
        )
        assert match["model"].startswith("synthetic-demo ")
        assert node.stop() == 0
        assert re.search(r'"process_ended".*"process": "shadow"|"process": "shadow".*"process_ended"', node.log)
