"""Whatever a child does that its file has taken over, the worker gets a refusal in bounded time and goes on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from ecg_ingest.lead_images import EcgRefused, RenderStyle
from pacs_node import log
from pacs_node.opening import opener as opener_module
from pacs_node.opening import server
from pacs_node.opening.confinement import DESCRIPTORS, make_fence
from pacs_node.opening.opener import NotOpened, NotOpenedReason, Opener, OpenerUnavailable
from pacs_node.settings import Limits, Log
from tests.unit.opening.misbehaving import BEHAVIOURS

MISBEHAVING = (sys.executable, str(Path(__file__).with_name("misbehaving.py")))
CRASHED, TOO_SLOW, TOO_LARGE = NotOpenedReason.CRASHED, NotOpenedReason.TOO_SLOW, NotOpenedReason.TOO_LARGE
ENDS = {
    "exits": (CRASHED, "status 7"),
    "SIGKILL": (CRASHED, "SIGKILL"),
    "SIGSEGV": (CRASHED, "SIGSEGV"),
    "an array cut off": (CRASHED, "status 0"),
    "lives on": (CRASHED, "SIGKILL"),
    "sleeps": (TOO_SLOW, "limits.opening_seconds"),
    "trickles": (TOO_SLOW, "limits.opening_seconds"),
    "takes memory": (TOO_LARGE, "limits.opening_bytes"),
}
LIARS = sorted(set(BEHAVIOURS) - set(ENDS) - {"dies once", "computes"})


def refusal(opener: Opener, file: bytes) -> NotOpened:
    with pytest.raises(NotOpened) as caught:
        opener.ecg(file, RenderStyle())
    return caught.value


@pytest.mark.parametrize(("version", "level"), [(0, "warning"), (7, "info")])
def test_a_kernel_that_cannot_confine_is_warned_of(
    version: int, level: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(Log())
    packed = server.WAITING
    waiting = SimpleNamespace(size=packed.size, unpack=lambda message: (*packed.unpack(message)[:2], version))
    monkeypatch.setattr(opener_module, "server", SimpleNamespace(**{**vars(server), "WAITING": waiting}))
    with Opener(Limits(opening_bytes=2**29), program=MISBEHAVING) as opener:
        opener.wait_ready()
    (line,) = [json.loads(told) for told in capsys.readouterr().err.splitlines() if "opener_ready" in told]
    assert (line["level"], line["landlock"]) == (level, version)


@pytest.mark.parametrize("name", LIARS)
def test_what_is_no_result_is_not_believed(misbehaving: Opener, name: str) -> None:
    refused = refusal(misbehaving, name.encode())
    assert (refused.reason, refused.detail) == (CRASHED, "what its process answered was no result")


@pytest.mark.parametrize("name", ENDS)
def test_how_it_ended_is_told(misbehaving: Opener, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opener_module, "END_SECONDS", 0.3)
    started = time.monotonic()
    refused = refusal(misbehaving, name.encode())
    reason, detail = ENDS[name]
    assert refused.reason is reason
    assert detail in refused.detail
    assert time.monotonic() - started < 10


def test_processor_time_is_bounded_by_itself_and_not_tried_twice() -> None:
    started = time.monotonic()
    with Opener(Limits(opening_cpu_seconds=1), program=MISBEHAVING) as opener:
        refused = refusal(opener, b"computes")
    assert (refused.reason, "limits.opening_cpu_seconds" in refused.detail) == (TOO_SLOW, True)
    assert time.monotonic() - started < 60


def test_a_child_that_something_else_ended_is_not_held_against_its_file(misbehaving: Opener) -> None:
    """The machine may end it for want of memory, or a person by mistake."""
    with pytest.raises(EcgRefused, match="opened at last"):
        misbehaving.ecg(b"dies once", RenderStyle())


def test_a_child_can_use_nothing_of_the_worker(
    misbehaving: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No credentials, no descriptors; with Landlock no files, no TCP and no signals either."""
    secret, target = tmp_path / "rows.db", tmp_path / "new"
    secret.write_text("patients")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        told = json.dumps([str(secret), str(target), listener.getsockname()[1]])
        detail = refusal(misbehaving, f"looks around\n{told}".encode()).detail
    found = json.loads(detail.removeprefix("its reader failed: "))
    assert found["descriptors"] == 4, "three standard ones and its connection"
    assert found["descriptors"] < DESCRIPTORS
    assert not {name for name in found["knows"] if name.startswith("PULMOLINK")}
    assert not target.exists() or target.stat().st_size == 0
    version = make_fence().version
    if version < 6:
        pytest.skip(f"the kernel has Landlock {version}: files, TCP and signals are not all fenced off")
    assert found["can"] == ["import"]


def test_the_environment_of_a_child_holds_nothing_that_the_worker_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULMOLINK_STORAGE_DATABASE", "postgresql://user:secret@host/name")
    with Opener(Limits()) as opener:
        opener.start()
        opener.wait_ready()
        server = opener.process_id
        assert server is not None
        assert b"secret" not in Path(f"/proc/{server}/environ").read_bytes()


def test_a_program_that_was_ended_is_started_again(opener_of_its_own: Opener) -> None:
    server = opener_of_its_own.process_id
    assert server is not None
    os.killpg(server, signal.SIGKILL)
    with pytest.raises(EcgRefused, match="empty"):
        opener_of_its_own.ecg(b"", RenderStyle())
    assert opener_of_its_own.process_id not in (None, server)


@pytest.fixture
def opener_of_its_own() -> object:
    """A real opener for a test that ends its program."""
    with Opener(Limits()) as running:
        running.wait_ready()
        yield running


@pytest.mark.parametrize(
    "program",
    [
        ("/nowhere/python",),
        (sys.executable, "-c", "raise SystemExit(1)"),
        (sys.executable, "-c", "import os;os.write(0,b'?')"),
    ],
    ids=["missing", "ends", "says something else"],
)
def test_a_program_that_cannot_start_is_no_fault_of_a_file(program: tuple[str, ...]) -> None:
    """Not a refusal: the worker tries the match again."""
    with Opener(Limits(), program=program) as opener, pytest.raises(OpenerUnavailable):
        opener.ecg(b"", RenderStyle())


def test_program_and_child_end_with_the_worker(tmp_path: Path) -> None:
    """Also if it is killed while a child computes."""
    script = tmp_path / "worker.py"
    script.write_text(
        "from ecg_ingest.lead_images import RenderStyle\n"
        "from pacs_node.opening.opener import Opener\n"
        "from pacs_node.settings import Limits\n"
        f"opener = Opener(Limits(), program={MISBEHAVING!r})\n"
        "opener.wait_ready()\n"
        "print(opener.process_id, flush=True)\n"
        "opener.ecg(b'computes', RenderStyle())\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(opener_module.__file__).parents[2])}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment) as worker:
        assert worker.stdout is not None
        group = int(next(line for line in worker.stdout if line.strip().isdigit()))
        children = Path(f"/proc/{group}/task/{group}/children").read_text().split()
        assert children
        worker.kill()
    deadline = time.monotonic() + 10
    while (running := [number for number in (group, *children) if runs(number)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running


def runs(number: int | str) -> bool:
    """Whether a process computes or waits; one that only waits for its parent to ask for its end does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
