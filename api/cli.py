"""The command line: `limner`."""

import logging
import sys
import warnings
from importlib import import_module
from typing import Any, NoReturn, cast

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from agent.errors import AgentError
from api.console import Told, err
from eval.errors import EvaluationError
from prompts.loader import PromptError
from recommend.errors import RecommendError
from store.errors import StoreError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the number of the signal."""

_COMMANDS = {
    "db": ("db", "app"),
    "data": ("data", "app"),
    "model": ("model", "app"),
    "profile": ("profile", "app"),
    "claim": ("claim", "app"),
    "eval": ("evaluate", "app"),
    "keys": ("keys", "app"),
    "user": ("user", "app"),
    "batch": ("batch", "app"),
    "ingest": ("ingest", "command"),
    "themes": ("themes", "app"),
    "train": ("recommend", "train"),
    "recommend": ("recommend", "recommend"),
    "why": ("recommend", "why"),
    "ask": ("ask", "command"),
    "simulate": ("simulate", "command"),
    "writer": ("writer", "app"),
    "worker": ("worker", "command"),
    "serve": ("serve", "command"),
    "doctor": ("doctor", "command"),
    "demo": ("demo", "command"),
    "demo-server": ("demo_server", "command"),
}
"""Where each command is: a module of `api.commands`, and what in it."""


class _Commands(TyperGroup):
    """The commands, each of which is imported when it is asked for: all together take seconds."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return their names, in the order of the help."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:
        """Import a command; None if there is none of this name."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        found = getattr(import_module(f"api.commands.{module}"), name)
        if isinstance(found, typer.Typer):
            group = typer.main.get_group(found)
            group.name = cmd_name
            return group
        single = typer.Typer(add_completion=False)
        single.command(cmd_name)(found)
        return cast("TyperCommand", typer.main.get_command(single))


app = typer.Typer(
    cls=_Commands,
    help="Limner reads behaviour logs and writes profiles whose every claim cites its events.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def limner() -> None:
    """Limner reads behaviour logs and writes profiles whose every claim cites its events."""


def main() -> None:
    """Run a command; an error that we know of is told in a sentence, with exit code 1."""
    # Libraries that load weights talk to the terminal; what they say is of no use there.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        app()
    except (StoreError, AgentError, PromptError, RecommendError, EvaluationError) as error:
        err.print(f"[red]Error:[/red] {escape(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as end:  # typer turns an interrupt into this, without a word
        if end.code == INTERRUPTED and not isinstance(end, Told):
            _interrupted()
        raise


def _interrupted() -> NoReturn:
    err.print("Stopped; nothing half-done was kept.")
    sys.exit(INTERRUPTED)
