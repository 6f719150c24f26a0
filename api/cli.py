"""The command line: `limner`."""

import logging
import sys
import warnings
from typing import NoReturn

import typer
from rich.markup import escape

from agent.errors import AgentError
from api.commands import (
    ask,
    batch,
    claim,
    data,
    db,
    demo,
    doctor,
    evaluate,
    ingest,
    keys,
    model,
    profile,
    recommend,
    serve,
    simulate,
    user,
    worker,
)
from api.console import err
from prompts.loader import PromptError
from recommend.errors import RecommendError
from store.errors import StoreError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the number of the signal."""

app = typer.Typer(
    help="Limner reads behaviour logs and writes profiles whose every claim cites its events.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(db.app, name="db")
app.add_typer(data.app, name="data")
app.add_typer(model.app, name="model")
app.add_typer(profile.app, name="profile")
app.add_typer(claim.app, name="claim")
app.add_typer(evaluate.app, name="eval")
app.add_typer(keys.app, name="keys")
app.add_typer(user.app, name="user")
app.add_typer(batch.app, name="batch")
app.command("ingest")(ingest.command)
app.command("train")(recommend.train)
app.command("recommend")(recommend.recommend)
app.command("why")(recommend.why)
app.command("ask")(ask.command)
app.command("simulate")(simulate.command)
app.command("worker")(worker.command)
app.command("serve")(serve.command)
app.command("doctor")(doctor.command)
app.command("demo")(demo.command)


def main() -> None:
    """Run a command; an error that we know of is told in a sentence, with exit code 1."""
    # Libraries that load weights talk to the terminal; what they say is of no use there.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        app()
    except (StoreError, AgentError, PromptError, RecommendError) as error:
        err.print(f"[red]Error:[/red] {escape(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as end:  # typer turns an interrupt into this, without a word
        if end.code == INTERRUPTED:
            _interrupted()
        raise


def _interrupted() -> NoReturn:
    err.print("Stopped; nothing half-done was kept.")
    sys.exit(INTERRUPTED)
