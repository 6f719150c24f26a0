"""How many reads the server answers in a second, by kind; locust asks, in a process of its own.

Run as `make bench-load`, after `make demo`: it makes the environment of locust, which has a plugin for pytest that ours
should not load. For each kind, `limner serve` is started anew on a free port of this machine, answers one request (so
that the model is loaded), and is then asked without a pause. The database is that of the settings; the key, and the
audit rows under it, are gone at the end. It asserts nothing but that no request fails.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select
from sqlmodel import col

from api.runtime import database
from api.settings import read_settings
from store.database import Database
from store.tables import ItemRow, ProfileRow
from tests.benchmarks.run import Result, machine, print_result
from tests.benchmarks.serving import Server, own_key, served

KINDS = {"profiles": 400, "recommendations": 150, "explanations": 100}
"""Kinds of reads, and how many in a second are required."""
P99_MS = 100
"""Required of recommendations."""


def measure(opened: Database, locust: str, kinds: list[str], seconds: int, clients: int) -> Result:
    """Measure each kind."""
    with tempfile.TemporaryDirectory(prefix="limner-load-") as work, _told(opened, Path(work)) as told:
        table = [_of_kind(kind, locust, told, seconds, clients) for kind in kinds]
    met = [
        row["requests/s"] >= KINDS[row["kind"]]
        and not row["failed"]
        and (row["kind"] != "recommendations" or row["p99 ms"] < P99_MS)
        for row in table
    ]
    required = ", ".join(f"{kind} {KINDS[kind]}/s" for kind in kinds)
    return {
        "title": f"Reads by {clients} clients without a pause, {seconds} s each",
        "table": table,
        "required": f"{required}; p99 of recommendations under {P99_MS} ms; none failed",
        "met": all(met),
    }


@contextmanager
def _told(opened: Database, work: Path) -> Iterator[Path]:
    """Write what the clients need to know into a file; the key is gone at the end, with what was noted under it."""
    with opened.session() as session:
        users = list(session.scalars(select(col(ProfileRow.user_id)).where(col(ProfileRow.active))))
        items = list(session.scalars(select(col(ItemRow.item_id))))
    with own_key(opened, "read") as token:
        path = work / "told.json"
        path.write_text(json.dumps({"token": token, "users": users, "items": items}), encoding="utf-8")
        yield path


def _of_kind(kind: str, locust: str, told: Path, seconds: int, clients: int) -> Result:
    with served() as server:
        _warm(server, kind, told)
        cpu = server.cpu_s()
        command = [locust, "--headless", "--json", "--skip-log", "--host", server.url, "--run-time", f"{seconds}s"]
        command += ["--users", str(clients), "--spawn-rate", str(clients), "--locustfile"]
        command += [str(Path(__file__).with_name("locustfile.py")), kind.capitalize()]
        done = subprocess.run(
            command, env={**os.environ, "LIMNER_LOAD": str(told)}, stdout=subprocess.PIPE, text=True, check=False
        )
        cpu = server.cpu_s() - cpu
    found: Result = json.loads(done.stdout)[0]
    took = found["last_request_timestamp"] - found["start_time"]
    return {
        "kind": kind,
        "requests": found["num_requests"],
        "failed": found["num_failures"],
        "requests/s": found["num_requests"] / took,
        "median ms": _percentile(found["response_times"], 0.5),
        "p99 ms": _percentile(found["response_times"], 0.99),
        "longest ms": float(found["max_response_time"]),
        "server CPU ms": cpu / found["num_requests"] * 1_000,
        "load": os.getloadavg()[0],
    }


def _warm(server: Server, kind: str, told: Path) -> None:
    """Ask once, which loads the model."""
    known: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
    path = {"profiles": "profile", "explanations": f"explanations/{known['items'][0]}"}.get(kind, kind)
    headers = {"Authorization": f"Bearer {known['token']}"}
    httpx.get(f"{server.url}/v1/users/{known['users'][0]}/{path}", headers=headers, timeout=120).raise_for_status()


def _percentile(times: dict[str, int], share: float) -> float:
    """Return the time, in ms, under which this share of the requests is; locust rounds those above 100 ms.

    >>> _percentile({"1": 98, "5": 1, "7": 1}, 0.99)
    5.0
    """
    left = share * sum(times.values())
    for time in sorted(times, key=float):
        left -= times[time]
        if left <= 0:
            return float(time)
    raise ValueError("no request has ended")


def main() -> None:
    """Measure, print, and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--locust", default="locust", help="the program (default: locust on the path)")
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, with commas between (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each kind")
    parser.add_argument("--clients", type=int, default=4, help="each asks again as soon as it is answered")
    parser.add_argument("--out", type=Path, help="write the figures as JSON to this file")
    arguments = parser.parse_args()
    kinds = [kind.strip() for kind in arguments.only.split(",")]
    if unknown := sorted(set(kinds) - set(KINDS)):
        parser.error(f"there is no kind {', '.join(unknown)}; there are {', '.join(KINDS)}")
    before = machine()
    with database(read_settings()) as opened:
        result = measure(opened, arguments.locust, kinds, arguments.seconds, arguments.clients)
    print_result(result)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result | {"machine": before}, indent=2) + "\n", encoding="utf-8")
    sys.exit(any(row["failed"] for row in result["table"]))


if __name__ == "__main__":
    main()
