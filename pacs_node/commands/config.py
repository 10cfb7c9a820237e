"""config show | example."""

from __future__ import annotations

import click

from pacs_node import settings_file
from pacs_node.commands.context import settings_of


@click.group(epilog="Example: pulmolink config example > pulmolink.toml")
def config() -> None:
    """Show the configuration in force, or an example file."""


@config.command(epilog="Example: pulmolink --config pulmolink.toml config show")
@click.pass_context
def show(ctx: click.Context) -> None:
    """Print every key in force as TOML; passwords are hidden."""
    click.echo(settings_file.as_toml(settings_of(ctx)))


@config.command(epilog="Example: pulmolink config example > pulmolink.toml")
def example() -> None:
    """Print a commented file with every key at its default."""
    click.echo(settings_file.example())
