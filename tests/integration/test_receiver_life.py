"""The life of the receiver's process: it starts or says why not, shares its port, reloads, drains (issue 3)."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pacs_node import service
from pacs_node.dicom.wire import ABORT
from pacs_node.settings import load
from storage.database import upgrade
from storage.store import Store
from tests.benchmarks.replay import Line
from tests.certificates import Authority
from tests.integration.rig import Node, eventually, free_port, listening
from tests.unit.dicom.peers import CONTEXTS, film, stored

READY = '"event": "listening"'


@dataclass
class Receiving:
    """`pulmolink receive` as processes on one port, in a folder of their own."""

    folder: Path
    port: int
    processes: list[subprocess.Popen[bytes]]

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "pulmolink.toml"

    @property
    def url(self) -> str:
        """Of the database."""
        return f"sqlite:///{self.folder}/rows.db"

    def configure(self, node: str = "", more: str = "") -> None:
        """Write the file; `node` are further lines of [node], `more` further sections."""
        self.config.write_text(
            f'[node]\nport = {self.port}\n{node}\n[storage]\ndatabase = "{self.url}"\n'
            f'objects = "{self.folder}/objects"\n{more}\n',
            encoding="utf-8",
        )

    def log(self, process: subprocess.Popen[bytes]) -> str:
        """What a process wrote to standard error."""
        return (self.folder / f"{self.processes.index(process)}.log").read_text(encoding="utf-8")

    def start(self, *, wait: bool = True) -> subprocess.Popen[bytes]:
        """Start one more and wait until it listens."""
        with (self.folder / f"{len(self.processes)}.log").open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "pacs_node", "--config", str(self.config), "receive"],
                stdin=subprocess.DEVNULL,
                stderr=stream,
            )
        self.processes.append(process)
        if wait:
            eventually(lambda: READY in self.log(process) or process.poll() is not None, 60, "it listens")
            assert process.poll() is None, self.log(process)
        return process

    def associate(self) -> Line:
        """An association."""
        return Line("127.0.0.1", self.port, "PULMOLINK", CONTEXTS)

    def uids(self) -> list[str]:
        """What was received."""
        with Store.open(self.url) as store:
            return [row.instance.sop_instance_uid for row in store.instances()]


@pytest.fixture
def receiving(tmp_path: Path) -> Iterator[Receiving]:
    """None started yet."""
    receiving = Receiving(folder=tmp_path, port=free_port(), processes=[])
    receiving.configure()
    upgrade(receiving.url)
    yield receiving
    for process in receiving.processes:
        if process.poll() is None:
            process.kill()
        process.wait()


class TestStarting:
    def test_a_port_in_use_is_said_with_its_key(self, receiving: Receiving) -> None:
        with socket.create_server(("127.0.0.1", receiving.port)):
            process = receiving.start(wait=False)
            assert process.wait(timeout=60) == 1
        assert f"cannot listen on 127.0.0.1:{receiving.port}: Address already in use (node.host, node.port)" in (
            receiving.log(process)
        )

    def test_a_foreign_process_that_would_share_the_port_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Receivers share their port among themselves; `serve` must not join somebody else's."""
        monkeypatch.setattr(service, "PORT_WAIT_SECONDS", 0.3)
        with socket.create_server(("127.0.0.1", 0), reuse_port=True) as foreign:
            port = foreign.getsockname()[1]
            with pytest.raises(OSError, match="Address already in use"):
                service.wait_for_port("127.0.0.1", port)
        service.wait_for_port("127.0.0.1", port)

    def test_a_predecessor_that_still_leaves_is_waited_for(self) -> None:
        leaving = socket.create_server(("127.0.0.1", 0))
        port = leaving.getsockname()[1]
        later = threading.Timer(0.5, leaving.close)
        later.start()
        service.wait_for_port("127.0.0.1", port)
        later.join()

    def test_an_address_that_is_not_ours_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def waited(_seconds: float) -> None:
            raise AssertionError("waited")

        monkeypatch.setattr(service.time, "sleep", waited)
        with pytest.raises(OSError, match="Cannot assign requested address"):
            service.wait_for_port("192.0.2.1", free_port())

    def test_a_part_of_serve_that_cannot_start_says_so_in_the_form_of_the_log(self, receiving: Receiving) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            receiving.configure(more=f"[web]\nport = {port}")
            ended = subprocess.run(
                [sys.executable, "-m", "pacs_node", "web", "--supervised"],
                input=load(receiving.config, {}).model_dump_json() + "\n",
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        assert ended.returncode == 2
        lines = [json.loads(line) for line in ended.stderr.splitlines()]
        assert [line["event"] for line in lines] == ["process_failed"]
        assert f"web.host, web.port: cannot listen on 127.0.0.1:{port}: Address already in use" in lines[0]["reason"]

    def test_a_plain_port_that_is_not_opened_is_not_said_to_be(self, receiving: Receiving) -> None:
        authority = Authority(receiving.folder / "pki")
        files = authority.issue("node")
        receiving.configure(
            more=f'[tls]\nport = {free_port()}\nonly = true\ncertificate = "{files.certificate}"\n'
            f'key = "{files.key}"\nclient_ca = "{authority.file}"'
        )
        told = receiving.log(receiving.start())
        assert '"port": 0' in next(line for line in told.splitlines() if READY in line)
        assert f'"port": {receiving.port}' not in told

    @pytest.mark.parametrize("key", ["storage.objects", "storage.database"])
    def test_a_folder_that_cannot_be_used_is_said_with_its_key(self, receiving: Receiving, key: str) -> None:
        (receiving.folder / "file").touch()
        text = receiving.config.read_text(encoding="utf-8")
        right = {
            "storage.objects": f"{receiving.folder}/objects",
            "storage.database": f"{receiving.folder}/rows.db",
        }[key]
        receiving.config.write_text(text.replace(right, f"{receiving.folder}/file/below"), encoding="utf-8")
        process = receiving.start(wait=False)
        assert process.wait(timeout=60) in {1, 2}
        assert key in receiving.log(process)
        assert f"{receiving.folder}/file" in receiving.log(process)


class TestStopping:
    def test_sigterm_lets_a_message_end_and_ends_the_process(self, receiving: Receiving) -> None:
        process = receiving.start()
        line = receiving.associate()
        whole = stored(film(ImageComments="x" * 9000))
        line.socket.sendall(whole[:6000])
        time.sleep(0.3)
        process.terminate()
        eventually(lambda: not listening(receiving.port), 10, "it listens no more")
        assert process.poll() is None
        line.socket.sendall(whole[6000:])
        assert line.status() == 0
        assert line.pdu()[0] == ABORT
        line.close()
        assert process.wait(timeout=20) == 0
        assert receiving.uids() == ["1.2.3"]

    def test_a_message_that_never_ends_is_cut_after_the_drain_time(self, receiving: Receiving) -> None:
        receiving.configure(more="[limits]\ndrain_seconds = 1")
        process = receiving.start()
        line = receiving.associate()
        line.socket.sendall(stored(film(ImageComments="x" * 9000))[:6000])
        time.sleep(0.3)
        began = time.monotonic()
        process.terminate()
        assert process.wait(timeout=20) == 0
        assert time.monotonic() - began < 10
        line.close()
        assert receiving.uids() == []


class TestSharing:
    def test_receivers_share_the_port_and_one_that_restarts_loses_nothing(self, receiving: Receiving) -> None:
        receiving.configure(node="receivers = 2")
        first, second = receiving.start(), receiving.start()
        acknowledged: list[str] = []
        stop = threading.Event()

        def send(sender: int) -> None:
            number = 0
            while not stop.is_set():
                uid = f"1.2.{sender}.{number}"
                with suppress(OSError):  # a rejection and a broken association are ConnectionErrors: sent again
                    line = receiving.associate()
                    try:
                        line.socket.sendall(stored(film(uid)))
                        if line.status() == 0:
                            acknowledged.append(uid)
                            number += 1
                    finally:
                        line.close()

        def accepted(process: subprocess.Popen[bytes]) -> int:
            return receiving.log(process).count("association_accepted")

        senders = [threading.Thread(target=send, args=(sender,)) for sender in range(1, 4)]
        for sender in senders:
            sender.start()
        try:
            eventually(lambda: min(accepted(first), accepted(second)) > 5, 30, "both serve")
            first.terminate()
            assert first.wait(timeout=30) == 0
            before = accepted(second)
            eventually(lambda: accepted(second) > before + 5, 30, "the other goes on alone")
            third = receiving.start()
            eventually(lambda: accepted(third) > 5, 30, "the new one serves")
            second.kill()
            second.wait()
            before = accepted(third)
            eventually(lambda: accepted(third) > before + 5, 30, "and goes on alone, too")
        finally:
            stop.set()
            for sender in senders:
                sender.join()
        assert set(acknowledged) <= set(receiving.uids())


class TestReloading:
    def reload(self, receiving: Receiving, process: subprocess.Popen[bytes], event: str) -> str:
        """SIGHUP; the line of the log that answers it."""
        count = receiving.log(process).count(event)
        process.send_signal(signal.SIGHUP)
        eventually(lambda: receiving.log(process).count(event) > count, 10, event)
        return next(line for line in reversed(receiving.log(process).splitlines()) if event in line)

    def test_sources_change_while_an_association_goes_on_and_a_port_waits(self, receiving: Receiving) -> None:
        process = receiving.start()
        line = receiving.associate()
        receiving.configure(
            more='[[sources]]\nae_title = "OTHER"\nhost = "127.0.0.1"\n[web]\nport = 1\n[tls]\nport = 0'
        )
        told = self.reload(receiving, process, "settings_reread")
        assert '"changed": ["sources"]' in told
        assert '"needs_restart": ["web.port"]' in told
        eventually(lambda: "settings_changed" in receiving.log(process), 10, "the change is audited")
        with pytest.raises(ConnectionError):
            receiving.associate()
        assert line.echo() == 0
        line.socket.sendall(stored(film()))
        assert line.status() == 0
        line.release()
        right = receiving.config.read_text(encoding="utf-8")
        receiving.config.write_text(
            right.replace(f"port = {receiving.port}", "port = 4").replace("OTHER", "REPLAY"), encoding="utf-8"
        )
        assert '"needs_restart": ["node.port", "web.port"]' in self.reload(receiving, process, "settings_reread")
        eventually(lambda: receiving.log(process).count("settings_changed") == 2, 10, "taken over")
        receiving.associate().release()

    def test_a_wrong_file_is_said_and_changes_nothing(self, receiving: Receiving) -> None:
        process = receiving.start()
        receiving.configure(more='[[sources]]\nae_title = "OTHER"\nhst = "127.0.0.1"')
        told = self.reload(receiving, process, "settings_refused")
        assert "sources.0.hst: unknown key" in told
        receiving.associate().release()

    def test_serve_hands_new_settings_to_its_parts(self, tmp_path: Path) -> None:
        node = Node(folder=tmp_path / "node")
        node.configure()
        text = node.config.read_text(encoding="utf-8")
        with node:
            assert node.process is not None
            eventually(lambda: "model_loaded" in node.log, 120, "the worker is ready")
            before = parts(node)
            line = Line("127.0.0.1", node.port, "PULMOLINK", CONTEXTS)
            node.config.write_text("[node\n", encoding="utf-8")
            node.process.send_signal(signal.SIGHUP)
            eventually(lambda: "settings_refused" in node.log, 20, "the wrong file is said")
            node.config.write_text(f'{text}[[sources]]\nae_title = "OTHER"\nhost = "127.0.0.1"\n', encoding="utf-8")
            node.process.send_signal(signal.SIGHUP)
            eventually(lambda: node.log.count("process_starts_again") == 3, 120, "three parts start again")
            eventually(lambda: node.log.count("model_loaded") == 2, 120, "the worker is ready again")
            assert line.echo() == 0
            line.release()
            with pytest.raises(ConnectionError):
                Line("127.0.0.1", node.port, "PULMOLINK", CONTEXTS)
            after = parts(node)
            assert after["receive"] == before["receive"]
            assert all(after[name] != before[name] for name in ("work", "schedule", "web"))
            assert "process_ended" not in node.log
            assert node.stop() == 0


def parts(node: Node) -> dict[str, int]:
    """Process ids of the parts of `serve` by their command."""
    assert node.process is not None
    children = psutil.Process(node.process.pid).children()
    return {child.cmdline()[-2]: child.pid for child in children if child.cmdline()[-1:] == ["--supervised"]}
