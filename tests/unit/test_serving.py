"""How vLLM is called, waited for and stopped; a small web server plays its part."""

import importlib.metadata
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agent import serving
from agent.errors import ModelError
from agent.models import CATALOGUE, ModelEntry, Resolved
from agent.serving import (
    ServeSettings,
    as_ranges,
    free_memory,
    installed_build,
    serve,
    served,
    usable_cores,
    vllm_argv,
    vllm_env,
)

QWEN = next(entry for entry in CATALOGUE if entry.tool_call_parser)
NO_TOOLS = next(entry for entry in CATALOGUE if entry.kind == "chat" and not entry.tool_call_parser)
EMBEDDER = next(entry for entry in CATALOGUE if entry.kind == "embedder")

# Answers /health after a while, as vLLM does; writes its process id.
FAKE = """
import http.server, os, sys, time
time.sleep(1.3)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *args):
        pass
print("ready", flush=True)
open(sys.argv[2], "w").write(str(os.getpid()))
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

# Says what vLLM says when its weights are damaged: the cause first, then much else.
DYING = """
import sys
print("(APIServer pid=1) WARNING 01-01 [x.py:2] This can cause errors like `OSError: [Errno 24] Too many`.")
print("(Worker pid=2) ERROR 01-01 00:00:00 [multiproc_executor.py:953] safe.SafetensorError: Not a header")
print("\\n".join(f"  line {n}" for n in range(40)))
print("RuntimeError: Engine core initialization failed.")
sys.exit(1)
"""


@pytest.fixture
def model(tmp_path: Path) -> Resolved:
    return a_model(tmp_path, NO_TOOLS)


def a_model(tmp_path: Path, entry: ModelEntry | None, longest: str = "8192") -> Resolved:
    path = tmp_path / "weights"
    path.mkdir()
    (path / "config.json").write_text(f'{{"max_position_embeddings": {longest}}}')
    (path / "model.safetensors").write_bytes(b"w" * 1000)
    return Resolved(entry.name if entry else "mine", path, "hash", entry, pulled=True, key="key")


def play(monkeypatch: pytest.MonkeyPatch, script: str, *args: str) -> None:
    monkeypatch.setattr(serving, "installed_build", lambda: "cpu")
    monkeypatch.setattr(serving, "vllm_argv", lambda _m, _s, _b, port: [sys.executable, "-c", script, str(port), *args])


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    def version(name: str) -> str:
        try:
            return versions[name.replace("-", "_")]
        except KeyError:
            raise importlib.metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(serving.importlib.metadata, "version", version)


def following(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


# The command


def test_the_command_for_the_cpu_build(model: Resolved):
    argv = vllm_argv(model, ServeSettings(), "cpu", 8001)
    assert argv[:3] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    assert following(argv, "--model") == str(model.path)
    assert following(argv, "--served-model-name") == model.name
    assert (following(argv, "--host"), following(argv, "--port")) == ("127.0.0.1", "8001")
    assert following(argv, "--max-model-len") == "4096"
    assert following(argv, "--max-num-seqs") == "16"
    assert following(argv, "--dtype") == "bfloat16"
    assert "--enforce-eager" in argv
    assert following(argv, "--scheduling-policy") == "priority"
    assert "--no-enable-log-requests" in argv
    assert "--enable-auto-tool-choice" not in argv


def test_the_gpu_build_keeps_its_own_choices(model: Resolved):
    argv = vllm_argv(model, ServeSettings(), "gpu", 8001)
    assert not {"--dtype", "--enforce-eager", "--max-num-seqs"} & set(argv)
    env = vllm_env(ServeSettings(), "gpu", [0, 1])
    assert not [name for name in env if name.startswith("VLLM_CPU")]
    assert env["HF_HUB_OFFLINE"] == env["VLLM_NO_USAGE_STATS"] == "1"


def test_a_model_that_calls_tools_is_served_with_its_parser(tmp_path: Path):
    argv = vllm_argv(a_model(tmp_path, QWEN), ServeSettings(), "cpu", 1)
    assert "--enable-auto-tool-choice" in argv
    assert following(argv, "--tool-call-parser") == "hermes"


def test_settings_are_passed_on(model: Resolved):
    settings = ServeSettings(max_model_len=2048, max_num_seqs=3, kv_cache_gib=5, extra_args=("--x", "1"))
    argv = vllm_argv(model, settings, "gpu", 1)
    assert following(argv, "--max-model-len") == "2048"
    assert following(argv, "--max-num-seqs") == "3"
    assert argv[-2:] == ["--x", "1"]
    assert vllm_env(settings, "cpu", [3, 1, 2])["VLLM_CPU_KVCACHE_SPACE"] == "5"
    assert vllm_env(settings, "cpu", [3, 1, 2])["VLLM_CPU_OMP_THREADS_BIND"] == "1-3"


@pytest.mark.parametrize(("longest", "expected"), [("1024", "1024"), ("null", "4096"), ("9999", "4096")])
def test_no_prompt_is_longer_than_the_model_can_read(tmp_path: Path, longest: str, expected: str):
    argv = vllm_argv(a_model(tmp_path, None, longest), ServeSettings(), "cpu", 1)
    assert following(argv, "--max-model-len") == expected


# The machine


@pytest.mark.parametrize(
    ("cores", "expected"), [([0], "0"), ([0, 1], "0-1"), ([5, 0, 1, 2, 7], "0-2,5,7"), ([2, 4], "2,4")]
)
def test_ranges_of_cores(cores: list[int], expected: str):
    assert as_ranges(cores) == expected


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 4), ("200000 100000", 2), ("50000 100000", 1), (None, 4)]
)
def test_a_containers_quota_of_processor_time_bounds_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str | None, expected: int
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3}, raising=False)
    if quota:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usable_cores(tmp_path) == list(range(expected))


def test_free_memory_is_the_least_that_anybody_allows(tmp_path: Path):
    meminfo = tmp_path / "meminfo"
    assert free_memory(meminfo, tmp_path) is None
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:    8000 kB\n")
    assert free_memory(meminfo, tmp_path) == 8000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500\n")
    (tmp_path / "memory.current").write_text("3000\n")
    assert free_memory(meminfo, tmp_path) == 8000 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_memory(meminfo, tmp_path) == 5000 - 3000 + 500


def test_the_build_is_the_one_that_is_installed(monkeypatch: pytest.MonkeyPatch):
    installed(monkeypatch, vllm_cpu="0.32.0")
    assert installed_build() == "cpu"
    installed(monkeypatch, vllm="0.26.0")
    assert installed_build() == "gpu"
    installed(monkeypatch, vllm="0.26.0+cpu")
    assert installed_build() == "cpu"
    installed(monkeypatch, vllm="0.26.0", vllm_cpu="0.32.0")
    with pytest.raises(ModelError, match="Uninstall both"):
        installed_build()
    installed(monkeypatch)
    with pytest.raises(ModelError, match=r"not installed\. Run `make setup`"):
        installed_build()


# What is refused before anything starts


def test_a_model_that_is_not_there_is_refused(tmp_path: Path, model: Resolved):
    with pytest.raises(ModelError, match=f"limner model pull {model.name}"):
        serve(replace(model, pulled=False), tmp_path)


def test_an_embedder_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="cannot be served as a chat model"):
        serve(a_model(tmp_path, EMBEDDER), tmp_path)


def test_too_little_memory_is_said_before_anything_starts(
    tmp_path: Path, model: Resolved, monkeypatch: pytest.MonkeyPatch
):
    play(monkeypatch, "raise SystemExit('started')")
    monkeypatch.setattr(serving, "free_memory", lambda: 3 << 30)
    need = NO_TOOLS.min_memory_gib + 1  # one more for the larger cache
    with pytest.raises(ModelError, match=rf"needs about {need} GiB of memory, and 3\.0 GiB are free"):
        serve(model, tmp_path, ServeSettings(kv_cache_gib=3))
    assert not (tmp_path / "logs").exists()
    with pytest.raises(ModelError, match="vLLM could not serve"):  # it did start now
        serve(model, tmp_path, ServeSettings(check_memory=False))


def test_a_model_that_nobody_has_measured_needs_twice_its_weights(tmp_path: Path):
    own = a_model(tmp_path, None)
    assert serving._memory_need(own, ServeSettings()) == 2 * 1000 + 4 * 2**30


# Starting and stopping


def test_it_waits_for_health_and_stops_with_its_last_user(
    tmp_path: Path, model: Resolved, monkeypatch: pytest.MonkeyPatch
):
    play(monkeypatch, FAKE, str(tmp_path / "pid"))
    waited: list[float] = []
    with serve(model, tmp_path, waiting=waited.append) as first:
        pid = int((tmp_path / "pid").read_text())
        assert first.base_url.endswith("/v1")
        assert first.model == model.name
        assert first.log == tmp_path / "logs" / "vllm-key.log"
        assert "ready" in first.log.read_text()
        info = served(model, tmp_path)
        assert info is not None
        assert info["base_url"] == first.base_url
        with serve(model, tmp_path) as second:
            assert second.base_url == first.base_url
            assert (first.lease.started, second.lease.started) == (True, False)
        os.kill(pid, 0)
    assert waited
    assert waited == sorted(waited)
    assert served(model, tmp_path) is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_that_dies_leaves_its_cause_and_the_end_of_its_log(
    tmp_path: Path, model: Resolved, monkeypatch: pytest.MonkeyPatch
):
    play(monkeypatch, DYING)
    with pytest.raises(ModelError) as caught:
        serve(model, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"vLLM could not serve {model.name}: safe.SafetensorError: Not a header. ")
    assert "line 39" in message
    assert "line 3\n" not in message
    assert str(tmp_path / "logs" / "vllm-key.log") in message
    assert served(model, tmp_path) is None


def test_a_server_that_never_answers_is_given_up_and_stopped(
    tmp_path: Path, model: Resolved, monkeypatch: pytest.MonkeyPatch
):
    play(monkeypatch, "import time; time.sleep(300)")
    began = time.monotonic()
    with pytest.raises(ModelError, match="did not answer within 1 s"):
        serve(model, tmp_path, ServeSettings(start_timeout_s=1.0))
    assert time.monotonic() - began < 60
    assert served(model, tmp_path) is None


def test_a_server_with_other_weights_is_not_joined(tmp_path: Path, model: Resolved, monkeypatch: pytest.MonkeyPatch):
    play(monkeypatch, FAKE, str(tmp_path / "pid"))
    with serve(model, tmp_path):
        with pytest.raises(ModelError, match="with other weights"):
            serve(replace(model, weights_hash="newer"), tmp_path)
        assert served(model, tmp_path) is not None
