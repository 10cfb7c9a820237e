"""db upgrade | verify | backup | adopt | sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pacs_node.cli import EXIT_FAILED
from pacs_node.commands.context import open_store, settings_of
from pacs_node.settings_file import hide_secrets

if TYPE_CHECKING:
    from storage.objects import ObjectStore


@click.group(epilog="Example: pulmolink db verify")
def db() -> None:
    """Upgrade, verify and back up the database; say which object folder is its own."""


@db.command(epilog="Example: pulmolink db upgrade")
@click.pass_context
def upgrade(ctx: click.Context) -> None:
    """Bring the schema to this version; stop the service first."""
    from storage import database

    url = settings_of(ctx).storage.database
    database.upgrade(url)
    click.echo(f"{hide_secrets(url)}: schema is current")


@db.command(epilog="Example: pulmolink db verify")
@click.option("--quick", is_flag=True, help="Compare sizes only, without reading every object.")
@click.pass_context
def verify(ctx: click.Context, quick: bool) -> None:
    """Check the database and that every object it names is there and undamaged."""
    from storage import safekeeping
    from storage.objects import ObjectStore

    settings = settings_of(ctx)
    with open_store(settings, create=False):
        pass  # says what cannot be opened, and makes nothing
    objects = ObjectStore(settings.storage.objects)
    problems = safekeeping.verify(settings.storage.database, objects, read_objects=not quick)
    for problem in problems:
        click.echo(f"{problem.kind.value}: {problem.subject}: {problem.detail}")
    aside = objects.count_set_aside()
    if aside:
        click.echo(f"{aside} objects that no row needs are set aside; {_recovery(objects)}")
    click.echo(f"{len(problems)} problems")
    if problems:
        click.get_current_context().exit(EXIT_FAILED)


@db.command(epilog="Example: pulmolink db backup /backup/pulmolink.db")
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_context
def backup(ctx: click.Context, target: Path) -> None:
    """Copy the database to TARGET while the service runs; copy the objects folder after it."""
    from storage import safekeeping

    settings = settings_of(ctx)
    with open_store(settings, create=False):
        pass
    safekeeping.backup(settings.storage.database, target)
    click.echo(f"database copied to {target}; now copy {settings.storage.objects} (objects never change)")


@db.command(epilog="Example: pulmolink db adopt --yes")
@click.option("--yes", is_flag=True, help="Do it; without this the command only says what it would do.")
@click.pass_context
def adopt(ctx: click.Context, yes: bool) -> None:
    """Make the configured object folder that of the configured database, whatever it belonged to.

    For a folder whose own database is lost, and for a database whose objects are lost. Stop the service first.
    """
    from storage import identity
    from storage.objects import ObjectStore
    from storage.store import Store

    settings = settings_of(ctx)
    objects = ObjectStore(settings.storage.objects)
    with Store.open(settings.storage.database) as store:
        rows = sum(store.count_instances().values())
        what = f"{objects.root} becomes the object folder of {hide_secrets(settings.storage.database)} ({rows} objects)"
        if not yes:
            click.echo(f"{what}; --yes does it")
            ctx.exit(EXIT_FAILED)
        identity.adopt(store, objects)
    click.echo(f"{what}; pulmolink import {objects.root} takes in what the database does not know")


@db.command(epilog="Example: pulmolink db sweep --yes")
@click.option("--yes", is_flag=True, help="Do it however many there are; without this they are only counted.")
@click.pass_context
def sweep(ctx: click.Context, yes: bool) -> None:
    """Set aside every object older than an hour that no row needs; the scheduler does so while they are few."""
    from pacs_node.flow.upkeep import ORPHAN_AGE

    settings = settings_of(ctx)
    with open_store(settings, create=False) as node:
        if not yes:
            orphans = sum(orphaned for _, orphaned in node.store.orphans(node.objects))
            click.echo(f"no row needs {orphans} objects; --yes sets them aside")
            return
        moved = node.store.sweep_orphans(node.objects, ORPHAN_AGE.total_seconds(), however_many=True)
        click.echo(f"{moved} objects set aside; {_recovery(node.objects)}")


def _recovery(objects: ObjectStore) -> str:
    return f"pulmolink import {objects.orphaned} takes them in again"
