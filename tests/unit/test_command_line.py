"""What a person types and gets: help, exit statuses, lists, and never an estimate without interval and notice."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from ecg_ingest.lead_images import LEADS
from inference.prediction import ModelIdentity, Prediction
from pacs_node.cli import COMMANDS, main, root
from pacs_node.dicom.stack import quiet
from pacs_node.flow.part10 import to_part10
from pacs_node.flow.receive import Incoming, Receiver
from pacs_node.opening import confinement
from pacs_node.settings import load
from storage.database import upgrade
from storage.objects import ObjectStore
from storage.records import Disposition, MatchState
from storage.store import Store
from tests.certificates import Authority
from tests.unit.ecg.test_ecg_aecg import Sequences, aecg
from tests.unit.flow.headers import NOON, at, encoded, identified, radiograph, waveform

HEAVY = (
    "torch",
    "timm",
    "highdicom",
    "pydicom",
    "sqlalchemy",
    "pynetdicom",
    "numpy",
    "PIL",
    "cv2",
    "reportlab",
    "rich",
    "matplotlib",
    "scipy",
)
PREDICTION = Prediction(
    mpap_mmhg=31.234,
    interval_low_mmhg=21.5,
    interval_high_mmhg=41.0,
    interval_level=0.9,
    probability_above_20=0.91,
    probability_at_least_25=0.7,
    patch_mpap_mmhg=(31.234,) * 9,
    findings=(),
    model=ModelIdentity(
        name="synthetic-demo",
        version="1.0.0",
        kind="synthetic-demo",
        digest="d" * 64,
        preprocessing_digest="p" * 64,
        architecture="micro",
    ),
    code_version="0.1.0",
    seconds=0.1,
)


@dataclass
class Answer:
    """What a command wrote and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Terminal:
    """Runs commands in this process, as the installed program does, over one database."""

    folder: Path
    type_in: Callable[[list[str]], None]
    read_out: Callable[[], Any]
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str) -> Answer:
        self.type_in(["pulmolink", *arguments])
        try:
            main()
            status = 0
        except SystemExit as leave:
            status = int(leave.code or 0)
        written = self.read_out()
        return Answer(status=status, out=written.out, err=written.err)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    quiet()
    variables = {
        "PULMOLINK_STORAGE_DATABASE": f"sqlite:///{tmp_path}/rows.db",
        "PULMOLINK_STORAGE_OBJECTS": str(tmp_path / "objects"),
        "COLUMNS": "200",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    upgrade(variables["PULMOLINK_STORAGE_DATABASE"])
    return Terminal(
        folder=tmp_path,
        type_in=lambda arguments: monkeypatch.setattr(sys, "argv", arguments),
        read_out=capsys.readouterr,
        variables=variables,
    )


@pytest.fixture
def filled(terminal: Terminal) -> Terminal:
    """Four radiographs: with an estimate, waiting, held for a contradiction, paired; and an object without an ID."""
    settings = load(None, terminal.variables)
    with Store.open(settings.storage.database) as store:
        receiver = Receiver(store, ObjectStore(settings.storage.objects), settings, lambda: datetime.now(UTC))

        def send(dataset: Any, uid: str, **elements: object) -> None:
            parts = encoded(identified(dataset, uid, **{**at(NOON), "AccessionNumber": f"A{uid}", **elements}))
            receiver.receive(Incoming(parts=parts, calling_ae="MODALITY"))

        send(radiograph(), "1.1", PatientID="P1")
        send(waveform(seconds=5), "1.2", PatientID="P1", **at(NOON + timedelta(days=3)))
        now = datetime.now(UTC)
        match = store.claim_match([MatchState.PAIRED], "w", 60, now)
        assert match is not None
        assert store.save_prediction(match.match_id, "w", PREDICTION.to_json(), "r" * 64, now)
        send(radiograph(), "2.1", PatientID="P2")
        send(radiograph(), "3.1", PatientID="P3")
        send(waveform(seconds=5), "3.2", PatientID="P3", PatientSex="M")
        send(radiograph(), "4.1", PatientID="P4")
        send(waveform(seconds=5), "4.2", PatientID="P4")
        send(radiograph(), "5.1", PatientID="")
        send(radiograph(ViewPosition="AP"), "6.1", PatientID="P6")
    terminal.read_out()
    return terminal


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every command and subcommand."""
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from walk(below, (*path, name))


ALL_COMMANDS = list(walk(root))


class TestHelp:
    @pytest.mark.parametrize("path", ALL_COMMANDS, ids=" ".join)
    def test_of_every_command_says_what_it_does_and_gives_an_example(
        self, terminal: Terminal, path: tuple[str, ...]
    ) -> None:
        answer = terminal.run(*path, "--help")
        assert answer.status == 0
        assert answer.out.startswith("Usage: pulmolink")
        assert "Example:" in answer.out
        command: click.Command = root
        for name in path:
            assert isinstance(command, click.Group)
            below = command.get_command(click.Context(command), name)
            assert below is not None
            command = below
        assert (command.help or "").strip().split("\n")[0].endswith((".", ":"))

    @pytest.mark.parametrize("path", ALL_COMMANDS, ids=" ".join)
    def test_of_every_option_says_something(self, path: tuple[str, ...]) -> None:
        command: click.Command = root
        for name in path:
            assert isinstance(command, click.Group)
            command = command.get_command(click.Context(command), name) or command
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{' '.join(path)} {parameter.opts[0]}"

    def test_of_the_root_names_every_command(self, terminal: Terminal) -> None:
        out = terminal.run("--help").out
        assert [name for name in COMMANDS if f"  {name} " not in out] == []

    def test_of_the_root_loads_nothing_heavy(self) -> None:
        """`pulmolink --help` answers in under 0.4 s; importing torch alone takes seconds."""
        program = (
            "import sys\nfrom pacs_node.cli import root\n"
            "root.main(['--help'], standalone_mode=False)\n"
            f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
            "sys.exit(f'loaded: {loaded}' if loaded else 0)"
        )
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
        assert (ended.returncode, ended.stderr) == (0, "")

    @pytest.mark.parametrize("command", ["status", "matches", "receive"])
    def test_a_command_that_computes_nothing_never_loads_the_network(self, command: str) -> None:
        program = (
            "import sys\nfrom pacs_node.cli import root\n"
            f"root.main([{command!r}, '--help'], standalone_mode=False)\n"
            "sys.exit([name for name in ('torch', 'highdicom') if name in sys.modules] or 0)"
        )
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
        assert (ended.returncode, ended.stderr) == (0, "")


class TestExitStatus:
    def test_zero_is_done(self, terminal: Terminal) -> None:
        assert terminal.run("status").status == 0
        assert terminal.run("--version").status == 0

    @pytest.mark.parametrize(
        "arguments",
        [
            ["no-such-command"],
            ["status", "--no-such-option"],
            ["matches", "--state", "LOST"],
            ["rerun"],
            ["rerun", "--match", "1", "--patient", "P1"],
            ["deliver"],
            ["deliver", "--failed", "--to", "nowhere"],
            ["import", "/no/such/folder"],
            ["ecg", "add", "--patient-id", " ", "--acquired-at", "2024-01-01", __file__],
            ["ecg", "add", "--patient-id", "1", "--acquired-at", "yesterday", __file__],
        ],
        ids=" ".join,
    )
    def test_two_is_wrong_usage_in_a_sentence(self, terminal: Terminal, arguments: list[str]) -> None:
        answer = terminal.run(*arguments)
        assert answer.status == 2
        assert answer.err
        assert "Traceback" not in answer.err

    def test_a_wrong_configuration_is_wrong_usage_and_names_the_key(
        self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PULMOLINK_NODE_PORT", "x")
        answer = terminal.run("status")
        assert answer.status == 2
        assert "PULMOLINK_NODE_PORT: node.port:" in answer.err

    @pytest.mark.parametrize(
        "arguments",
        [["show", "4711"], ["show", "1.2.3"], ["rerun", "--match", "4711"], ["rerun", "--patient", "nobody"]],
        ids=" ".join,
    )
    def test_one_is_failed_in_a_sentence(self, terminal: Terminal, arguments: list[str]) -> None:
        answer = terminal.run(*arguments)
        assert answer.status == 1
        assert answer.err
        assert "Traceback" not in answer.err

    def test_an_ecg_file_that_cannot_be_used_fails_and_stores_nothing(self, terminal: Terminal) -> None:
        file = terminal.folder / "note.pdf"
        file.write_bytes(b"%PDF-1.4 nothing")
        answer = terminal.run("ecg", "add", "--patient-id", "1", "--acquired-at", "2024-01-01T10:00", str(file))
        assert (answer.status, "refused" in answer.err) == (1, True)
        assert terminal.run("status", "--json").json["instances"] == []

    def test_three_is_done_in_part(self, terminal: Terminal) -> None:
        folder = terminal.folder / "in"
        folder.mkdir()
        (folder / "good.dcm").write_bytes(to_part10(encoded(identified(radiograph(), "1.1", **at(NOON)))))
        (folder / "bad.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 300)
        answer = terminal.run("import", str(folder), "--queue-only", "--json")
        assert answer.status == 3
        assert [entry["file"] for entry in answer.json["faulty"]] == [str(folder / "bad.dcm")]
        assert answer.json["notice"] == "research use only"


class TestConfig:
    def test_show_prints_what_is_in_force_without_secrets(
        self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PULMOLINK_STORAGE_DATABASE", "postgresql://u:s3cret@db/pulmolink")
        answer = terminal.run("config", "show")
        assert answer.status == 0
        assert "s3cret" not in answer.out
        assert 'database = "postgresql://u:********@db/pulmolink"' in answer.out

    def test_example_is_a_configuration_that_the_program_takes(self, terminal: Terminal) -> None:
        file = terminal.folder / "example.toml"
        file.write_text(terminal.run("config", "example").out, encoding="utf-8")
        assert terminal.run("--config", str(file), "config", "show").status == 0


CONTRACT = {"match_id", "state", "radiograph_uid", "ecg_uid", "gap_seconds", "mpap_mmhg", "model", "reason"}


class TestLists:
    def test_matches_as_json_have_the_fields_of_the_contract(self, filled: Terminal) -> None:
        rows = filled.run("matches", "--json").json
        assert all(row.keys() >= CONTRACT for row in rows)
        assert {row["radiograph_uid"]: row["state"] for row in rows} == {
            "1.1": "PREDICTED",
            "2.1": "WAITING",
            "3.1": "HELD",
            "4.1": "PAIRED",
        }
        first, waiting, held = rows[0], rows[1], rows[2]
        assert (first["ecg_uid"], first["gap_seconds"], first["mpap_mmhg"]) == ("1.2", 3 * 86400.0, 31.23)
        assert first["model"] == "synthetic-demo 1.0.0"
        assert (waiting["ecg_uid"], waiting["gap_seconds"], waiting["mpap_mmhg"]) == (None, None, None)
        assert held["reason"].startswith("identity_contradiction:")

    def test_an_empty_database_gives_an_empty_list(self, terminal: Terminal) -> None:
        assert terminal.run("matches", "--json").json == []

    @pytest.mark.parametrize(
        ("arguments", "uids"),
        [
            (["--state", "HELD"], ["3.1"]),
            (["--state", "HELD", "--state", "WAITING"], ["2.1", "3.1"]),
            (["--patient", "P4"], ["4.1"]),
            (["--study", "2.1.1"], ["2.1"]),
            (["--limit", "2"], ["1.1", "2.1"]),
            (["--patient", "nobody"], []),
        ],
        ids=" ".join,
    )
    def test_matches_may_be_chosen(self, filled: Terminal, arguments: list[str], uids: list[str]) -> None:
        assert [row["radiograph_uid"] for row in filled.run("matches", "--json", *arguments).json] == uids

    def test_an_estimate_is_never_without_interval_model_and_notice(self, filled: Terminal) -> None:
        for row in (filled.run("matches", "--json").json[0], filled.run("show", "1", "--json").json["match"]):
            assert row["mpap_mmhg"] == 31.23
            assert (row["interval_low_mmhg"], row["interval_high_mmhg"], row["interval_level"]) == (21.5, 41.0, 0.9)
            assert (row["model_digest"], row["notice"]) == ("d" * 64, "research use only")
        for arguments in (["matches"], ["show", "1"]):
            out = filled.run(*arguments).out
            assert "research use only" in out
            assert "synthetic-demo" in out
        assert "31 (22-41)" in filled.run("matches").out

    def test_held_lists_what_takes_no_part_and_why(self, filled: Terminal) -> None:
        rows = filled.run("held", "--json").json
        assert [(row["sop_instance_uid"], row["disposition"]) for row in rows] == [("5.1", "held")]
        assert rows[0]["reason"].startswith("patient_id_blank:")
        ignored = filled.run("held", "--json", "--disposition", Disposition.IGNORED.value).json
        assert [row["reason"].split(":")[0] for row in ignored] == ["view_ap"]
        assert "patient_id_blank" in filled.run("held").out

    def test_show_by_number_and_by_uid_is_the_same(self, filled: Terminal) -> None:
        by_number = filled.run("show", "1", "--json").json
        assert filled.run("show", "1.1", "--json").json == by_number
        assert (by_number["radiograph"]["sop_instance_uid"], by_number["ecg"]["sop_instance_uid"]) == ("1.1", "1.2")
        assert by_number["ecg"]["acquired_from"] == "AcquisitionDateTime"
        assert by_number["notice"] == "research use only"

    def test_show_says_why_a_match_is_held(self, filled: Terminal) -> None:
        assert "sex" in filled.run("show", "3.1").out

    def test_config_check_names_the_file_that_cannot_be_used(
        self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert terminal.run("config", "check").out.strip() == "no mistakes found"
        files = Authority(terminal.folder / "pki").issue("node", ends=timedelta(days=9))
        monkeypatch.setenv("PULMOLINK_TLS_CERTIFICATE", str(files.certificate))
        monkeypatch.setenv("PULMOLINK_TLS_KEY", str(files.key))
        answer = terminal.run("config", "check")
        assert answer.status == 0
        assert "(8 days); put another in its place" in answer.out
        entry = {"name": "a", "ae_title": "A", "host": "h", "port": 1, "tls": True, "tls_ca": "/nowhere.pem"}
        monkeypatch.setenv("PULMOLINK_DESTINATIONS", json.dumps([entry]))
        answer = terminal.run("config", "check")
        assert answer.status == 1
        assert "destinations.tls_ca: /nowhere.pem cannot be read" in answer.err
        monkeypatch.setenv("PULMOLINK_DESTINATIONS", "[{}]")
        assert terminal.run("config", "check").status == 2

    # A service runs on without its shadow: that is tests/integration/test_shadow_service.py.
    @pytest.mark.parametrize(
        ("key", "commands"), [("PACKAGE", [["config", "check"], ["serve"]]), ("SHADOW", [["config", "check"]])]
    )
    def test_config_check_refuses_a_model_that_serve_refuses(
        self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, key: str, commands: list[list[str]]
    ) -> None:
        """Its help recommends `config check && systemctl reload`."""
        monkeypatch.setenv(f"PULMOLINK_MODEL_{key}", "nope")
        for command in commands:
            answer = terminal.run(*command)
            assert answer.status == 1
            assert "neither a model package's folder nor" in answer.err

    def test_lists_show_brackets_as_they_are(self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = {"name": "[red]ward[/]", "ae_title": "A", "host": "h", "port": 1}
        monkeypatch.setenv("PULMOLINK_DESTINATIONS", json.dumps([entry]))
        assert "[red]ward[/]" in terminal.run("status").out

    def test_config_check_looks_at_what_sources_are_called_with(
        self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entry = {"ae_title": "A", "host": "h", "commitment_port": 1, "commitment_tls": True}
        monkeypatch.setenv("PULMOLINK_SOURCES", json.dumps([entry]))
        monkeypatch.setenv("PULMOLINK_TLS_CLIENT_CA", "/nowhere.pem")
        answer = terminal.run("config", "check")
        assert answer.status == 1
        assert "tls.client_ca: /nowhere.pem cannot be read" in answer.err

    def test_doctor_says_how_far_opening_a_file_is_confined(
        self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def found() -> str:
            checks = json.loads(terminal.run("doctor", "--json").out)
            return next(str(check["found"]) for check in checks if check["part"] == "opening files")

        assert "Landlock" in found()
        monkeypatch.setattr(confinement, "make_fence", lambda: confinement.Fence(descriptor=-1, version=0))
        assert found().startswith("WARNING: the kernel has no Landlock")

    def test_status_counts_by_state_with_the_queues_age_and_the_destinations(
        self, filled: Terminal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entry = {"name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": 4242}
        monkeypatch.setenv("PULMOLINK_DESTINATIONS", json.dumps([entry]))
        report = filled.run("status", "--json").json
        assert set(report["matches"]) == {state.value for state in MatchState}
        assert {state: count for state, count in report["matches"].items() if count} == {
            "PREDICTED": 1,
            "WAITING": 1,
            "HELD": 1,
            "PAIRED": 1,
        }
        assert 0 <= report["queue_age_seconds"] < 300
        assert [entry["name"] for entry in report["destinations"]] == ["pacs"]
        with Store.open(filled.variables["PULMOLINK_STORAGE_DATABASE"]) as store:
            store.add_tallies({("rejected", "sources"): 7})
        assert filled.run("status", "--json").json["connections"] == [
            {"outcome": "rejected", "reason": "sources", "count": 7}
        ]
        text = filled.run("status").out
        assert "WAITING" in text
        assert "rejected" in text
        assert "pacs" in text

    def test_export_writes_one_row_a_current_result(self, filled: Terminal) -> None:
        file = filled.folder / "results.csv"
        assert filled.run("export", "--format", "csv", str(file)).status == 0
        with file.open(newline="", encoding="utf-8") as lines:
            (row,) = csv.DictReader(lines)
        first = ["match_id", "patient_id", "radiograph_uid", "ecg_uid", "gap_seconds", "mpap_mmhg"]
        assert list(row)[:6] == first
        assert [row[column] for column in first] == ["1", "P1", "1.1", "1.2", "259200.0", "31.23"]
        assert (row["interval_low_mmhg"], row["interval_high_mmhg"], row["notice"]) == (
            "21.5",
            "41.0",
            "research use only",
        )
        assert filled.run("export", "-").out == file.read_text(encoding="utf-8")

    def test_lists_do_not_change_anything(self, filled: Terminal) -> None:
        before = filled.run("matches", "--json").out
        for arguments in (["status"], ["held"], ["show", "1"], ["export", "-"], ["db", "verify"]):
            assert filled.run(*arguments).status == 0
        assert filled.run("matches", "--json").out == before


class TestAgain:
    def test_rerun_leaves_what_has_no_ecg_and_says_so(self, filled: Terminal) -> None:
        answer = filled.run("rerun", "--patient", "P2", "--json")
        assert (answer.status, answer.json[0]["done"]) == (1, False)
        assert "no ECG" in answer.json[0]["what"]

    def test_rerun_keeps_a_contradiction_held(self, filled: Terminal) -> None:
        answer = filled.run("rerun", "--accession", "A3.1", "--json")
        assert (answer.status, answer.json[0]["done"]) == (1, False)
        assert "stays held: identity_contradiction" in answer.json[0]["what"]

    def test_deliver_without_anything_failed_says_none(self, filled: Terminal) -> None:
        answer = filled.run("deliver", "--failed")
        assert (answer.status, answer.out.strip()) == (0, "0 failed deliveries driven again")


class TestTheDatabase:
    def test_verify_finds_an_object_that_was_changed_on_disk(self, filled: Terminal) -> None:
        assert filled.run("db", "verify").status == 0
        objects = [path for path in (filled.folder / "objects").rglob("*") if len(path.name) == 64]
        objects[0].chmod(0o600)
        objects[0].write_bytes(b"rot")
        answer = filled.run("db", "verify")
        assert answer.status == 1
        assert "1 problems" in answer.out

    def test_backup_is_a_database_that_opens(self, filled: Terminal) -> None:
        target = filled.folder / "backup.db"
        assert filled.run("db", "backup", str(target)).status == 0
        with Store.open(f"sqlite:///{target}") as store:
            assert len(store.matches()) == 4

    def test_upgrade_may_be_repeated(self, terminal: Terminal) -> None:
        assert [terminal.run("db", "upgrade").status for _ in range(2)] == [0, 0]

    def test_only_what_brings_objects_in_makes_a_database(
        self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A list that made one would show a mistyped path or an unmounted volume as a node without patients."""
        monkeypatch.setenv("PULMOLINK_STORAGE_DATABASE", f"sqlite:///{terminal.folder}/new/rows.db")
        monkeypatch.setenv("PULMOLINK_STORAGE_OBJECTS", f"{terminal.folder}/new/objects")
        listed = terminal.run("status")
        assert listed.status == 1
        assert "there is no database" in listed.err
        assert not (terminal.folder / "new").exists()
        (terminal.folder / "empty").mkdir()
        assert terminal.run("import", str(terminal.folder / "empty"), "--queue-only").status == 0
        assert terminal.run("status").status == 0


class TestWatchedFolder:
    """Carts export files; an administrator settles what nobody named."""

    def test_is_taken_in_once_and_a_held_ecg_counts_when_a_person_says_whose_it_is(
        self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = terminal.folder / "carts"
        folder.mkdir()
        for key, value in {"PATH": str(folder), "SETTLE_SECONDS": "0.01", "SIDECAR_SECONDS": "0.01"}.items():
            monkeypatch.setenv(f"PULMOLINK_FOLDER_{key}", value)
        seconds = np.arange(5000) / 500 % 0.8
        one, two = (r * np.exp(-((seconds - at) ** 2) / 2e-4) for r, at in ((1.0, 0.3), (0.7, 0.31)))
        signals = {lead: one * (0.5 + number / 10) for number, lead in enumerate(LEADS[6:])} | {"I": one, "II": two}
        (folder / "export.xml").write_bytes(aecg(Sequences(signals=signals)))
        answer = terminal.run("watch", "--once")
        assert (answer.status, answer.out) == (0, "1 files taken\n"), answer.err
        (row,) = terminal.run("held", "--json").json
        assert row["reason"].startswith("patient_id_blank")
        number = str(row["instance_id"])
        assert "--patient-id" in terminal.run("accept", number, "--yes").err
        assert terminal.run("accept", number, "--patient-id", "P1").status == 2
        settled = terminal.run("accept", number, "--patient-id", "P1", "--acquired-at", "2024-03-02T09:30")
        assert settled.status == 0, settled.err
        assert terminal.run("held", "--json").json == []
        (ecg,) = terminal.run("held", "--disposition", "accepted", "--json").json
        assert (ecg["patient_id"], ecg["kind"]) == ("P1", "ecg")
        again = terminal.run("accept", number, "--patient-id", "P2", "--acquired-at", "2024-03-02T09:30")
        assert again.status == 1

    def test_that_is_not_there_is_found_by_doctor(self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        for folder, ok in ((terminal.folder, True), (terminal.folder / "not mounted", False)):
            monkeypatch.setenv("PULMOLINK_FOLDER_PATH", str(folder))
            checks = {check["part"]: check["ok"] for check in terminal.run("doctor", "--json").json}
            assert checks["watched folder"] is ok

    def test_that_is_not_configured_is_named(self, terminal: Terminal) -> None:
        answer = terminal.run("watch")
        assert answer.status == 2
        assert "folder.path" in answer.err


class TestEcgInspect:
    """An administrator who doubts a result looks at what was read from the file."""

    def test_tells_as_json_and_draws_what_was_found(self, terminal: Terminal, mortara_ecg: Path) -> None:
        picture = terminal.folder / "found.png"
        answer = terminal.run("ecg", "inspect", str(mortara_ecg), "--json", "--png", str(picture))
        assert answer.status == 0, answer.err
        assert {"accepted", "reason", "layout", "leads", "seconds_per_lead", "px_per_mm", "quality"} <= set(answer.json)
        assert (answer.json["accepted"], answer.json["reason"], len(answer.json["leads"])) == (True, None, 12)
        assert picture.read_bytes().startswith(b"\x89PNG")

    def test_draws_over_no_file_that_it_reads(self, terminal: Terminal) -> None:
        file = terminal.folder / "sheet.png"
        file.write_bytes(b"a sheet")
        for out in (file, terminal.folder / "found.jpg"):
            answer = terminal.run("ecg", "inspect", str(file), "--png", str(out))
            assert answer.status == 2
            assert "another file" in answer.err
        assert file.read_bytes() == b"a sheet"

    def test_of_a_refused_file_succeeds_and_names_the_reason(self, terminal: Terminal) -> None:
        file = terminal.folder / "record.mwf"
        file.write_bytes(b"MFER and no more")
        answer = terminal.run("ecg", "inspect", str(file))
        assert answer.status == 0
        assert "refused" in answer.out
        assert "unsupported_form" in answer.out
        assert "MFER" in answer.out

    def test_stores_nothing(self, terminal: Terminal, mortara_ecg: Path) -> None:
        assert terminal.run("ecg", "inspect", str(mortara_ecg)).status == 0
        assert terminal.run("held", "--disposition", "accepted", "--json").json == []
