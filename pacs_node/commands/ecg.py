"""ecg add: an ECG file that is not DICOM."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from pacs_node.cli import EXIT_FAILED
from pacs_node.commands.context import opened, settings_of
from pacs_node.service import utc_now
from storage.records import Disposition, Patient


@click.group(epilog="Example: pulmolink ecg add --patient-id 1234 --issuer HOSP --acquired-at 2026-03-01T09:30 ecg.pdf")
def ecg() -> None:
    """Bring in an ECG file that is not DICOM."""


@ecg.command(epilog="Example: pulmolink ecg add --patient-id 1234 --issuer HOSP --acquired-at 2026-03-01T09:30 ecg.pdf")
@click.option("--patient-id", required=True, help="Patient ID, as in the radiograph.")
@click.option("--issuer", default="", help="Issuer of the patient ID, as in the radiograph; blank if it names none.")
@click.option(
    "--acquired-at",
    required=True,
    metavar="TIME",
    help="When the ECG was recorded, ISO 8601; without an offset it is in node.site_timezone.",
)
@click.option("--birth-date", default="", metavar="YYYYMMDD", help="For the identity check.")
@click.option("--sex", default="", type=click.Choice(["", "M", "F", "O"]), help="For the identity check.")
@click.option("--name", default="", help="Patient name in DICOM form, Family^Given.")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.pass_context
def add(
    ctx: click.Context,
    patient_id: str,
    issuer: str,
    acquired_at: str,
    birth_date: str,
    sex: str,
    name: str,
    file: Path,
) -> None:
    """Store FILE (a PDF with a vector ECG) as an Encapsulated PDF object of the patient, and pair it.

    The file is read first: an ECG that cannot be used is refused with the reason, and nothing is stored.
    """
    from ecg_ingest.lead_images import EcgRefused, RenderStyle
    from pacs_node.dicom.stack import quiet
    from pacs_node.flow.receive import SUCCESS, Incoming, Receiver
    from pacs_node.flow.wrap import wrap_pdf
    from pacs_node.opening.opener import NotOpened, open_ecg

    if not patient_id.strip():
        raise click.UsageError("--patient-id is blank; without a patient ID nothing is paired")
    if birth_date and not (len(birth_date) == 8 and birth_date.isdecimal()):
        raise click.UsageError("--birth-date: use YYYYMMDD")
    try:
        moment = datetime.fromisoformat(acquired_at)
    except ValueError:
        raise click.UsageError(f"--acquired-at: {acquired_at!r} is not an ISO 8601 time") from None
    quiet()
    limits = settings_of(ctx).limits
    if file.stat().st_size > limits.object_bytes:
        raise click.UsageError(f"{file} has more than limits.object_bytes = {limits.object_bytes} bytes")
    content = file.read_bytes()
    if content[128:132] == b"DICM":
        raise click.UsageError(f"{file} is a DICOM file; use `pulmolink import` on its folder")
    try:
        open_ecg(content, RenderStyle(), limits)
    except (EcgRefused, NotOpened) as refusal:
        click.echo(
            f"{file}: refused: {refusal.reason.value}: {refusal.detail}" + f" ({refusal.hint})" * bool(refusal.hint),
            err=True,
        )
        ctx.exit(EXIT_FAILED)
    with opened(ctx, create=True) as node:
        if len(acquired_at) <= len("2026-03-01"):
            moment = moment.replace(hour=12)
        if moment.utcoffset() is None:
            moment = moment.replace(tzinfo=node.settings.node.zone)
        patient = Patient(
            issuer=issuer or node.settings.pairing.default_issuer,
            patient_id=patient_id.strip(),
            name=name,
            birth_date=birth_date,
            sex=sex,
        )
        receiver = Receiver(node.store, node.objects, node.settings, utc_now)
        parts = wrap_pdf(content, patient, moment)
        receipt = receiver.receive(Incoming(parts=parts, calling_ae="ecg add"))
        pairs = [
            match.match_id
            for match in node.store.matches(patient_id=patient.patient_id, issuer=patient.issuer)
            if match.ecg_uid == parts.sop_instance_uid
        ]
    if receipt.status != SUCCESS or receipt.disposition is not Disposition.ACCEPTED:
        click.echo(f"{file}: {receipt.reason or receipt.comment}", err=True)
        ctx.exit(EXIT_FAILED)
    stored = "was stored before" if receipt.duplicate else "stored"
    if pairs:
        click.echo(f"{file}: {stored}; goes with match {', '.join(map(str, pairs))}")
    else:
        click.echo(f"{file}: {stored}; no radiograph of this patient ID and issuer takes it so far")
    if len(acquired_at) <= len("2026-03-01"):
        click.echo("no time was given: noon counts")
