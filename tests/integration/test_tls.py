"""DICOM over TLS: which peers get through, which do not and why, and what a running server takes over (PS3.15 B.12)."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pacs_node.commands import doctor
from pacs_node.dicom import tls
from pacs_node.dicom.client import Conversation, Unreachable
from pacs_node.dicom.wire import ABORT, ASSOCIATE_AC
from pacs_node.flow.deliver import peer_of
from pacs_node.flow.part10 import from_part10
from pacs_node.flow.sop_classes import COMPUTED_RADIOGRAPHY
from pacs_node.settings import Destination, Settings, Source, Tls
from tests.benchmarks.replay import Line
from tests.certificates import DAY, Authority, Files
from tests.integration.rig import eventually, free_port, listening, storescu
from tests.unit.dicom.conftest import empty_database, listen  # noqa: F401 - fixtures
from tests.unit.dicom.peers import CONTEXTS, EXPLICIT, Listening, film, request, stored

Listen = Callable[..., Listening]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The hospital's authority."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def node_files(authority: Authority) -> Files:
    """The certificate of the node."""
    return authority.issue("node")


@pytest.fixture(scope="module")
def cart(authority: Authority) -> Files:
    """The certificate of an ECG cart."""
    return authority.issue("cart")


@pytest.fixture
def secure(listen: Listen, authority: Authority, node_files: Files) -> Listen:  # noqa: F811
    """Starts a server with a TLS port; keyword arguments are further sections, `tls` adds keys."""

    def start(**sections: object) -> Listening:
        # Asked for together: asked for one after the other they may be the same.
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            plain, tls_port = one.getsockname()[1], other.getsockname()[1]
        keys = {
            "port": tls_port,
            "certificate": str(node_files.certificate),
            "key": str(node_files.key),
            "client_ca": str(authority.file),
            **dict(sections.pop("tls", {})),  # type: ignore[call-overload]
        }
        return listen(tls=keys, node={"port": plain}, **sections)

    return start


class SecureLine(Line):
    """An association over an established TLS connection."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self.socket = connection
        self._file = connection.makefile("rb", buffering=65536)
        connection.sendall(request())
        kind, _ = self.pdu()
        assert kind == ASSOCIATE_AC
        self.pdu_bytes = 131072


def client(authority: Authority, files: Files | None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """The context of a sender; `version`: no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.file)
    if files is not None:
        context.load_cert_chain(files.certificate, files.key)
    if version is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            if version < ssl.TLSVersion.TLSv1_2:
                context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
    return context


@contextmanager
def spoken(node: Listening, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """A connection to the TLS port."""
    plain = socket.create_connection(("127.0.0.1", node.settings.tls.port), timeout=10)
    with plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
        yield connection


def serves(node: Listening, context: ssl.SSLContext, within_seconds: float = 1.0) -> None:
    """Pass if association, C-ECHO and release succeed over TLS in that time."""
    began = time.monotonic()
    with spoken(node, context) as connection:
        line = SecureLine(connection)
        assert line.echo() == 0
        line.release()
    assert time.monotonic() - began < within_seconds


def refused(node: Listening, context: ssl.SSLContext) -> None:
    """Pass if no association comes about."""
    told = b""
    with suppress(OSError), spoken(node, context) as connection:
        connection.sendall(request())  # with TLS 1.3 the refusal comes after our side is done
        told = connection.recv(1)
    assert told == b""


def counted(node: Listening, reason: str) -> None:
    """Pass if one connection was refused, for this reason, within a moment."""
    eventually(lambda: node.counts().get(("refused", reason)), 5, reason)
    assert {key: times for key, times in node.counts().items() if key[0] == "refused"} == {("refused", reason): 1}


class TestWhoGetsThrough:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_tls_1_2_and_1_3_are_spoken(
        self, secure: Listen, authority: Authority, cart: Files, version: ssl.TLSVersion
    ) -> None:
        node = secure()
        serves(node, client(authority, cart, version))
        assert node.counts() == {("accepted", ""): 1}

    def test_1_3_is_preferred_and_1_2_has_ephemeral_keys_and_authenticated_encryption(
        self, secure: Listen, authority: Authority, cart: Files
    ) -> None:
        node = secure()
        with spoken(node, client(authority, cart)) as connection:
            assert connection.version() == "TLSv1.3"
        for cipher, agreed in (("ECDHE-ECDSA-AES128-GCM-SHA256", True), ("ECDHE-ECDSA-AES128-SHA256", False)):
            context = client(authority, cart, ssl.TLSVersion.TLSv1_2)
            context.set_ciphers(cipher)
            if agreed:
                serves(node, context)
            else:
                refused(node, context)
        counted(node, "tls_version_or_cipher")

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
    def test_older_versions_are_refused(
        self, secure: Listen, authority: Authority, node_files: Files, cart: Files, version: ssl.TLSVersion
    ) -> None:
        context = client(authority, cart, version)
        assert speaks_to_an_old_server(context, node_files)  # else the refusal would not be ours
        node = secure()
        refused(node, context)
        counted(node, "tls_version_or_cipher")

    def test_plain_dicom_on_the_tls_port_is_closed_and_on_its_own_port_served(self, secure: Listen) -> None:
        node = secure()
        with socket.create_connection(("127.0.0.1", node.settings.tls.port), timeout=10) as connection:
            connection.sendall(request())
            told = b""
            with suppress(ConnectionError):
                while piece := connection.recv(4096):
                    told += piece
        assert b"PULMOLINK" not in told
        assert not told or told[0] == 0x15  # a TLS alert, no PDU
        counted(node, "tls_not_spoken")
        node.serves()

    def test_tls_only_opens_no_plain_port(self, secure: Listen, authority: Authority, cart: Files) -> None:
        node = secure(tls={"only": True})
        serves(node, client(authority, cart))
        with pytest.raises(ConnectionRefusedError):
            node.connect()

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_a_peer_without_a_certificate_is_refused(
        self, secure: Listen, authority: Authority, version: ssl.TLSVersion
    ) -> None:
        node = secure()
        refused(node, client(authority, None, version))
        counted(node, "tls_no_certificate")

    def test_unless_none_is_required(self, secure: Listen, authority: Authority, cart: Files) -> None:
        node = secure(tls={"require_client_certificate": False})
        serves(node, client(authority, None))
        serves(node, client(authority, cart))

    @pytest.mark.parametrize(
        ("begins", "ends", "reason"),
        [(-DAY * 9, -DAY, "tls_certificate_expired"), (DAY, DAY * 9, "tls_certificate_refused")],
    )
    def test_a_certificate_out_of_its_time_is_refused(
        self, secure: Listen, authority: Authority, begins: timedelta, ends: timedelta, reason: str
    ) -> None:
        node = secure()
        refused(node, client(authority, authority.issue("late", begins=begins, ends=ends)))
        counted(node, reason)

    def test_a_certificate_of_another_authority_is_refused(
        self, secure: Listen, authority: Authority, tmp_path: Path
    ) -> None:
        node = secure()
        refused(node, client(authority, Authority(tmp_path / "foreign").issue("cart")))
        counted(node, "tls_certificate_refused")

    def test_a_client_that_refuses_our_certificate_is_counted(
        self, secure: Listen, cart: Files, tmp_path: Path
    ) -> None:
        node = secure()
        refused(node, client(Authority(tmp_path / "foreign"), cart))
        counted(node, "tls_failed")


class TestSources:
    @pytest.mark.parametrize("named", ["fingerprint", "CN=cart", "O=Test Hospital, CN=cart"])
    def test_a_source_is_bound_to_its_certificate(
        self, secure: Listen, authority: Authority, cart: Files, named: str
    ) -> None:
        certificate = cart.fingerprint if named == "fingerprint" else named
        source = {"ae_title": "REPLAY", "host": "127.0.0.1", "certificate": certificate}
        node = secure(sources=[source])
        serves(node, client(authority, cart))
        with spoken(node, client(authority, authority.issue("other"))) as connection:
            connection.sendall(request())
            assert connection.recv(1)[0] == 3  # A-ASSOCIATE-RJ
        with node.connect() as connection:  # and without TLS it shows none
            connection.sendall(request())
            assert connection.recv(1)[0] == 3
        assert node.counts() == {("accepted", ""): 1, ("rejected", "certificate"): 2}

    def test_a_certificate_is_replaced_by_naming_both_for_a_while(
        self, secure: Listen, authority: Authority, cart: Files
    ) -> None:
        other = authority.issue("cart-2")
        entry = {"ae_title": "REPLAY", "host": "127.0.0.1"}
        node = secure(sources=[entry | {"certificate": files.fingerprint} for files in (cart, other)])
        serves(node, client(authority, cart))
        serves(node, client(authority, other))


class TestSlowPeers:
    def test_a_good_client_is_served_beside_fifty_silent_ones(
        self, secure: Listen, authority: Authority, cart: Files
    ) -> None:
        node = secure(limits={"association_seconds": 2})
        silent = [socket.create_connection(("127.0.0.1", node.settings.tls.port)) for _ in range(50)]
        try:
            for connection in silent[25:]:
                connection.sendall(b"\x16\x03\x01")  # the beginning of a ClientHello
            serves(node, client(authority, cart), within_seconds=1.0)
            deadline = time.monotonic() + 2 + 3
            for connection in silent:
                connection.settimeout(max(0.1, deadline - time.monotonic()))
                with suppress(ConnectionError):
                    assert connection.recv(100) == b""
        finally:
            for connection in silent:
                connection.close()
        assert node.counts()["refused", "tls_too_slow"] == 50

    def test_a_port_probe_is_no_event(self, secure: Listen) -> None:
        node = secure()
        socket.create_connection(("127.0.0.1", node.settings.tls.port)).close()
        eventually(lambda: node.server.counts()[0] == 0, 5, "the connection is gone")
        assert node.counts() == {}

    def test_silence_on_an_association_is_aborted(self, secure: Listen, authority: Authority, cart: Files) -> None:
        node = secure(limits={"network_timeout_seconds": 1})
        with spoken(node, client(authority, cart)) as connection:
            assert SecureLine(connection).pdu()[0] == ABORT
        eventually(lambda: node.counts().get(("cut", "too_slow")) == 1, 5, "the cut is counted")

    def test_a_message_that_drips_is_aborted(self, secure: Listen, authority: Authority, cart: Files) -> None:
        node = secure(limits={"pdu_seconds": 1})
        with spoken(node, client(authority, cart)) as connection:
            line = SecureLine(connection)
            began = time.monotonic()
            with suppress(OSError):
                for byte in stored(film()):
                    line.socket.sendall(bytes((byte,)))
                    time.sleep(0.02)
                    if time.monotonic() - began > 6:
                        break
            assert time.monotonic() - began < 5
        assert node.files() == 0

    def test_stopping_lets_a_message_end(self, secure: Listen, authority: Authority, cart: Files) -> None:
        node = secure()
        with spoken(node, client(authority, cart)) as connection:
            line = SecureLine(connection)
            whole = stored(film(ImageComments="x" * 9000))
            line.socket.sendall(whole[:6000])
            time.sleep(0.2)
            stopping = threading.Thread(target=node.server.stop, args=(10.0,))
            stopping.start()
            time.sleep(0.2)
            line.socket.sendall(whole[6000:])
            assert line.status() == 0
            assert line.pdu()[0] == ABORT
        stopping.join(timeout=10)
        assert not stopping.is_alive()


class TestData:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    @pytest.mark.parametrize("pdu_bytes", [9000, 131072])
    def test_objects_arrive_byte_for_byte_however_records_and_pdus_divide_them(
        self, secure: Listen, authority: Authority, cart: Files, version: ssl.TLSVersion, pdu_bytes: int
    ) -> None:
        node = secure()
        films = [film(f"1.2.{number}", ImageComments=f"{number}" * 100_000) for number in range(3)]
        whole = b"".join(stored(content, pdu_bytes=pdu_bytes) for content in films)
        with spoken(node, client(authority, cart, version)) as connection:
            line = SecureLine(connection)
            for start in range(0, len(whole), 70_001):  # none of the boundaries of PDUs or records
                line.socket.sendall(whole[start : start + 70_001])
            assert [line.status() for _ in films] == [0, 0, 0]
            line.release()
        kept = {row.instance.sop_instance_uid: node.objects.get(row.instance.sha256) for row in node.store.instances()}
        assert kept == {f"1.2.{number}": films[number] for number in range(3)}

    def test_dcmtk_sends_over_tls(
        self,
        secure: Listen,
        authority: Authority,
        cart: Files,
        tool: Callable[[str], str],
        mortara_ecg: Path,
        tmp_path: Path,
    ) -> None:
        node = secure()
        program, port = tool("storescu"), str(node.settings.tls.port)
        shown = ["+tls", str(cart.key), str(cart.certificate), "+cf", str(authority.file)]
        ends = ["-aec", "PULMOLINK", "127.0.0.1", port, str(mortara_ecg)]
        sent = subprocess.run([program, *shown, *ends], capture_output=True, text=True, timeout=60, check=False)
        assert sent.returncode == 0, sent.stderr
        assert len(node.store.instances()) == 1
        anonymous = [program, "+tla", "+cf", str(authority.file), *ends]
        assert subprocess.run(anonymous, capture_output=True, timeout=60, check=False).returncode != 0
        assert storescu(program, node.settings.tls.port, mortara_ecg).returncode != 0
        assert len(node.store.instances()) == 1


class TestReload:
    def test_a_replaced_certificate_is_shown_without_a_restart_and_a_broken_one_is_not(
        self, secure: Listen, authority: Authority, cart: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tls, "LOOK_SECONDS", 0.0)
        certificate, key = tmp_path / "node.pem", tmp_path / "node.key"

        def put(files: Files) -> None:
            key.write_bytes(files.key.read_bytes())
            certificate.write_bytes(files.certificate.read_bytes())

        def shown() -> str:
            with spoken(node, client(authority, cart)) as connection:
                return tls.PeerCertificate(connection.getpeercert(binary_form=True) or b"").fingerprint

        first, second = authority.issue("node-1"), authority.issue("node-2")
        put(first)
        node = secure(tls={"certificate": str(certificate), "key": str(key)})
        with spoken(node, client(authority, cart)) as connection:
            line = SecureLine(connection)
            assert shown() == first.fingerprint
            put(second)
            assert shown() == second.fingerprint
            certificate.write_text("no certificate", encoding="ascii")
            assert shown() == second.fingerprint
            certificate.unlink()
            assert shown() == second.fingerprint
            put(first)
            assert shown() == first.fingerprint
            assert line.echo() == 0  # the association made before goes on
            line.release()

    def test_an_authority_that_was_removed_counts_from_the_next_association_on(
        self, secure: Listen, authority: Authority, cart: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No session is resumed: a ticket from before would spare the peer its certificate."""
        monkeypatch.setattr(tls, "LOOK_SECONDS", 0.0)
        other = Authority(tmp_path / "other")
        known = tmp_path / "known.pem"
        known.write_bytes(authority.file.read_bytes())
        node = secure(tls={"client_ca": str(known)})
        context = client(authority, cart)
        serves(node, context)
        known.write_bytes(other.file.read_bytes())
        refused(node, context)

    def test_settings_that_cannot_be_used_leave_the_former_in_force(
        self, secure: Listen, authority: Authority, cart: Files
    ) -> None:
        node = secure()
        wrong = node.settings.model_copy(update={"tls": node.settings.tls.model_copy(update={"key": "/nowhere.key"})})
        with pytest.raises(tls.TlsFault, match=re.escape("tls.key: /nowhere.key cannot be read")):
            node.server.reload(wrong, lambda _origin: pytest.fail("nothing is received"))
        serves(node, client(authority, cart))

    def test_new_sources_count_for_new_associations_and_leave_the_others(
        self, secure: Listen, authority: Authority, cart: Files
    ) -> None:
        node = secure()
        with spoken(node, client(authority, cart)) as connection:
            line = SecureLine(connection)
            others = node.settings.model_copy(update={"sources": (Source(ae_title="ANOTHER", host="127.0.0.1"),)})
            node.server.reload(others, lambda _origin: pytest.fail("nothing is received"))
            with node.connect() as plain:
                plain.sendall(request())
                assert plain.recv(1)[0] == 3
            assert line.echo() == 0
            line.release()


class TestOurOwnFiles:
    def test_are_said_with_file_and_key_if_they_cannot_be_used(
        self, authority: Authority, node_files: Files, cart: Files, tmp_path: Path
    ) -> None:
        empty = tmp_path / "empty.pem"
        empty.touch()
        locked = authority.lock(node_files)
        for keys, why in (
            ({"key": str(cart.key)}, f"tls.key: {cart.key} does not belong to the certificate in"),
            ({"key": "/nowhere"}, "tls.key: /nowhere cannot be read: No such file"),
            ({"certificate": str(empty)}, f"no certificate and key in PEM form in {empty}"),
            ({"key": str(locked)}, f"tls.key: {locked} has a password"),
            ({"client_ca": str(empty)}, f"tls.client_ca: no certificate in PEM form in {empty}"),
        ):
            files = {"certificate": str(node_files.certificate), "key": str(node_files.key), "port": 2762}
            with pytest.raises(tls.TlsFault, match=re.escape(why)):
                tls.server_context(Tls.model_validate(files | keys))

    @pytest.mark.parametrize(
        ("begins", "ends", "warning", "said"),
        [
            (-DAY, DAY * 90, False, "is valid until"),
            (-DAY, DAY * 9, True, "is valid until"),
            (-DAY * 9, -DAY, True, "expired"),
            (DAY, DAY * 90, True, "is valid from"),
        ],
    )
    def test_are_warned_of_when_they_end(
        self, authority: Authority, begins: timedelta, ends: timedelta, warning: bool, said: str
    ) -> None:
        files = authority.issue("own", begins=begins, ends=ends)
        own = tls.standing(Tls(certificate=str(files.certificate), key=str(files.key)), datetime.now(UTC))
        assert own.usable
        assert own.warning is warning
        assert said in own.sentence
        shown = doctor._certificate(Settings(tls=Tls(certificate=str(files.certificate), key=str(files.key))))
        assert (shown.ok, shown.found) == (not warning, own.sentence)


class TestDestinations:
    @pytest.fixture
    def archive(self, tool: Callable[[str], str], authority: Authority, tmp_path: Path) -> Iterator[tuple[int, Path]]:
        """DCMTK's storescp over TLS, which asks for certificates of the authority: its port and folder."""
        files, port, folder = authority.issue("archive"), free_port(), tmp_path / "archive"
        folder.mkdir()
        command = [tool("storescp"), "+tls", str(files.key), str(files.certificate), "+cf", str(authority.file)]
        peer = subprocess.Popen([*command, "-od", str(folder), str(port)], stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: listening(port), 20, "storescp listens")
            yield port, folder
        finally:
            peer.terminate()
            peer.wait()

    def settings(self, own: Files | None, authority: Authority, port: int, host: str = "127.0.0.1") -> Settings:
        destination = Destination(
            name="a", ae_title="A", host=host, port=port, sends=("sr",), tls=True, tls_ca=str(authority.file)
        )
        files = Tls(certificate=str(own.certificate), key=str(own.key)) if own else Tls()
        return Settings(tls=files, destinations=(destination,))

    def test_are_sent_to_over_tls_with_our_certificate(
        self, authority: Authority, node_files: Files, archive: tuple[int, Path], tmp_path: Path
    ) -> None:
        port, folder = archive
        settings = self.settings(node_files, authority, port)
        peer = peer_of(settings.destinations[0], settings)
        file = tmp_path / "film.dcm"
        file.write_bytes(film())
        with Conversation(peer, [(COMPUTED_RADIOGRAPHY, EXPLICIT)]) as conversation:
            assert conversation.echo() == 0
            assert conversation.store(file, sop_class=COMPUTED_RADIOGRAPHY, transfer_syntax=EXPLICIT) == 0
        (kept,) = folder.iterdir()
        assert from_part10(kept.read_bytes()).sop_instance_uid == "1.2.3"
        found = doctor._destination(settings.destinations[0], settings)
        assert re.search(r"C-ECHO answered, accepts sr; TLSv1.[23] \S+, its certificate is valid until 20", found)

    def test_that_are_not_who_they_should_be_get_nothing(
        self, authority: Authority, node_files: Files, archive: tuple[int, Path], tmp_path: Path
    ) -> None:
        port, folder = archive
        foreign = Authority(tmp_path / "foreign")
        for settings, why in (
            (self.settings(node_files, foreign, port), "its certificate is refused"),
            (self.settings(None, authority, port), "no TLS"),
            (self.settings(node_files, authority, port, host="127.0.0.2"), "its certificate is refused: IP address"),
        ):
            peer = peer_of(settings.destinations[0], settings)
            assert peer.tls is not None
            with pytest.raises(Unreachable), Conversation(peer, CONTEXTS):
                pass
            with pytest.raises(tls.TlsFault, match=why):
                tls.call(peer.host, port, peer.tls, 5.0)
        assert list(folder.iterdir()) == []


def speaks_to_an_old_server(context: ssl.SSLContext, files: Files) -> bool:
    """Whether a client's context can speak its version at all, to a server that allows everything."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.set_ciphers("ALL:@SECLEVEL=0")
        server.minimum_version = ssl.TLSVersion.TLSv1
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=lambda: server.wrap_socket(ours, server_side=True).close())
    thread.start()
    with context.wrap_socket(theirs, server_hostname="127.0.0.1") as connection:
        version = connection.version()
    thread.join()
    return version in {"TLSv1", "TLSv1.1"}
