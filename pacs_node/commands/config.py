"""config show | example."""

from __future__ import annotations

import click

from pacs_node import settings_file
from pacs_node.commands.context import settings_of
from pacs_node.service import utc_now


@click.group(epilog="Example: pulmolink config example > pulmolink.toml")
def config() -> None:
    """Show or check the configuration in force, or show an example file."""


@config.command(epilog="Example: pulmolink --config pulmolink.toml config show")
@click.pass_context
def show(ctx: click.Context) -> None:
    """Print every key in force as TOML; passwords are hidden."""
    click.echo(settings_file.as_toml(settings_of(ctx)))


@config.command(epilog="Example: pulmolink --config /etc/pulmolink.toml config check && systemctl reload pulmolink")
@click.pass_context
def check(ctx: click.Context) -> None:
    """Say what is wrong with the configuration and the models and certificates it names; nothing running is touched."""
    from pacs_node.commands.run import refuse_unusable
    from pacs_node.dicom import tls

    settings = settings_of(ctx)
    refuse_unusable(settings, shadow=True)
    if settings.tls.certificate:
        click.echo(tls.standing(settings.tls, utc_now()).sentence)
    click.echo("no mistakes found")


@config.command(epilog="Example: pulmolink config example > pulmolink.toml")
def example() -> None:
    """Print a commented file with every key at its default."""
    click.echo(settings_file.example())
