"""`limner eval public`: the public protocol on MovieLens-100K, beside what others have published."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from api.console import err, out, progress_bar
from api.settings import read_settings
from eval import metrics
from eval import public as protocol
from store.datasets import fetch_ml_100k


def command(
    out_dir: Annotated[Path, typer.Option("--out", file_okay=False, help="Gets public.json.")] = Path("reports"),
) -> None:
    """Measure recommenders on MovieLens-100K as the library `recommenders` splits and scores it."""
    with progress_bar("fetching MovieLens-100K") as advance:
        folder = fetch_ml_100k(read_settings().home, advance)
    found = protocol.run(protocol.read(folder / "events.csv"), err.print)
    table = Table(box=None, title=f"25 % of each item's ratings held out, k = {protocol.K}", title_justify="left")
    for column in ("recommender", "MAP", "NDCG", "precision", "recall", "parameters"):
        table.add_column(column, justify="left" if column in {"recommender", "parameters"} else "right")
    for name, row in found.items():
        values = [f"{metrics.mean(row.by_user[metric]):.3f}" for metric in protocol.SHOWN]
        table.add_row(name, *values, ", ".join(f"{key} {value}" for key, value in row.point.items()))
    for name, published in protocol.PUBLISHED.items():
        table.add_row(f"{name}, published", *(f"{published[metric]:.3f}" for metric in protocol.SHOWN), "")
    out.print(table)
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / "public.json"
    report = {
        "figures": [figure.model_dump() for figure in protocol.figures(found)],
        "parameters": {name: dict(row.point) for name, row in found.items()},
    }
    path.write_text(json.dumps(report, indent=2), encoding="utf-8")
    out.print(f"All of it is in {path}.")
