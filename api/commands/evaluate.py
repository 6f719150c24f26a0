"""`limner eval`: figures on how far Limner can be trusted."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from agent.embedder import Embedder
from agent.loading import prepare_catalogue
from agent.verify import Repetition
from api import runtime
from api.commands import evaluate_public, evaluate_run
from api.console import err, out
from api.runtime import embedder
from api.settings import read_settings
from eval import correcting, faithfulness
from eval import newcomers as new
from eval.ranking import Suite
from eval.verifier import OK, Row, judge, overall, recall
from eval.world import World, read_world

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
    sequential: Annotated[bool, typer.Option("--sequential", help="SASRec as well; needs torch-rechub.")] = False,
) -> None:
    """Measure recommendations on held-out events, beside tuned baselines."""
    settings = read_settings()
    with runtime.database(settings) as opened:
        embeds = runtime.embedder(settings)
        catalogue = prepare_catalogue(opened, embeds)
        world = read_world(opened, catalogue, embeds, settings.evidence_settings)
    found = Suite(world, embeds, seeds, trials, err.print, sequential).run()
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
def explanations(
    out_dir: OutDir = Path("reports"),
    users: Annotated[int, typer.Option(min=2, help="Size of the random sample.")] = 200,
    seeds: Annotated[int, typer.Option(min=1, help="Random orders for each user.")] = 5,
) -> None:
    """Measure how fast a score falls as the events go that explain it."""
    found = faithfulness.run(*_world(), users, seeds)
    table = _table(
        f"area under the deletion curve, {found['users']} users; how much larger than by parts",
        ("explainer", "area", "after 1", "after 5", "after 10", "difference", "95 % interval", "p"),
    )
    for name, figures in found["explainers"].items():
        curve = [f"{figures['curve'][n]:.3f}" for n in (1, 5, 10)]
        test = [*_difference(figures), f"{figures['p']:.2g}"] if "p" in figures else []
        table.add_row(name, f"{figures['area']:.3f}", *curve, *test)
    out.print(table)
    _write(out_dir, "explanations", {"seeds": seeds} | found)


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
    with runtime.database(settings) as opened:
        embeds = runtime.embedder(settings)
        catalogue = prepare_catalogue(opened, embeds)
        return read_world(opened, catalogue, embeds, settings.evidence_settings), embeds


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(box=None, title=title, title_justify="left")
    for column in columns:
        words = column in {"explainer", "among", "model", "correction", "figure"}
        table.add_column(column, justify="left" if words else "right")
    return table


def _difference(figures: dict[str, float]) -> tuple[str, str]:
    return f"{figures['difference']:+.3f}", f"{figures['low']:+.3f} … {figures['high']:+.3f}"


def _write(out_dir: Path, name: str, found: dict[str, Any]) -> None:
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / f"{name}.json"
    path.write_text(json.dumps(found, indent=2), encoding="utf-8")
    out.print(f"All of it is in {path}.")
