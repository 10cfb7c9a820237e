"""Connections are taken as long as the receiver runs, whatever fails on the way; if that ends, so does the process."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from pacs_node import log
from pacs_node.settings import Log
from tests.integration.rig import eventually, free_port
from tests.unit.dicom.peers import Listening, answer

Listen = Callable[..., Listening]
ROOT = Path(__file__).parents[3]


class BrokenStream:
    """Standard error on a full disk, or closed."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def write(self, _text: str) -> int:
        """Fail."""
        raise self.error

    def flush(self) -> None:
        """Fail."""
        raise self.error


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("closed file")])
def test_a_log_that_cannot_be_written_raises_nothing(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    log.configure(Log())
    monkeypatch.setattr(sys, "stderr", BrokenStream(error))
    structlog.get_logger().error("lost")


def test_what_a_library_says_names_an_error_only_where_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(Log())
    logging.getLogger("library").error("of patient 1234")
    try:
        raise ValueError("1234")
    except ValueError:
        logging.getLogger("library").exception("of patient 1234")
    plain, failed = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert "error" not in plain
    assert failed["error"] == "ValueError"
    assert "1234" not in f"{plain} {failed}"


def test_a_fault_at_one_connection_costs_that_one(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    node = listen(limits={"connections_per_peer": 1})
    line = node.associate()
    with monkeypatch.context() as patch:

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError

        patch.setattr(node.audit, "refused", fail)
        with node.connect() as connection:
            assert answer(connection) == b""
    line.release()
    eventually(lambda: node.server.counts()[0] == 0, 5, "the association is forgotten")
    assert node.server.accepting
    node.serves(5)
    assert node.counts()["cut", "internal"] == 1


def test_a_receiver_that_takes_no_connections_ends_and_says_so(tmp_path: Path) -> None:
    """So that whoever supervises it starts it again."""
    program = (
        "from pacs_node.cli import main; from pacs_node.dicom.server import StorageServer; "
        "StorageServer._accept_all = lambda *_: None; main()"
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PULMOLINK_")},
        "PYTHONPATH": str(ROOT),
        "PULMOLINK_NODE_PORT": str(free_port()),
        "PULMOLINK_STORAGE_DATABASE": f"sqlite:///{tmp_path / 'rows.db'}",
        "PULMOLINK_STORAGE_OBJECTS": str(tmp_path / "objects"),
    }
    ended = subprocess.run(
        [sys.executable, "-c", program, "receive"],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "connections were taken no more" in ended.stderr
