"""accept: a person settles which of several objects with one UID counts, or whose an ECG from a folder is."""

from __future__ import annotations

from datetime import datetime

import click

from pacs_node.cli import EXIT_FAILED
from pacs_node.commands.context import opened
from pacs_node.flow.identify import can_be_identified, identify
from pacs_node.flow.pair import PairingRules, accept_copy, lock_of
from pacs_node.flow.receive import SUCCESS, Receiver
from pacs_node.service import utc_now
from storage.records import Disposition, Kind, Patient


@click.command(epilog="Example: pulmolink accept 42 --yes")
@click.argument("number", metavar="OBJECT", type=int)
@click.option("--yes", is_flag=True, help="You have compared the copies, and this one is right.")
@click.option("--patient-id", default="", help="Whose ECG it is, for one from a folder that did not say.")
@click.option("--issuer", default="", help="Issuer of that patient ID; blank: folder.issuer.")
@click.option("--acquired-at", default="", metavar="TIME", help="When that ECG was recorded, ISO 8601 with time.")
@click.pass_context
def accept(ctx: click.Context, number: int, yes: bool, patient_id: str, issuer: str, acquired_at: str) -> None:
    """Let OBJECT (its number in `held`) count.

    Of several objects with one SOP Instance UID the others are held from then on. An ECG from the watched folder whose
    file did not say whose it is needs --patient-id and --acquired-at.
    """
    if patient_id or issuer or acquired_at:
        _identify(ctx, number, patient_id.strip(), issuer.strip(), acquired_at)
        return
    with opened(ctx) as node:
        stored = node.store.instance(number)
        instance = stored.instance
        copies = node.store.instances(sop_instance_uid=instance.sop_instance_uid)
        if can_be_identified(stored):
            raise click.ClickException(f"nobody said whose ECG object {number} is: give --patient-id and --acquired-at")
        if instance.disposition is not Disposition.HELD or len(copies) < 2:
            raise click.ClickException(f"object {number} is not held because of another object of its UID")
        usable = instance.kind in {Kind.RADIOGRAPH, Kind.ECG} and instance.patient.patient_id and instance.acquired
        if not usable:
            raise click.ClickException(f"object {number} lacks what pairing needs: kind, patient ID or date")
        if not yes:
            raise click.ClickException(
                f"{len(copies)} objects have this UID (`pulmolink held --json` shows them); "
                "compare them, then repeat with --yes"
            )
        with node.store.transaction(lock=lock_of(instance.patient, instance.sop_instance_uid)) as tx:
            accept_copy(tx, tx.instance(number), PairingRules.of(node.settings), utc_now())
    click.echo(f"object {number} counts; {len(copies) - 1} other held")


def _identify(ctx: click.Context, number: int, patient_id: str, issuer: str, acquired_at: str) -> None:
    """Let an ECG count whose patient and time a person gives."""
    if not (patient_id and acquired_at):
        raise click.UsageError("--patient-id and --acquired-at are needed together")
    try:
        moment = datetime.fromisoformat(acquired_at)
    except ValueError:
        raise click.UsageError(f"--acquired-at: {acquired_at!r} is not an ISO 8601 time") from None
    if len(acquired_at) <= len("2026-03-01"):
        raise click.UsageError("--acquired-at: give the time of day too")
    with opened(ctx) as node:
        stored = node.store.instance(number)
        if not can_be_identified(stored):
            raise click.ClickException(f"object {number} is no held ECG from the watched folder without a patient")
        if moment.utcoffset() is None:
            moment = moment.replace(tzinfo=node.settings.node.zone)
        patient = Patient(
            issuer=issuer or node.settings.folder.issuer or node.settings.pairing.default_issuer,
            patient_id=patient_id,
            name="",
            birth_date="",
            sex="",
        )
        receiver = Receiver(node.store, node.objects, node.settings, utc_now)
        receipt = identify(stored, patient, moment, node.store, node.objects, receiver)
    if receipt.status != SUCCESS or receipt.disposition is not Disposition.ACCEPTED:
        click.echo(f"object {number}: {receipt.reason or receipt.comment}", err=True)
        ctx.exit(EXIT_FAILED)
    click.echo(f"object {number} counts as this patient's ECG")
