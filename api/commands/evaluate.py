"""`limner eval`: figures on how far Limner can be trusted."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from agent.embedder import Embedder
from agent.verify import Repetition
from api import evaluating, runtime
from api.commands import evaluate_public, evaluate_run
from api.console import err, out
from api.settings import read_settings
from eval import correcting
from eval import newcomers as new
from eval.verifier import OK, Row, judge, overall, recall
from eval.world import World

app = typer.Typer(help="Measure how far Limner can be trusted.", no_args_is_help=True)


app.command("run")(evaluate_run.command)
app.command("compare")(evaluate_run.compare)
app.command("public")(evaluate_public.command)


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
    found = list(judge(folder, Repetition(runtime.embedder(read_settings()).embed)))
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


OutDir = Annotated[Path, typer.Option("--out", help="Gets the figures as JSON.")]


@app.command()
def newcomers(
    out_dir: OutDir = Path("reports"),
    seeds: Annotated[int, typer.Option(min=1, help="How many times the folds are dealt.")] = 1,
    trials: Annotated[int, typer.Option(min=1, help="Points tried for each model and fold.")] = 40,
) -> None:
    """Measure what new users are recommended, and how new items are ranked."""
    world, embeds = _world()
    found = new.run(world, embeds, seeds, trials, err.print)
    table = _table(
        "new users, NDCG@10 by number of known events; the fused scorer's difference from popularity",
        ("known", *new.USER_MODELS, "p over naive", "difference", "95 % interval", "of popularity"),
    )
    for count, by_model in found["users"]["by_known"].items():
        fused = by_model["fused"]
        popular = fused["over popularity"]
        table.add_row(
            count,
            *(f"{by_model['ndcg'][name]:.3f}" for name in new.USER_MODELS),
            f"{fused['over naive iALS']['p']:.2g}",
            *_difference(popular),
            f"{popular['relative_low']:+.1%} … {popular['relative_high']:+.1%}",
        )
    out.print(table)
    beaten = found["users"]["beats_popularity_from"]
    out.print(f"Popularity is beaten from {beaten} known events on." if beaten else "Popularity is not beaten.")
    table = _table(
        "new items, NDCG@10; the fused scorer's difference", ("among", "model", "NDCG", "difference", "interval", "p")
    )
    for among, figures in found["items"]["among"].items():
        for name, value in figures["ndcg"].items():
            test = figures.get(f"over {name}")
            table.add_row(among, name, f"{value:.3f}", *([*_difference(test), f"{test['p']:.2g}"] if test else []))
    out.print(table)
    _write(out_dir, "newcomers", {"seeds": seeds, "trials": trials} | found)


@app.command()
def corrections(
    out_dir: OutDir = Path("reports"),
    users: Annotated[int, typer.Option(min=0, help="Size of the random sample; 0 takes all.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Claims that each user adds, one at a time.")] = 1,
) -> None:
    """Measure whether rejecting and adding claims changes what is recommended."""
    found = correcting.run(*_world(), users, seeds)
    table = _table(f"{found['users']} users correct a claim", ("correction", "figure", "value"))
    for action in ("reject", "add"):
        for name, value in found[action].items():
            shown = "none" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"
            table.add_row(action, name.replace("_", " "), shown)
    out.print(table)
    _write(out_dir, "corrections", {"seeds": seeds} | found)


def _world() -> tuple[World, Embedder]:
    settings = read_settings()
    embeds = runtime.embedder(settings)
    with evaluating.opened(settings, "own", None) as store:
        return evaluating.world_of(store, settings, embeds), embeds


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(box=None, title=title, title_justify="left")
    for column in columns:
        words = column in {"among", "model", "correction", "figure"}
        table.add_column(column, justify="left" if words else "right")
    return table


def _difference(figures: dict[str, float]) -> tuple[str, str]:
    return f"{figures['difference']:+.3f}", f"{figures['low']:+.3f} … {figures['high']:+.3f}"


def _write(out_dir: Path, name: str, found: dict[str, Any]) -> None:
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / f"{name}.json"
    path.write_text(json.dumps(found, indent=2), encoding="utf-8")
    out.print(f"All of it is in {path}.")
