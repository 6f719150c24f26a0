"""`limner eval`: figures on how far Limner can be trusted."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from agent.loading import prepare_catalogue
from agent.verify import Repetition
from api import runtime
from api.console import err, out
from api.runtime import embedder
from api.settings import read_settings
from eval.ranking import Suite
from eval.verifier import OK, Row, judge, overall, recall
from eval.world import read_world

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


@app.command()
def ranking(
    out_dir: Annotated[Path, typer.Option("--out", help="Gets ranking.json.")] = Path("reports"),
    seeds: Annotated[int, typer.Option(min=1, help="Orders of ties in time, and of training.")] = 5,
    trials: Annotated[int, typer.Option(min=1, help="Points tried for each model that is tuned.")] = 40,
) -> None:
    """Measure recommendations on held-out events, beside tuned baselines."""
    settings = read_settings()
    with runtime.database(settings) as opened:
        embeds = runtime.embedder(settings)
        catalogue = prepare_catalogue(opened, embeds)
        world = read_world(opened, catalogue, embeds, settings.evidence_settings)
    found = Suite(world, embeds, seeds, trials, err.print).run()
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / "ranking.json"
    path.write_text(json.dumps({"seeds": seeds, "trials": trials, "protocols": found}, indent=2), encoding="utf-8")
    for name, protocol in found.items():
        table = Table(
            box=None, title=f"{name}, NDCG@10 and recall@10; difference from tuned iALS", title_justify="left"
        )
        for column in ("model", "NDCG", "recall", "difference", "95 % interval", "p (Holm)"):
            table.add_column(column, justify="left" if column == "model" else "right")
        for model, figures in protocol["models"].items():
            row = [model, f"{figures['ndcg']:.3f}", f"{figures['recall']:.3f}"]
            if "p" in figures:
                interval = f"{figures['low']:+.3f} … {figures['high']:+.3f}"
                row += [f"{figures['difference']:+.3f}", interval, f"{figures['p']:.2g}"]
            table.add_row(*row)
        out.print(table)
        out.print()
    out.print(f"All of it is in {path}.")
