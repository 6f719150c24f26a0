"""`limner serve`."""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated

import structlog
import typer
import uvicorn

from api.console import err
from api.http.app import create_app, replay_erasures
from api.http.auth import is_loopback
from api.http.openapi import VERSION
from api.logs import log_json
from api.runtime import database
from api.settings import SettingsError, read_settings
from api.tracing import tracing
from store import keys

_GRACE_S = 30
_PAUSE_S = 5.0
# The worker gets SIGTERM when this process dies, however it dies; only Linux can promise that.
_WORKER = """
import ctypes, signal
if hasattr(ctypes.CDLL(None), "prctl"):
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
from api.cli import main
main()
"""


def command(
    host: Annotated[str | None, typer.Option(help="Address to listen at.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="0 is a free one.")] = None,
    with_worker: Annotated[bool, typer.Option("--with-worker", help="Run a worker too: for one machine.")] = False,
) -> None:
    """Serve the HTTP interface in one process; SIGTERM or Ctrl-C ends it when the requests under way have ended."""
    settings = read_settings()
    host = host or settings.api.host
    with tracing(settings.telemetry, "limner-serve", VERSION), database(settings) as opened:
        with opened.session() as session:
            locked = keys.any_key(session)
        if not locked and not is_loopback(host):
            raise SettingsError(
                f"There is no key, so the server listens at this machine only, and not at {host}. Make one with "
                "`limner keys create NAME --scope read`, or leave --host and LIMNER_API__HOST away."
            )
        app = create_app(settings, opened)
        replay_erasures(app.state.limner)
        log_json()
        with _listening(host, settings.api.port if port is None else port) as listener:
            _say(listener, locked=locked)
            server = uvicorn.Server(
                uvicorn.Config(
                    app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=_GRACE_S
                )
            )
            # The server takes signals itself, and passes them on once it has ended: so that what is open is closed.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            try:
                with _worker() if with_worker else nullcontext():
                    server.run(sockets=[listener])
            except KeyboardInterrupt:
                err.print("The server has ended.")


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise SettingsError(
            f"Port {port} of {host} cannot be listened at: {error.strerror}. Give others with --host and --port."
        ) from error
    with listener:
        yield listener


def _say(listener: socket.socket, *, locked: bool) -> None:
    host, port = listener.getsockname()[:2]
    err.print(
        f"Limner listens at http://{f'[{host}]' if ':' in host else host}:{port}, with pages for people; "
        "/docs says what programs may ask."
    )
    if not locked:
        err.print("There is no key: requests from this machine may do everything. `limner keys create` makes one.")


@contextmanager
def _worker() -> Iterator[None]:
    """Keep a worker running in a process of its own, which ends with this block."""
    ending = threading.Event()
    # The thread that starts the worker lives as long as it: else the worker would be told that its parent has died.
    keeper = threading.Thread(target=_keep_worker, args=[ending], name="worker")
    keeper.start()
    try:
        yield
    finally:
        ending.set()
        keeper.join()


def _keep_worker(ending: threading.Event) -> None:
    while not ending.is_set():
        with subprocess.Popen([sys.executable, "-c", _WORKER, "worker"]) as process:
            while process.poll() is None and not ending.wait(0.2):
                pass
            if ending.is_set():
                process.terminate()
                return
        structlog.get_logger("limner").error("the worker has ended, and is started again", code=process.returncode)
        ending.wait(_PAUSE_S)
