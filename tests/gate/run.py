"""The gate: a small fixed evaluation of MovieLens-100K, against the committed figures.

Run as `python -m tests.gate.run [--move] [--only NAME]`. It fails (exit code 1) where a figure falls by more than the
95 % interval of the committed one, or is not measured any more; 2 says that it could not be run. What is measured is
what the committed reports say that they measured: `baseline.json` by the template, `llm.json` by the language model,
which is left out where that model is not at hand. `--move` commits to the figures as they are now.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from rich.markup import escape

from agent.models import resolve
from api.commands.evaluate_run import measure, print_comparison, write
from api.console import err, out
from api.settings import Settings, read_settings
from eval import report
from eval.comparing import compare
from eval.report import Report
from store.errors import DownloadError

HERE = Path(__file__).parent
NAMES = ("baseline", "llm")
WORSE, NOT_RUN = 1, 2


def passes(before: Report, after: Report) -> bool:
    """Say how the figures have changed, and whether none got worse or went missing."""
    found = compare(before, after)
    print_comparison(found)
    return after.whole and not found.of("worse", "missing")


def again(settings: Settings, before: Report) -> Report:
    """Measure what a report measured."""
    return measure(settings, "ml-100k", None, before.parameters)


def unlike(settings: Settings, before: Report) -> str | None:
    """Say why this machine cannot measure a report of a language model again; None if it can."""
    if before.model is None:
        return None
    if settings.llm.base_url:
        return None if settings.llm.model == before.model else f"the settings name {settings.llm.model}"
    found = resolve(settings.llm.model, settings.home)
    if not found.pulled or find_spec("vllm") is None:
        return "no model is at hand: `limner model pull` fetches it"
    return None if found.weights_hash == before.weights_hash else f"the settings name {found.name}"


def main(arguments: list[str] | None = None) -> int:
    """Run the gate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--move", action="store_true", help="commit to the figures as they are now")
    parser.add_argument("--baselines", type=Path, default=HERE, help="the folder of the committed reports")
    parser.add_argument("--only", choices=NAMES, help="leave the other one out")
    asked = parser.parse_args(arguments)
    settings, held = read_settings(), True
    for name in NAMES:
        file = asked.baselines / f"{name}.json"
        if not file.exists() or asked.only not in {None, name}:
            continue
        before = report.read(file)
        if (reason := unlike(settings, before)) is not None:
            out.print(f"{name}: left out; {escape(reason)}.")
            continue
        try:
            after = again(settings, before)
        except DownloadError as error:
            err.print(f"[red]The gate could not be run: it needs MovieLens-100K.[/red] {escape(str(error))}")
            return NOT_RUN
        write(after, settings.home / "gate" / name)
        out.print(f"\n[bold]{name}[/bold], {before.data.name}, {before.parameters.users} users:")
        held &= passes(before, after.bare())
        if asked.move and after.whole:
            report.write(after.bare(), file)
    if not held and not asked.move:
        out.print(
            "[red]The gate is closed: figures got worse, or are missing.[/red] If that is meant, "
            "`.venv/bin/python -m tests.gate.run --move` takes the figures as they are; say why in the changelog."
        )
    return 0 if held or asked.move else WORSE


if __name__ == "__main__":
    sys.exit(main())
