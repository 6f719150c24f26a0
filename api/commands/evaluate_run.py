"""`limner eval run|compare`: all suites on held-out behaviour, their report, and two reports side by side."""

import traceback
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from agent.unit import ModelInfo
from api import evaluating, runtime
from api.console import Told, err, out
from api.evaluating import Dataset
from api.run_report import FOLDER
from api.settings import Settings, read_settings
from eval import comparing, report
from eval.comparing import Change, Comparison
from eval.html import Page, to_page, view
from eval.options import Options, WriterName
from eval.profiles.judge import VERSION as JUDGE_VERSION
from eval.report import Data, Parameters, Report
from eval.running import NAMES, NONE, Models, run
from prompts.loader import load

SOME_FAILED = 3
INTERRUPTED = 130

_FEW = 4
"""Subjects; of more than that, the summary shows one metric."""

_WRITERS: dict[str, tuple[WriterName, ...]] = {
    "template": ("template",),
    "both": ("template", "llm"),
}
_SIGNS = {"better": "[green]better[/green]", "worse": "[red]worse[/red]", "missing": "[red]missing[/red]"}


def command(
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--out",
            file_okay=False,
            help="Gets report.json and report.html; a new folder under reports/ in the data directory, which the pages "
            "show, unless given.",
        ),
    ] = None,
    dataset: Annotated[Dataset, typer.Option(help="Your own store, or a public log in a database of its own.")] = "own",
    path: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="For ml-1m: the folder of its .dat files.")
    ] = None,
    suite: Annotated[str, typer.Option(help=f"Which suites, with commas between: {', '.join(NAMES)}.")] = ",".join(
        NAMES
    ),
    users: Annotated[int | None, typer.Option(min=2, help="Size of a random sample; all unless given.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often what is random is repeated.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    trials: Annotated[
        int, typer.Option(min=0, help="Points tried for each model that is tuned; 0: fixed parameters.")
    ] = 0,
    writer: Annotated[
        Literal["template", "both"], typer.Option(help="Whose profiles: the template's, or also the language model's.")
    ] = "template",
    llm_users: Annotated[int, typer.Option(min=2, help="Users of whom the language model writes.")] = 50,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="SASRec as well, in the ranking suite; needs torch-rechub.")
    ] = False,
    judge: Annotated[bool, typer.Option("--judge", help="Let the language model judge claims, and be judged.")] = False,
) -> None:
    """Measure profiles, recommendations and explanations on what users did later.

    Exit code 3: a suite failed; 130: interrupted. What the other suites found is written all the same.
    """
    if (dataset == "ml-1m") != (path is not None):
        raise typer.BadParameter("--path and --dataset ml-1m go together: the folder of ratings.dat and movies.dat")
    if sequential and find_spec("torch_rechub") is None:
        raise typer.BadParameter("--sequential needs torch-rechub: pip install torch-rechub")
    names = _names(suite)
    settings = read_settings()
    folder = out_dir or settings.home / FOLDER / f"{runtime.now():%Y-%m-%d-%H%M}"
    options = Options(users, seeds, seed, trials, _WRITERS[writer], llm_users, settings.language, sequential)
    made = measure(settings, dataset, path, Parameters.of(names, options, judge=judge))
    write(made, folder)
    _summarize(made, view(made))
    out.print(f"The report: {folder / 'report.html'}, for machines {folder / 'report.json'}.")
    if not made.whole:
        raise Told(INTERRUPTED if any(ended.state == "stopped" for ended in made.suites) else SOME_FAILED)


def measure(settings: Settings, dataset: Dataset, path: Path | None, asked: Parameters) -> Report:
    """Run suites on a data set, and say on standard error what is being done."""
    info: ModelInfo | None = None
    writes, models = "llm" in asked.writers, NONE
    with ExitStack() as stack:
        store = stack.enter_context(evaluating.opened(settings, dataset, path))
        embedder = runtime.embedder(settings)
        world = evaluating.world_of(store, settings, embedder)
        if writes or asked.judge:
            models, info = stack.enter_context(evaluating.models(settings, embedder, writes=writes, judges=asked.judge))
        ran = run(asked.suites, world, embedder, asked.options, lambda text: err.print(escape(text)), _failed, models)
    return Report(
        limner=report.installed(),
        created_at=runtime.now(),
        data=Data.of(dataset, world),
        parameters=asked,
        embedder=embedder.name,
        model=info.name if info else None,
        weights_hash=info.weights_hash if info else None,
        prompts=_prompts(models),
        suites=ran.suites,
        findings=ran.findings,
    )


def _prompts(models: Models) -> dict[str, str]:
    writing = models.llm[0].prompts if models.llm else {}
    return writing | ({"judge": load("judge", JUDGE_VERSION).label} if models.judge else {})


def write(made: Report, folder: Path) -> None:
    """Write a report into a folder, for machines and as a page."""
    folder.mkdir(parents=True, exist_ok=True)
    report.write(made, folder / "report.json")
    (folder / "report.html").write_text(to_page(made), encoding="utf-8")


def _names(suite: str) -> tuple[str, ...]:
    wanted = [name.strip() for name in suite.split(",") if name.strip()]
    if not wanted or (unknown := [name for name in wanted if name not in NAMES]):
        raise typer.BadParameter(
            f"no such suite: {', '.join(unknown) if wanted else 'none'}; known: {', '.join(NAMES)}"
        )
    return tuple(name for name in NAMES if name in wanted)


def _failed(name: str, error: Exception) -> None:
    err.print(escape("".join(traceback.format_exception(error))), style="dim")
    err.print(f"[red]The suite {name} failed:[/red] {escape(str(error))}. The others go on.")


def _summarize(made: Report, page: Page) -> None:
    """Print the answers, and the main figures."""
    for headline in page.headlines:
        out.print(f"[bold]{escape(headline.question)}[/bold] {escape(headline.answer)} {escape(headline.sentence)}")
    for suite in page.suites:
        out.print()
        table = Table(box=None, title=suite.title, title_justify="left", title_style="bold")
        for column in ("metric", "of", "figure", "95 % interval", "n"):
            table.add_column(column, justify="left" if column in {"metric", "of"} else "right")
        for group in suite.groups:
            many = any(len(panel.bars) > _FEW for panel in group.panels)
            for panel in group.panels[: 1 if many else None]:
                for bar in panel.bars:
                    name = f"{panel.metric} ({group.name})" if group.name else panel.metric
                    table.add_row(*map(escape, (name, bar.subject, bar.value, bar.interval, f"{bar.n:,}")))
        out.print(table)
    out.print()
    for ended in made.suites:
        if ended.state != "done":
            reason = f": {ended.reason}" if ended.reason else ""
            out.print(f"[red]{ended.name}: {ended.state}{escape(reason)}.[/red]")


def compare(
    first: Annotated[Path, typer.Argument(exists=True, help="A report, or its folder: what is compared with.")],
    second: Annotated[Path, typer.Argument(exists=True, help="Another one.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also list what is within its interval.")] = False,
    fail: Annotated[bool, typer.Option("--fail", help="Exit code 1 if a figure got worse, or is missing.")] = False,
) -> None:
    """Compare two reports figure by figure: what has changed by more than the first's 95 % interval.

    Profiles of the same users (200 at most) are compared pair by pair, by Wilcoxon's test.
    """
    found = comparing.compare(report.read(first), report.read(second))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_comparison(found, everything=everything)
    if fail and found.of("worse", "missing"):
        raise typer.Exit(1)


def print_comparison(found: Comparison, *, everything: bool = False) -> None:
    """Print what changed, and how many figures did not."""
    for difference in found.differences:
        out.print(f"[yellow]Not measured alike:[/yellow] {escape(difference)}.")
    quiet = () if everything else ("within", "no interval", "new")
    shown = [change for change in found.changes if change.verdict not in quiet]
    if shown:
        table = Table(box=None)
        for column in ("", "figure", "before", "95 % interval", "now", "p"):
            table.add_column(column, justify="left" if column in {"", "figure"} else "right")
        for change in sorted(
            shown, key=lambda change: list(_SIGNS).index(change.verdict) if change.verdict in _SIGNS else 9
        ):
            table.add_row(_SIGNS.get(change.verdict, change.verdict), *map(escape, _row(change)))
        out.print(table)
    counts = {verdict: len(found.of(verdict)) for verdict in dict.fromkeys(c.verdict for c in found.changes)}
    out.print(f"{len(found.changes)} figures: " + ", ".join(f"{count} {name}" for name, count in counts.items()) + ".")


def _row(change: Change) -> tuple[str, ...]:
    name = f"{change.suite}: {change.metric} of {change.subject}"
    where = ", ".join(p for p in (change.protocol, "" if change.segment == "all" else change.segment) if p)
    interval = "" if change.low is None or change.high is None else f"{change.low:.4g} to {change.high:.4g}"
    before, after = (("-" if value is None else f"{value:.4g}") for value in (change.before, change.after))
    p = "" if change.p is None else f"{change.p:.3f}"
    return f"{name} ({where})" if where else name, before, interval, after, p
