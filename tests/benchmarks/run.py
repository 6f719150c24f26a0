"""All benchmarks: each figure beside its baseline of the same run, as tables and as JSON.

Run as `python -m tests.benchmarks.run [--only evidence,tokens] [--out FILE]`. It asserts nothing: figures of
a busy machine are figures of a busy machine. The exit status is 1 only where a benchmark could not run.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from agent.serving import free_memory, usable_cores
from api.commands.demo import DEMO_USERS
from api.console import err, out
from api.settings import Settings, read_settings
from tests.benchmarks import evidence, incremental, recommend, taught, tokens, writer

NAMES = ("ingest", "evidence", "writer", "taught", "tokens", "incremental", "recommend")
USUAL = tuple(name for name in NAMES if name != "taught")  # which needs a writer that was taught
Result = dict[str, Any]


def ingest(rows: int) -> Result:
    """Run `ingest.py`, which wants a process of its own."""
    script = Path(__file__).with_name("ingest.py")
    command = [sys.executable, str(script), "--rows", str(rows)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: Result = json.loads(done.stdout.splitlines()[-1])
    ways = (
        ("COPY, no index (baseline)", "copy_s"),
        ("COPY, key and (user_id, ts) index (baseline)", "copy_indexed_s"),
        ("limner ingest", "ingest_s"),
    )
    table = [
        {
            "way": way,
            "seconds": found[key],
            "events/s": found["rows"] / found[key],
            "ratio": found[key] / found["copy_s"],
        }
        for way, key in ways
    ]
    return {
        "title": f"Ingest of {rows:,} events (peak memory {found['ingest_peak_mb']:,.0f} MB)",
        "table": table,
        **found,
    }


def machine() -> Result:
    """Say where and when this was measured; the load tells whether other work was going on."""
    free = free_memory()
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(usable_cores()),
        "load_1m": round(os.getloadavg()[0], 2),
        "free_memory_gib": round(free / 2**30, 1) if free else None,
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }


def shown(value: object) -> str:
    """Write a cell.

    >>> shown(1234.5), shown(12.34), shown(1.2345), shown(7), shown("a")
    ('1,234', '12.3', '1.23', '7', 'a')
    """
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else escape(str(value))
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def print_result(result: Result) -> None:
    """Print a result's table, and what was required of it."""
    rows: list[Result] = result["table"]
    table = Table(box=None, title=result["title"], title_justify="left")
    for name, value in rows[0].items():
        table.add_column(name, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(shown(value) for value in row.values()))
    out.print()
    out.print(table)
    if "required" in result:
        out.print(f"Required: {result['required']}: {'met' if result['met'] else 'NOT MET'}.")
    for note in result.get("notes", ()):
        out.print(escape(note))


def run(names: Sequence[str], ways: dict[str, Callable[[], Result]]) -> dict[str, Result]:
    """Run benchmarks one by one; one that cannot run does not keep the others from it."""
    results: dict[str, Result] = {}
    for name in names:
        before = machine()
        try:
            result = ways[name]()
        except Exception as error:  # noqa: BLE001 - said, kept in the JSON, and told by the exit status
            err.print(f"[red]{name} could not run:[/red] {escape(str(error))}")
            results[name] = {"error": str(error), "trace": traceback.format_exc(), "machine": before}
            continue
        print_result(result)
        results[name] = result | {"machine": before}
    return results


def settings_for(model: str | None) -> Settings:
    """Read the settings, with another model if one is asked for."""
    settings = read_settings()
    if model is None:
        return settings
    return settings.model_copy(update={"llm": settings.llm.model_copy(update={"model": model})})


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(USUAL), help=f"of {', '.join(NAMES)} (default: all but taught)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON to this file")
    parser.add_argument("--rows", type=int, default=5_000_000, help="events that ingest takes in")
    parser.add_argument("--users", type=int, help="evidence, incremental: users at most")
    parser.add_argument("--real", action="store_true", help="incremental: by the model, not by a scripted server")
    parser.add_argument("--writer-users", type=int, default=8, help="writer, taught: users of the demo at most")
    parser.add_argument("--model", help="model of writer, taught and tokens (default: that of the settings)")
    arguments = parser.parse_args()
    arguments.only = [name.strip() for name in arguments.only.split(",") if name.strip()]
    if unknown := sorted(set(arguments.only) - set(NAMES)):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return arguments


def main() -> None:
    """Run what was asked for, print it and write it down."""
    arguments = parse()
    settings = settings_for(arguments.model)
    users = DEMO_USERS[: arguments.writer_users]
    ways: dict[str, Callable[[], Result]] = {
        "ingest": lambda: ingest(arguments.rows),
        "evidence": lambda: evidence.measure(settings, arguments.users),
        "writer": lambda: writer.measure(settings, users),
        "taught": lambda: taught.measure(settings, users),
        "tokens": lambda: tokens.measure(settings),
        "incremental": lambda: incremental.measure(settings, arguments.users or 300, real=arguments.real),
        "recommend": recommend.measure,
    }
    results = run(arguments.only, ways)
    text = json.dumps({"machine": machine(), "benchmarks": results}, indent=2, ensure_ascii=False)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n", encoding="utf-8")
        out.print(f"\nThe figures are in {arguments.out}.")
    else:
        out.print()
        out.out(text, highlight=False)
    sys.exit(any("error" in result for result in results.values()))


if __name__ == "__main__":
    main()
