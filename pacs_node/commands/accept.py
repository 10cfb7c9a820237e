"""accept: a person settles which of several objects with one SOP Instance UID counts."""

from __future__ import annotations

import click

from pacs_node.commands.context import opened
from pacs_node.flow.pair import PairingRules, accept_copy, lock_of
from pacs_node.service import utc_now
from storage.records import Disposition, Kind


@click.command(epilog="Example: pulmolink accept 42 --yes")
@click.argument("number", metavar="OBJECT", type=int)
@click.option("--yes", is_flag=True, help="You have compared the copies, and this one is right.")
@click.pass_context
def accept(ctx: click.Context, number: int, yes: bool) -> None:
    """Let OBJECT (its number in `held`) count; every other object of its SOP Instance UID is held from then on."""
    with opened(ctx) as node:
        stored = node.store.instance(number)
        instance = stored.instance
        copies = node.store.instances(sop_instance_uid=instance.sop_instance_uid)
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
