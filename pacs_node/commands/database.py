"""db upgrade | verify | backup."""

from __future__ import annotations

from pathlib import Path

import click

from pacs_node.cli import EXIT_FAILED
from pacs_node.commands.context import settings_of
from pacs_node.settings import hide_secrets


@click.group(epilog="Example: pulmolink db verify")
def db() -> None:
    """Upgrade, verify and back up the database."""


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
    problems = safekeeping.verify(
        settings.storage.database, ObjectStore(settings.storage.objects), read_objects=not quick
    )
    for problem in problems:
        click.echo(f"{problem.kind.value}: {problem.subject}: {problem.detail}")
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
    safekeeping.backup(settings.storage.database, target)
    click.echo(f"database copied to {target}; now copy {settings.storage.objects} (objects never change)")
