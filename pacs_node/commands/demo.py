"""demo: a node and a small archive on loopback, eight phantom patients by C-STORE, and what each got."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pacs_node.cli import EXIT_FAILED
from pacs_node.commands.present import NOTICE, estimate_text, gap_text

PATIENTS = 8
LONGEST_SECONDS = 120.0
"""The demo gives up after so long without an end."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One phantom patient as sent."""

    patient_id: str
    scenario: str
    radiograph_uid: str
    expected_ecg_uid: str
    mpap_mmhg: float
    objects: int


@click.command(epilog="Example: pulmolink demo --keep")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-output"),
    show_default=True,
    help="Folder for everything the demo makes; an earlier demo's is replaced.",
)
@click.option("--seed", type=click.IntRange(0, 9_999), default=1, show_default=True, help="Which phantom patients.")
@click.option("--keep", is_flag=True, help="Leave the node running until Ctrl-C.")
@click.pass_context
def demo(ctx: click.Context, out: Path, seed: int, keep: bool) -> None:
    """Show the whole way once, with phantom patients: C-STORE in, Structured Report and overlay back in an archive."""
    from pacs_node.dicom.archive import Archive

    # As Ctrl-C: the node that the demo started must not outlive it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    console.print(f"[bold]pulmolink demo[/]: phantom patients, a synthetic model. {NOTICE.capitalize()}.")
    _clear(out)
    node_port, archive_port, web_port = _free_ports(3)
    config = _configure(out, node_port, archive_port, web_port)
    with Archive(out / "archive", archive_port) as archive, _node(out, config, node_port, console):
        columns = (
            TextColumn("{task.description:<42}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console) as progress:
            sent = _send(out, seed, node_port, progress)
            rows = _wait(config, len(sent), progress)
            _write_results(out, archive, rows, progress)
        good = _show(console, sent, rows, out)
        if keep:
            _keep(console, config, node_port, web_port)
    if not good:
        ctx.exit(EXIT_FAILED)


def _clear(out: Path) -> None:
    """Remove an earlier demo's folder, and nothing else."""
    if out.exists() and any(out.iterdir()):
        if not (out / "pulmolink.toml").is_file():
            raise click.ClickException(f"{out} holds something else than an earlier demo; choose another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _configure(out: Path, node_port: int, archive_port: int, web_port: int) -> Path:
    config = out / "pulmolink.toml"
    folder = out.resolve()
    config.write_text(
        f"""# made by `pulmolink demo`
[node]
port = {node_port}
[storage]
database = {json.dumps(f"sqlite:///{folder}/pulmolink.db")}
objects = {json.dumps(f"{folder}/objects")}
[[destinations]]
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive_port}
[web]
port = {web_port}
""",
        encoding="utf-8",
    )
    return config


@contextlib.contextmanager
def _node(out: Path, config: Path, port: int, console: Console) -> Iterator[None]:
    """`pulmolink serve` as a process of its own, its log in the demo's folder."""
    from pacs_node.dicom.client import Conversation, Peer, Unreachable

    log = out / "node.log"
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-m", "pacs_node", "--config", str(config), "serve"], stderr=stream)
        try:
            with console.status("starting the node"):
                deadline = time.monotonic() + LONGEST_SECONDS
                peer = Peer(
                    ae_title="PULMOLINK",
                    host="127.0.0.1",
                    port=port,
                    calling_ae_title="DEMO",
                    timeout_seconds=5,
                )
                while True:
                    try:
                        with Conversation(peer, ()) as conversation:
                            conversation.echo()
                        break
                    except Unreachable:
                        if process.poll() is not None or time.monotonic() > deadline:
                            raise click.ClickException(f"the node did not start; see {log}") from None
                        time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait()


def _send(out: Path, seed: int, port: int, progress: Progress) -> list[Sent]:
    """Make the phantom patients and send them; the ECGs before the radiographs for every other patient."""
    from inference.phantoms import make_patient
    from pacs_node.dicom.client import Conversation, Outcome, Peer, outcome
    from pacs_node.flow.part10 import from_part10

    task = progress.add_task("making and sending eight phantom patients", total=PATIENTS)
    peer = Peer(ae_title="PULMOLINK", host="127.0.0.1", port=port, calling_ae_title="DEMO", timeout_seconds=30)
    sent = []
    for index in range(PATIENTS):
        patient = make_patient(index, seed)
        folder = out / "phantoms" / patient.truth.patient_id
        folder.mkdir(parents=True)
        files = []
        for item in patient.objects:
            (folder / item.name).write_bytes(item.part10)
            files.append((folder / item.name, from_part10(item.part10)))
        contexts = [(parts.sop_class_uid, parts.transfer_syntax_uid) for _, parts in files]
        with Conversation(peer, contexts) as conversation:
            for path, parts in files[:: -1 if index % 2 else 1]:
                status = conversation.store(
                    path, sop_class=parts.sop_class_uid, transfer_syntax=parts.transfer_syntax_uid
                )
                if outcome(status) is not Outcome.STORED:
                    raise click.ClickException(f"the node answered 0x{status:04X} to {path}")
        sent.append(
            Sent(
                patient_id=patient.truth.patient_id,
                scenario=patient.scenario.value,
                radiograph_uid=patient.truth.radiograph_uid,
                expected_ecg_uid=patient.truth.ecg_uid,
                mpap_mmhg=patient.truth.mpap_mmhg,
                objects=len(files),
            )
        )
        progress.advance(task)
    return sent


def _wait(config: Path, patients: int, progress: Progress) -> list[dict[str, Any]]:
    """The matches as `pulmolink matches --json` tells them, once none is on its way any more."""
    task = progress.add_task("estimating, reporting, delivering", total=None)
    deadline = time.monotonic() + LONGEST_SECONDS
    moving = {"PAIRED", "PREDICTED", "REPORTED", "WAITING"}
    while True:
        rows = _pulmolink(config, "matches", "--json")
        done = sum(row["state"] not in moving for row in rows)
        progress.update(task, total=len(rows) or None, completed=done)
        if rows and done == len(rows):
            return rows
        if time.monotonic() > deadline:
            raise click.ClickException(f"not finished after {LONGEST_SECONDS:.0f} s; see node.log in the demo's folder")
        time.sleep(0.2)


def _pulmolink(config: Path, *arguments: str) -> Any:
    answer = subprocess.run(
        [sys.executable, "-m", "pacs_node", "--config", str(config), *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(answer.stdout)


def _write_results(out: Path, archive: Any, rows: list[dict[str, Any]], progress: Progress) -> None:
    """What the archive received, as a person can open it: overlays as PNG, reports as text."""
    from PIL import Image
    from pydicom import dcmread

    from pacs_node.flow.sop_classes import SECONDARY_CAPTURE
    from pacs_node.report.text import report_text

    arrivals = archive.arrivals()
    task = progress.add_task("writing overlays and reports", total=len(arrivals))
    for folder in ("overlays", "reports"):
        (out / folder).mkdir()
    for arrival in arrivals:
        content = arrival.path.read_bytes()
        dataset = dcmread(arrival.path)
        if arrival.sop_class_uid == SECONDARY_CAPTURE:
            Image.fromarray(dataset.pixel_array).save(out / "overlays" / f"{dataset.PatientID}.png")
        else:
            (out / "reports" / f"{dataset.PatientID}.txt").write_text(report_text(content), encoding="utf-8")
        progress.advance(task)


def _show(console: Console, sent: list[Sent], rows: list[dict[str, Any]], out: Path) -> bool:
    """The table of what each patient got; False if a phantom patient got what it should not."""
    table = Table(
        title=f"What each patient got, mmHg ({NOTICE}; the model knows phantoms only)",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in ("patient", "case", "state", "gap", "mPAP (90%)", "true"):
        table.add_column(column, no_wrap=True)
    by_radiograph = {row["radiograph_uid"]: row for row in rows}
    ignored = _not_accepted(out)
    good, reasons = True, []
    for patient in sent:
        row = by_radiograph.get(patient.radiograph_uid)
        paired = row["ecg_uid"] if row and row["mpap_mmhg"] is not None else ""
        good = good and paired == patient.expected_ecg_uid
        table.add_row(
            patient.patient_id,
            patient.scenario,
            row["state"] if row else "no match",
            gap_text(row["gap_seconds"]) if row else "",
            estimate_text(row) if row else "",
            f"{patient.mpap_mmhg:.0f}",
        )
        reason = row["reason"] if row else ignored.get(patient.radiograph_uid)
        if reason:
            reasons.append(f"{patient.patient_id}: {reason}")
    console.print(table)
    console.print("Why no estimate:", *(f"  {reason}" for reason in reasons), sep="\n", markup=False)
    for what in ("overlays", "reports", "node.log"):
        console.print(f"{what:<9} {out / what}", highlight=False)
    if not good:
        console.print("[red]A phantom patient got another answer than its case demands; see the table.[/]")
    return good


def _not_accepted(out: Path) -> dict[str, str]:
    """Why objects take no part, by SOP Instance UID."""
    options = [f"--disposition={name}" for name in ("ignored", "held", "refused")]
    rows = _pulmolink(out / "pulmolink.toml", "held", *options, "--json")
    return {row["sop_instance_uid"]: row["reason"] for row in rows}


def _keep(console: Console, config: Path, node_port: int, web_port: int) -> None:
    console.print(
        f"The node runs on: C-STORE to PULMOLINK at 127.0.0.1:{node_port}, http://127.0.0.1:{web_port}/metrics\n"
        f"Try: pulmolink --config {config} matches\nCtrl-C ends it."
    )
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
