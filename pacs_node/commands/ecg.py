"""ecg: bring in an ECG file that is not DICOM, and look at how any ECG file is read."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import click

from pacs_node.cli import EXIT_FAILED
from pacs_node.commands.context import opened, settings_of
from pacs_node.service import utc_now
from storage.records import Disposition, Patient


@click.group(epilog="Example: pulmolink ecg add --patient-id 1234 --issuer HOSP --acquired-at 2026-03-01T09:30 ecg.pdf")
def ecg() -> None:
    """Bring in an ECG file that is not DICOM; look at how one is read."""


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
    """Store FILE (PDF, PNG, JPEG, TIFF, BMP or HL7 aECG) as a DICOM object of the patient, and pair it.

    The file is read first: an ECG that cannot be used is refused with the reason, and nothing is stored.
    """
    from ecg_ingest.lead_images import EcgRefused, RenderStyle
    from pacs_node.dicom.stack import quiet
    from pacs_node.flow.ecg_file import as_dicom
    from pacs_node.flow.receive import SUCCESS, Incoming, Receiver
    from pacs_node.opening.opener import NotOpened, Opener

    if not patient_id.strip():
        raise click.UsageError("--patient-id is blank; without a patient ID nothing is paired")
    if birth_date and not (len(birth_date) == 8 and birth_date.isdecimal()):
        raise click.UsageError("--birth-date: use YYYYMMDD")
    try:
        moment = datetime.fromisoformat(acquired_at)
    except ValueError:
        raise click.UsageError(f"--acquired-at: {acquired_at!r} is not an ISO 8601 time") from None
    quiet()
    settings = settings_of(ctx)
    limits = settings.limits
    if file.stat().st_size > limits.object_bytes:
        raise click.UsageError(f"{file} has more than limits.object_bytes = {limits.object_bytes} bytes")
    content = file.read_bytes()
    if content[128:132] == b"DICM":
        raise click.UsageError(f"{file} is a DICOM file; use `pulmolink import` on its folder")
    if len(acquired_at) <= len("2026-03-01"):
        moment = moment.replace(hour=12)
    if moment.utcoffset() is None:
        moment = moment.replace(tzinfo=settings.node.zone)
    patient = Patient(
        issuer=issuer or settings.pairing.default_issuer,
        patient_id=patient_id.strip(),
        name=name,
        birth_date=birth_date,
        sex=sex,
    )
    try:
        with Opener(limits) as opener:
            parts = as_dicom(content, opener.ecg(content, RenderStyle()), patient, moment, opener)
    except (EcgRefused, NotOpened) as refusal:
        click.echo(
            f"{file}: refused: {refusal.reason.value}: {refusal.detail}" + f" ({refusal.hint})" * bool(refusal.hint),
            err=True,
        )
        ctx.exit(EXIT_FAILED)
    with opened(ctx, create=True) as node:
        receiver = Receiver(node.store, node.objects, node.settings, utc_now)
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


@ecg.command(epilog="Example: pulmolink ecg inspect sheet.pdf --png found.png")
@click.option(
    "--png",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    metavar="OUT",
    help="Write a picture: the sheet with a box around each lead, and the twelve pictures that the network is given.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; boxes are pixels of the file's own picture.")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.pass_context
def inspect(ctx: click.Context, png: Path | None, as_json: bool, file: Path) -> None:
    """Show what is read from FILE: DICOM, PDF, PNG, JPEG, TIFF, BMP or HL7 aECG. Nothing is stored.

    A refused file is told with its reason; looking at it succeeded, so the exit status is 0 then too. The picture shows
    the sheet as it is, with whoever is named on it. Of a PDF, boxes are pixels of the page drawn at the
    dots_per_inch that the JSON names.
    """
    from ecg_ingest.lead_images import RenderStyle
    from inference.package import locate, read_manifest
    from pacs_node.dicom.stack import quiet
    from pacs_node.flow.ecg_file import look_at_file
    from pacs_node.opening.opener import Opener
    from pacs_node.report.inspection import as_json as fields
    from pacs_node.report.inspection import draw_inspection

    settings = settings_of(ctx)
    manifest = read_manifest(locate(settings.model.where))
    quiet()
    if png is not None and (png.suffix.lower() != ".png" or (png.exists() and png.samefile(file))):
        raise click.UsageError(f"--png {png}: give another file than {file}, its name ending in .png")
    if file.stat().st_size > settings.limits.object_bytes:
        raise click.UsageError(f"{file} has more than limits.object_bytes = {settings.limits.object_bytes} bytes")
    with Opener(settings.limits) as opener:
        style = RenderStyle(**cast(dict[str, Any], manifest.ecg.style))
        inspection = look_at_file(file.read_bytes(), style, opener)
    if png is not None:
        from PIL import Image

        Image.fromarray(draw_inspection(inspection)).save(png, format="PNG")
    found = fields(inspection)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    _show(file, found)
    if png is not None:
        click.echo(f"drawn: {png}")


def _show(file: Path, found: dict[str, Any]) -> None:
    """The findings as tables."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from pacs_node.commands.present import NOTICE

    console = Console(highlight=False)
    console.print(f"[bold]{escape(file.name)}[/]: {'accepted' if found['accepted'] else 'refused'}  ({NOTICE})")
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for field, value in (
        ("reason", found["reason"]),
        ("because", found["detail"]),
        ("what to do", found["hint"]),
        ("read from", found["source"]),
        ("layout", f"{found['layout']}, {found['order']} order" if found["layout"] else None),
        ("a lead", f"{found['seconds_per_lead']:g} s" if found["seconds_per_lead"] else None),
        ("scale", f"{found['px_per_mm']:g} pixels a millimetre" if found["px_per_mm"] else None),
        ("page drawn at", f"{found['dots_per_inch']:g} dots an inch" if found["dots_per_inch"] else None),
        ("computed", ", ".join(found["derived_leads"])),
    ):
        if value:
            facts.add_row(field, escape(str(value)))
    console.print(facts)
    if any(place["box"] for place in found["leads"].values()):
        leads = Table("lead", "page", "left", "top", "right", "bottom", box=SIMPLE_HEAD)
        for lead, place in found["leads"].items():
            leads.add_row(lead, str(place["page"] + 1), *(f"{edge:.0f}" for edge in place["box"]))
        console.print(leads)
    for finding in found["quality"]:
        where = f"{finding['lead']}: " if finding["lead"] else ""
        console.print(f"[yellow]{finding['code']}[/]  {where}{escape(finding['detail'])}")
    if found["accepted"] and not found["quality"]:
        console.print("quality: nothing found")
