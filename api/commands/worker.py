"""`limner worker`."""

import asyncio
import signal
from typing import Annotated

import typer

from api.console import err
from api.http.openapi import VERSION
from api.logs import log_json
from api.runtime import database, now
from api.settings import read_settings
from api.tracing import tracing
from api.worker import Worker
from store import erasure
from store.privacy import hasher


def command(
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Chunks of users that are worked on at once.")] = 1,
) -> None:
    """Take jobs up, as many workers as you like on one database; SIGTERM or Ctrl-C ends one in good order."""
    settings = read_settings()
    log_json()
    with tracing(settings.telemetry, "limner-worker", VERSION), database(settings) as opened:
        erasure.replay(opened, hasher(settings.home, settings.privacy_key), settings.home, now())
        worker = Worker(settings, opened)

        async def run() -> None:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, worker.stop)
            err.print("The worker takes jobs up. Ctrl-C ends it.")
            await worker.run(concurrency)

        asyncio.run(run())
    err.print("The worker has ended.")
