"""Broken and hostile peers: each is ended within its bound, and a good client is served meanwhile (issue 3, item 4)."""

from __future__ import annotations

import random
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pacs_node.dicom.pdata import command_pdus
from pacs_node.dicom.wire import ABORT, ASSOCIATE_RJ, INVALID_PARAMETER, P_DATA
from pacs_node.flow.part10 import DataSetBytes, to_part10
from pacs_node.flow.sop_classes import COMPUTED_RADIOGRAPHY
from storage.records import Disposition
from tests.benchmarks.replay import Line, command
from tests.fuzz.seeds import mutated, seeds
from tests.integration.rig import Node, eventually, listening
from tests.unit.dicom.peers import CONTEXTS, EXPLICIT, Listening, aborted, answer, film, pdu, pdv, request, stored

Listen = Callable[..., Listening]
STORE = command_pdus(3, command(1, 1, COMPUTED_RADIOGRAPHY, "1.2.3"), 0)
SEED = 20261122


DEFLATED = (CONTEXTS[0], (COMPUTED_RADIOGRAPHY, str(DeflatedExplicitVRLittleEndian)))


def bomb(mebibytes: int) -> bytes:
    """A deflated data set of a long value and nothing that is asked for, as a Part 10 file."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    filler = struct.pack("<HH2sHI", 0x0009, 0x1001, b"UN", 0, (mebibytes << 20) - 12)
    data = b"".join((deflater.compress(filler), *(deflater.compress(bytes(2**20)) for _ in range(mebibytes))))
    return to_part10(
        DataSetBytes(
            sop_class_uid=COMPUTED_RADIOGRAPHY,
            sop_instance_uid="1.2.3",
            transfer_syntax_uid=str(DeflatedExplicitVRLittleEndian),
            data=data + deflater.flush(),
        )
    )


def peak_bytes(process: subprocess.Popen[bytes]) -> int:
    """The most memory that a process ever had at once."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@contextmanager
def receiving(folder: Path, extra: str = "") -> Iterator[tuple[Node, subprocess.Popen[bytes]]]:
    """A receiver process."""
    node = Node(folder, extra=f"{extra}[log]\nlevel = 'error'\n")
    node.configure()
    with (folder / "receiver.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pacs_node", "--config", str(node.config), "receive"], stderr=log
        )
    try:
        eventually(lambda: process.poll() is not None or listening(node.port), 30, "the receiver listens")
        yield node, process
    finally:
        process.kill()
        process.wait()


@contextmanager
def many(node: Listening, count: int, first: bytes) -> Iterator[list[socket.socket]]:
    """So many connections that say `first` and then nothing."""
    connections: list[socket.socket] = []
    try:
        for _ in range(count):
            connection = node.connect()
            connections.append(connection)
            with suppress(OSError):
                connection.sendall(first)
        yield connections
    finally:
        for connection in connections:
            connection.close()


def closed_within(connections: list[socket.socket], seconds: float) -> bool:
    """Whether the server closes every one of them in that time."""
    deadline = time.monotonic() + seconds
    for connection in connections:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            answer(connection)
        except TimeoutError:
            return False
    return True


class TestSlowPeers:
    def test_five_hundred_connections_of_one_byte_end_within_the_deadline_and_a_good_client_is_served(
        self, listen: Listen
    ) -> None:
        node = listen(limits={"association_seconds": 3})
        began = time.monotonic()
        with many(node, 500, b"\x01") as connections:
            node.serves(within_seconds=1.0)
            assert threading.active_count() < 200
            assert closed_within(connections, 3 + 3 - (time.monotonic() - began))
            assert time.monotonic() - began < 6
        node.serves()

    @pytest.mark.parametrize("first", [b"", b"\x01\x00\x00", request()[:80]], ids=["silent", "three bytes", "half"])
    def test_a_request_that_never_ends_is_closed(self, listen: Listen, first: bytes) -> None:
        node = listen(limits={"association_seconds": 1})
        with many(node, 3, first) as connections:
            assert closed_within(connections, 3.5)

    def test_a_request_that_drips_is_closed_although_something_always_comes(self, listen: Listen) -> None:
        node = listen(limits={"association_seconds": 1})
        with node.connect() as connection:
            began = time.monotonic()
            with suppress(OSError):
                for byte in request():
                    connection.sendall(bytes((byte,)))
                    time.sleep(0.05)
                    if time.monotonic() - began > 5:
                        break
            assert time.monotonic() - began < 4

    def test_silence_on_an_association_is_aborted(self, listen: Listen) -> None:
        node = listen(limits={"network_timeout_seconds": 1})
        line = node.associate()
        began = time.monotonic()
        assert line.pdu()[0] == ABORT
        assert 0.9 < time.monotonic() - began < 3
        line.close()

    def test_a_pdu_that_drips_is_aborted(self, listen: Listen) -> None:
        node = listen(limits={"pdu_seconds": 1, "network_timeout_seconds": 10})
        line = node.associate()
        whole = stored(film())
        began = time.monotonic()
        with suppress(OSError):
            for byte in whole:
                line.socket.sendall(bytes((byte,)))
                time.sleep(0.02)
                if time.monotonic() - began > 6:
                    break
        assert time.monotonic() - began < 5
        line.close()
        assert node.files() == 0

    def test_fragments_of_nothing_without_end_are_aborted(self, listen: Listen) -> None:
        node = listen(limits={"message_seconds": 1})
        line = node.associate()
        line.socket.sendall(STORE)
        began = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - began < 6:
                line.socket.sendall(pdu(P_DATA, pdv(3, 0, b"")) * 100)
        assert time.monotonic() - began < 4
        line.close()
        assert node.files() == 0

    def test_a_peer_that_reads_nothing_holds_nobody_else(self, listen: Listen) -> None:
        node = listen()
        with node.connect() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            deaf.sendall(request() + command_pdus(1, command(0x30, 1, CONTEXTS[0][0]), 0) * 2000)
            node.serves()


class TestGreedyPeers:
    def test_a_message_far_beyond_the_limit_is_aborted_and_leaves_nothing(self, listen: Listen) -> None:
        node = listen(limits={"object_bytes": 2**20})
        line = node.associate()
        line.socket.sendall(STORE)
        piece = pdu(P_DATA, pdv(3, 0, bytes(100_000)))
        line.socket.settimeout(20)
        whole = piece * 2000
        before = psutil.Process().memory_info().rss
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
            line.socket.sendall(whole)
        assert psutil.Process().memory_info().rss - before < 32 * 2**20
        line.close()
        assert node.files() == 0
        node.serves()

    def test_connections_beyond_the_bound_push_out_the_one_that_waits_longest(self, listen: Listen) -> None:
        node = listen(limits={"connections": 10, "connections_per_peer": 10, "association_seconds": 30})
        good = node.associate()
        with many(node, 40, b"\x01"):
            assert node.server.counts()[0] <= 10
            assert good.echo() == 0
            node.serves()
        good.release()

    def test_established_associations_are_never_pushed_out(self, listen: Listen) -> None:
        node = listen(limits={"connections": 4, "connections_per_peer": 4})
        lines = [node.associate() for _ in range(4)]
        with node.connect() as connection:
            assert answer(connection) == b""
        assert [line.echo() for line in lines] == [0] * 4
        for line in lines:
            line.release()

    def test_a_length_of_four_gibibytes_costs_no_memory(self, listen: Listen) -> None:
        node = listen()
        before = psutil.Process().memory_info().rss
        for told in (struct.pack(">BxI", 1, 0xFFFFFFFF), request() + struct.pack(">BxI", P_DATA, 0xFFFFFFFF)):
            with node.connect() as connection:
                connection.sendall(told + bytes(1000))
                assert aborted(answer(connection)) == INVALID_PARAMETER
        assert psutil.Process().memory_info().rss - before < 16 * 2**20


class TestHostileObjects:
    @pytest.mark.parametrize(("undefined", "status"), [(True, 0xC000), (False, 0)], ids=["followed", "stepped over"])
    @pytest.mark.parametrize("depth", [65, 5_000])
    def test_sequences_in_sequences_are_held_if_they_must_be_followed_and_else_stepped_over(
        self, listen: Listen, depth: int, undefined: bool, status: int
    ) -> None:
        from tests.unit.flow.test_index import sequences

        node = listen()
        content = film() + sequences(depth, undefined=undefined, tag=(0x0054, 0x0220))
        line = node.associate()
        line.socket.sendall(stored(content))
        assert line.status() == status
        assert line.echo() == 0
        line.release()

    def test_a_deflate_bomb_is_held_and_takes_little_memory(self, listen: Listen) -> None:
        node = listen()
        line = node.associate(DEFLATED)
        before = psutil.Process().memory_info().rss
        line.socket.sendall(stored(bomb(400)))
        assert line.status() == 0xC000
        assert psutil.Process().memory_info().rss - before < 128 * 2**20
        line.release()

    def test_eight_deflate_bombs_at_once_take_little_more_memory_than_one(self, tmp_path: Path) -> None:
        """Each inflates to less than the bound of a data set, and to more than that of a header; the peak counts."""
        with receiving(tmp_path / "node") as (node, process):
            lines = [Line("127.0.0.1", node.port, "PULMOLINK", DEFLATED) for _ in range(8)]
            content = stored(bomb(250))
            before = peak_bytes(process)
            for line in lines:
                line.socket.sendall(content)
            assert [line.status() for line in lines] == [0xC000] * 8
            assert peak_bytes(process) - before < 160 * 2**20  # header_bytes (64 MiB), and what the eight need besides
            for line in lines:
                line.release()

    def test_a_picture_that_says_it_is_65535_by_65535_costs_what_it_weighs(self, listen: Listen) -> None:
        """Pixels are opened later, by the worker's child; reception believes nothing of them."""
        node = listen()
        line = node.associate()
        pixels = struct.pack("<HH2sxxI", 0x7FE0, 0x0010, b"OW", 4) + bytes(4)
        before = psutil.Process().memory_info().rss
        line.socket.sendall(stored(film(Rows=65535, Columns=65535, BitsAllocated=16) + pixels))
        assert line.status() == 0
        assert psutil.Process().memory_info().rss - before < 16 * 2**20
        line.release()

    @pytest.mark.parametrize("cut", [1, 5, 20, 70])
    def test_values_that_are_cut_short_are_held_and_said_to_be(self, listen: Listen, cut: int) -> None:
        node = listen()
        line = node.associate()
        line.socket.sendall(stored(film()[:-cut]))
        assert line.status() == 0xC000
        (row,) = node.store.instances()
        assert row.instance.disposition is Disposition.HELD
        assert row.instance.reason.startswith("unreadable")
        assert line.echo() == 0
        line.release()

    def test_more_contexts_than_the_standard_has_numbers_for_are_rejected(self, listen: Listen) -> None:
        node = listen()
        whole = request([(COMPUTED_RADIOGRAPHY, EXPLICIT)] * 128)
        at = whole.index(b"\x20\x00", 74)
        item = whole[at : at + 4 + int.from_bytes(whole[at + 2 : at + 4], "big")]
        body = whole[6:at] + item + whole[at:]
        with node.connect() as connection:
            connection.sendall(pdu(1, body))
            assert answer(connection)[0] == ASSOCIATE_RJ
        node.serves()

    @pytest.mark.parametrize("preamble", [b"MZ\x90\x00", b"\x7fELF", b"II*\x00"])
    def test_a_program_in_the_preamble_is_not_stored(self, listen: Listen, preamble: bytes) -> None:
        """A network object has no preamble; what is stored begins with 128 blank bytes whatever came."""
        node = listen()
        line = node.associate()
        data = preamble + bytes(124) + film()[128:]
        line.socket.sendall(STORE + pdu(P_DATA, pdv(3, 2, data)))
        line.status()
        line.release()
        for row in node.store.instances():
            assert node.objects.get(row.instance.sha256)[:132] == bytes(128) + b"DICM"


def converse(port: int, told: bytes) -> None:
    """Say all of it, half-close, and wait for the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection, suppress(ConnectionError):
        connection.sendall(told)
        connection.shutdown(socket.SHUT_WR)
        answer(connection)


def served(port: int, within_seconds: float) -> None:
    """Pass if a good client's association, C-ECHO and release succeed in that time."""
    began = time.monotonic()
    line = Line("127.0.0.1", port, "PULMOLINK", CONTEXTS)
    assert line.echo() == 0
    line.release()
    assert time.monotonic() - began < within_seconds


def attack(folder: Path, count: int) -> None:
    """So many mutated conversations from four peers with a receiver process, a good client beside them; fixed seed."""
    quick = "[limits]\nassociation_seconds = 2\npdu_seconds = 2\nnetwork_timeout_seconds = 2\n"
    corpus = seeds("conversation")
    with receiving(folder, quick) as (node, process):
        for number in range(200):  # warm up before memory is compared
            converse(node.port, mutated(random.Random(number), corpus))
        watched = psutil.Process(process.pid)
        before = watched.memory_info().rss
        failed: list[BaseException] = []

        def talk(number: int) -> None:
            chance = random.Random(SEED + number)
            try:
                for _ in range(count // 4):
                    converse(node.port, mutated(chance, corpus))
            except Exception as error:  # noqa: BLE001 - told to the test
                failed.append(error)

        threads = [threading.Thread(target=talk, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        good = 0
        while any(thread.is_alive() for thread in threads):
            served(node.port, within_seconds=5.0)
            good += 1
            time.sleep(0.05)
        assert not failed
        assert good > 0
        assert process.poll() is None
        assert watched.memory_info().rss - before < 64 * 2**20
        served(node.port, within_seconds=5.0)
        assert (folder / "receiver.log").read_bytes() == b""


def test_two_thousand_mutated_conversations_never_stop_a_receiver(tmp_path: Path) -> None:
    attack(tmp_path / "node", 2_000)


@pytest.mark.long
def test_a_hundred_thousand_mutated_conversations_never_stop_a_receiver(tmp_path: Path) -> None:
    attack(tmp_path / "node", 100_000)
