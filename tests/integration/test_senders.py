"""Real peers send, and what they sent is stored byte for byte (issue 3, item 5)."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pynetdicom import AE, _config
from pynetdicom.presentation import build_context

from pacs_node.flow.part10 import HeaderUnreadable, from_part10
from pacs_node.flow.sop_classes import RECEIVED
from tests.integration.rig import Orthanc, eventually, free_port, listening
from tests.unit.dicom.conftest import empty_database, listen  # noqa: F401 - fixtures
from tests.unit.dicom.peers import Listening

Listen = Callable[..., Listening]
Command = Callable[[int, Path], list[str]]
"""A client's command line, from a port and a file."""
CARRIED = Path(str(get_testdata_file("waveform_ecg.dcm", download=False))).parent


def stored_data(node: Listening, uid: str) -> list[bytes]:
    """The data sets stored under a UID; some files at hand share one."""
    rows = [row.instance for row in node.store.instances() if row.instance.sop_instance_uid == uid]
    return [from_part10(node.objects.get(row.sha256)).data for row in rows]


def header_of(path: Path) -> Dataset:
    return dcmread(path, stop_before_pixels=True)


def dcmtk(program: str, *options: str) -> Command:
    def command(port: int, path: Path) -> list[str]:
        extra = options if path.name.startswith("RG1") else ()
        return [program, *extra, "-aet", "MODALITY", "-aec", "PULMOLINK", "127.0.0.1", str(port), str(path)]

    return command


def gdcm(port: int, path: Path) -> list[str]:
    peer = ["-H", "127.0.0.1", "-p", str(port), "--aetitle", "MODALITY", "--call", "PULMOLINK"]
    return ["gdcmscu", "--store", *peer, "-i", str(path)]


CLIENTS: dict[str, Command] = {
    "storescu": dcmtk("storescu", "-xw"),
    "dcmsend": dcmtk("dcmsend"),
    "gdcmscu": gdcm,
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_sends_real_objects_and_the_stored_bytes_are_those_that_dcmtks_receiver_keeps(
    listen: Listen,  # noqa: F811
    tool: Callable[[str], str],
    tmp_path: Path,
    mortara_ecg: Path,
    philips_radiograph: Path,
    name: str,
) -> None:
    """Clients encode lengths anew when they send, so the oracle is DCMTK's receiver in bit-preserving mode."""
    node = listen()
    with oracle(tool, tmp_path) as port:
        for path in (mortara_ecg, philips_radiograph):
            for to in (port, node.port):
                program, *rest = CLIENTS[name](to, path)
                sent = subprocess.run([tool(program), *rest], capture_output=True, text=True, timeout=60, check=False)
                # GDCM's client stumbles over the end of its association, with either receiver.
                assert sent.returncode == 0 or name == "gdcmscu", sent.stderr
            uid = header_of(path).SOPInstanceUID
            assert stored_data(node, uid) == [kept(tmp_path, uid)]


@contextmanager
def oracle(tool: Callable[[str], str], folder: Path) -> Iterator[int]:
    """DCMTK's receiver in bit-preserving mode; its port."""
    port = free_port()
    command = [tool("storescp"), "+B", "+xa", "-od", str(folder), str(port)]
    peer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: listening(port), 20, "storescp listens")
        yield port
    finally:
        peer.terminate()
        peer.wait()


def kept(folder: Path, uid: str) -> bytes:
    """The data set that it kept."""
    (path,) = folder.glob(f"*{uid}*")
    return from_part10(path.read_bytes()).data


def test_orthanc_sends_what_it_holds(
    listen: Listen,  # noqa: F811
    orthanc: Orthanc,
    tool: Callable[[str], str],
    tmp_path: Path,
    mortara_ecg: Path,
) -> None:
    node = listen()
    posted = json.loads(_post(orthanc, "/instances", mortara_ecg.read_bytes()))
    with oracle(tool, tmp_path) as port:
        for name, to in (("oracle", port), ("pulmolink", node.port)):
            modality = json.dumps({"AET": "PULMOLINK", "Host": "127.0.0.1", "Port": to}).encode()
            _post(orthanc, f"/modalities/{name}", modality, method="PUT")
            _post(orthanc, f"/modalities/{name}/echo", b"{}")
            told = json.loads(_post(orthanc, f"/modalities/{name}/store", posted["ID"].encode()))
            assert told["FailedInstancesCount"] == 0
    uid = header_of(mortara_ecg).SOPInstanceUID
    assert stored_data(node, uid) == [kept(tmp_path, uid)]
    (row,) = node.store.instances()
    assert row.instance.sop_instance_uid == header_of(mortara_ecg).SOPInstanceUID
    assert row.instance.calling_ae == "ORTHANC"


def _post(orthanc: Orthanc, path: str, body: bytes, *, method: str = "POST") -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{orthanc.http_port}{path}", data=body, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return bytes(answer.read())


def test_pynetdicom_sends_every_transfer_syntax_at_hand_byte_for_byte(
    listen: Listen,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)  # the bytes of the file, not encoded anew
    send_each(listen(), [path for path in sorted(CARRIED.rglob("*.dcm")) if path.stat().st_size < 2**21], 8)


def test_every_sample_is_stored_byte_for_byte(
    listen: Listen,  # noqa: F811
    samples: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
    send_each(listen(), sorted((*samples.glob("cxr/*.dcm"), *samples.glob("ecg_dicom/*.dcm"))), 3)


def send_each(node: Listening, paths: list[Path], least_syntaxes: int) -> None:
    """Send each file under a SOP Class that is received; those of other classes go as Secondary Capture."""
    seen: dict[str, int] = {}
    ae = AE(ae_title="PYNET")
    for path in paths:
        content = path.read_bytes()
        try:
            parts = from_part10(content)
            header = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
        except (HeaderUnreadable, InvalidDicomError, AttributeError):
            continue
        if header.get("SOPClassUID") not in RECEIVED and seen.get(parts.transfer_syntax_uid):
            continue
        # Negotiated for what it is; where that is not received, the association shows only that it is refused.
        association = ae.associate(
            "127.0.0.1", node.port, contexts=[build_context(parts.sop_class_uid, parts.transfer_syntax_uid)]
        )
        if parts.sop_class_uid not in RECEIVED:
            assert not association.is_established
            continue
        assert association.is_established, path.name
        answer = association.send_c_store(path)
        association.release()
        assert answer.Status in {0x0000, 0xA900, 0xC000}, path.name
        assert parts.data in stored_data(node, parts.sop_instance_uid)
        seen[parts.transfer_syntax_uid] = seen.get(parts.transfer_syntax_uid, 0) + 1
    assert len(seen) >= least_syntaxes, seen
