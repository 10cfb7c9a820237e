"""What README shows can be copied, and what it lists is what the program does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pacs_node.dicom import tls
from pacs_node.flow.sop_classes import RECEIVED
from pacs_node.settings import Limits, Tls, load

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("sample", blocks("toml"))
def test_a_sample_configuration_can_be_used_and_closes_no_port(sample: str, tmp_path: Path) -> None:
    """Copied as it stands, `only = true` would lock out every sender that does not speak TLS yet."""
    file = tmp_path / "pulmolink.toml"
    file.write_text(sample, encoding="utf-8")
    assert not load(file, {}).tls.only


def test_every_sop_class_that_is_received_is_named() -> None:
    named = set(re.findall(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.[0-9.]*[0-9]", README))
    assert named == set(RECEIVED)


def test_every_limit_is_named_as_it_is_set() -> None:
    table = README[README.index("| beyond | what happens |") :]
    cells = [line.split("|")[1] for line in table[: table.index("\n\n")].splitlines()[2:]]
    names = re.findall(r"`([^`]*)`", "".join(cells))
    assert [name for name in names if not name.startswith("limits.")] == []
    elsewhere = {"drain_seconds", "opening_bytes", "opening_cpu_seconds", "opening_seconds"}  # no stranger's doing
    assert {name.removeprefix("limits.") for name in names} == set(Limits.model_fields) - elsewhere


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_the_recipe_makes_a_certificate_that_the_node_can_use(tmp_path: Path) -> None:
    (recipe,) = (block for block in blocks("sh") if "openssl" in block)
    shown = subprocess.run(["sh", "-ec", recipe], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    files = Tls(
        port=2762,
        certificate=str(tmp_path / "node.pem"),
        key=str(tmp_path / "node.key"),
        client_ca=str(tmp_path / "hospital-ca.pem"),
    )
    context = tls.server_context(files)
    assert context.cert_store_stats()["x509_ca"] == 1
    own = subprocess.run(
        ["openssl", "x509", "-in", "node.pem", "-noout", "-ext", "subjectAltName"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "DNS:pulmolink.hospital.example, IP Address:10.0.0.9" in own
    assert re.search(r"(?i)sha256 fingerprint=([0-9A-F]{2}:){31}[0-9A-F]{2}", shown)
