"""`limner eval`: figures on how far Limner can be trusted."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from agent.verify import Repetition
from api.console import out
from api.runtime import embedder
from api.settings import read_settings
from eval.verifier import OK, Row, judge, overall, recall

app = typer.Typer(help="Measure how far Limner can be trusted.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Measure how far Limner can be trusted."""


@app.command()
def verifier(
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Labelled sentences, a JSON file a domain.")
    ],
    rows: Annotated[bool, typer.Option("--rows", help="Also list the sentences that were judged wrongly.")] = False,
) -> None:
    """Measure the verifier on labelled sentences: recall by kind of error, and false alarms."""
    found = list(judge(folder, Repetition(embedder(read_settings()).embed)))
    if not found:
        raise typer.BadParameter(f"{folder} holds no labelled sentences (*.json)")
    table = Table(box=None)
    for column in ("kind", "sentences", "refused", "share"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for label, (total, refused) in recall(found).items():
        name = "true sentences (false alarms)" if label == OK else label
        table.add_row(name, str(total), str(refused), f"{refused / total:.3f}")
    out.print(table)
    for domain in dict.fromkeys(row.domain for row in found):
        caught, alarms = overall([row for row in found if row.domain == domain])
        out.print(f"{domain}: recall {caught:.3f}, false alarms {alarms:.3f}")
    caught, alarms = overall(found)
    out.print(f"[bold]all: recall {caught:.3f}, false alarms {alarms:.3f}[/bold]")
    if rows:
        for row in found:
            if row.verdict.passes != (row.label == OK):
                _print(row)


def _print(row: Row) -> None:
    sentence = row.sentence
    out.print(escape(f"{row.label} {sentence['id']}: {sentence['name']} | {sentence['statement']}"))
    for violation in row.verdict.violations:
        out.print(escape(f"    {violation.kind}: {violation.detail}"))
