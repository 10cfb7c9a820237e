"""`pulmolink`: what a person types. Only names and one-line helps are here; a command's module loads when it runs."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import click

from pacs_node import CODE_VERSION

COMMANDS: dict[str, tuple[str, str]] = {
    # name: (module under pacs_node.commands, one-line help)
    "serve": ("run", "Run everything: receiver, workers, scheduler, web."),
    "receive": ("run", "Run the DICOM receiver alone."),
    "work": ("run", "Run one worker alone: estimates, reports, deliveries."),
    "shadow": ("shadow", "Run a second package beside the service; never reported."),
    "schedule": ("run", "Run the scheduler alone."),
    "watch": ("watch", "Take in what ECG carts drop into a folder."),
    "web": ("run", "Run the web port alone: /healthz, /readyz, /metrics."),
    "demo": ("demo", "Send eight phantom patients through a node and show what each got."),
    "doctor": ("doctor", "Check configuration, database, objects, model and destinations."),
    "status": ("listing", "Count matches by state, the queue's age, destinations."),
    "matches": ("listing", "List radiographs, their ECGs and estimates."),
    "held": ("listing", "List objects that were held, refused or ignored, and why."),
    "accept": ("accept", "Settle which of several objects with one UID counts, or whose an ECG is."),
    "show": ("listing", "Show one match whole."),
    "rerun": ("redo", "Run matches again where inputs, model or configuration changed."),
    "deliver": ("redo", "Send stored reports again, or drive failed deliveries again."),
    "ecg": ("ecg", "Bring in an ECG file that is not DICOM; look at how one is read."),
    "import": ("bring", "Take a folder of DICOM files through the same steps, without a network."),
    "export": ("take", "Write one row a current result to a file."),
    "model": ("model", "Train, judge, package and install models."),
    "phantoms": ("phantoms", "Write DICOM examinations of synthetic patients."),
    "config": ("config", "Show or check the configuration in force, or show an example file."),
    "db": ("database", "Upgrade, verify and back up the database."),
}

SUPERVISED = "--supervised"
"""Given by `serve` to the processes it starts: their standard error is a log, read by programs."""

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_IN_PART = 3
EXIT_INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group that imports a command's module only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"pacs_node.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name}_" if cmd_name == "import" else cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Research use only. Example: pulmolink --config /etc/pulmolink.toml serve",
)
@click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file; else $PULMOLINK_CONFIG, else built-in defaults.",
)
@click.version_option(CODE_VERSION, prog_name="pulmolink")
@click.pass_context
def root(ctx: click.Context, config: Path | None) -> None:
    """Estimate mean pulmonary artery pressure from a chest radiograph and an ECG, between PACS and PACS."""
    ctx.obj = config


def main() -> None:
    """The entry point; known errors become one sentence and an exit status, never a traceback."""
    try:
        # Without standalone mode click gives the status of ctx.exit back as a value.
        status = root.main(prog_name="pulmolink", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.Abort:
        click.echo("pulmolink: interrupted", err=True)
        sys.stdout.flush()
        # Not sys.exit: it would wait for library threads, which may wait for a peer.
        os._exit(EXIT_INTERRUPTED)
    except click.UsageError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        click.echo(f"pulmolink: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - the outermost loop of the command line
        from pacs_node.commands.errors import explain

        sentence, status = explain(error)
        if SUPERVISED in sys.argv:
            from pacs_node.log import say_ended

            say_ended(sentence, status)
        else:
            click.echo(f"pulmolink: {sentence}", err=True)
        sys.exit(status)
