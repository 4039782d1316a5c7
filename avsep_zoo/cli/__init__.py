"""The command line ``avsep``: one file per command; nothing heavy is imported before a command runs.

An :class:`~avsep_zoo.errors.AvsepError` becomes one sentence on stderr and exit code 1 (a usage error: 2, an
interrupt: 130). ``AVSEP_ZOO_DEBUG=1`` shows its traceback instead.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from avsep_zoo import __version__
from avsep_zoo.cli.card import card
from avsep_zoo.cli.compose import compose
from avsep_zoo.cli.convert import convert
from avsep_zoo.cli.demo import demo
from avsep_zoo.cli.detect import detect
from avsep_zoo.cli.doctor import doctor
from avsep_zoo.cli.evaluate import evaluate
from avsep_zoo.cli.info import info
from avsep_zoo.cli.methods import list_methods
from avsep_zoo.cli.new import new
from avsep_zoo.cli.parity import parity
from avsep_zoo.cli.parts import parts
from avsep_zoo.cli.plugins import plugins
from avsep_zoo.cli.prepare import prepare
from avsep_zoo.cli.publish import publish
from avsep_zoo.cli.pull import pull
from avsep_zoo.cli.separate import separate
from avsep_zoo.cli.synth import synth
from avsep_zoo.cli.terminal import console, warn
from avsep_zoo.cli.train import train
from avsep_zoo.errors import AvsepError

__all__ = ["app", "main"]


class _Edge(TyperGroup):
    """Where errors that a user can change end."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (AvsepError, OSError) as error:
            if os.environ.get("AVSEP_ZOO_DEBUG") == "1":
                raise
            console(stderr=True).print(_sentence(error), style="red", soft_wrap=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            console(stderr=True).print("Stopped.")
            raise typer.Exit(130) from None


def _sentence(error: Exception) -> str:
    if isinstance(error, AvsepError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be used ({error.strerror}); check path, permissions and free space."
    return f"The system reports: {' '.join(str(error).split())}; 'avsep doctor' may say more."


app = typer.Typer(
    cls=_Edge,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"avsep-zoo {__version__}")
        raise typer.Exit


@app.callback()
def _avsep(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Separate the sound of what you see, name or point at."""


_COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Separate": {"separate": separate, "detect": detect, "demo": demo},
    "Train and evaluate": {
        "prepare": prepare, "compose": compose, "train": train, "evaluate": evaluate, "parity": parity, "synth": synth,
    },
    "Weights": {"pull": pull, "convert": convert, "publish": publish},
    "Look around": {"list": list_methods, "info": info, "parts": parts, "plugins": plugins, "doctor": doctor},
    "Write plugins": {"new": new},
}  # fmt: skip
for _panel, _commands in _COMMANDS.items():
    for _name, _command in _commands.items():
        app.command(_name, rich_help_panel=_panel)(_command)
app.add_typer(card, name="card", rich_help_panel="Weights")


def main() -> None:
    """Run the command line and exit."""
    warnings.showwarning = warn
    app(prog_name="avsep")
