"""vLLM's engine in the process of a batch: no server, no protocol; for one machine that does nothing else meanwhile.

    with engine(resolve("qwen2.5-coder-1.5b", home), ServeSettings()) as chat:
        asyncio.run(write_profiles(chat))

Requests are batched continuously, as the server does it, and made of the same parts: chat template, defaults of the
model, schema, temperature 0. No seed: it would end the CPU engine.
"""

import gc
import itertools
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing.process import BaseProcess
from typing import Any

from pydantic import BaseModel

from agent.chat import Answer, Message, cut_off, parsed
from agent.errors import ChatError, ModelError, Usage
from agent.models import Resolved
from agent.serving import (
    ServeSettings,
    engine_argv,
    installed_build,
    require_chat_model,
    require_memory,
    usable_cores,
    vllm_env,
)
from agent.slots import INTERACTIVE

_QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn"}


# The pipe closes when we end, however we end; a terminal's Ctrl-C is for us alone.
_WATCH = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.stdin.read()
for pid in sys.argv[1:]:
    try:
        os.kill(int(pid), signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class OfflineChat:
    """A chat model that runs in this process' own engine.

    It belongs to the first event loop that asks it.

    Args:
        running: vLLM's `AsyncLLM`.
        tokenizer: The model's, with its chat template.
        name: Of the model.
    """

    def __init__(self, running: Any, tokenizer: Any, name: str) -> None:
        self.name = name
        self._engine, self._tokenizer = running, tokenizer
        self._defaults: dict[str, Any] = running.model_config.get_diff_sampling_param()
        self._longest: int = running.model_config.max_model_len
        self._numbers = itertools.count()

    async def ask(
        self, messages: Sequence[Message], schema: type[Answer], max_tokens: int, *, priority: int = INTERACTIVE
    ) -> tuple[Answer, Usage]:
        """Ask the engine."""
        from vllm.exceptions import VLLMValidationError  # noqa: PLC0415 - takes seconds, and is not everywhere
        from vllm.inputs import TokensPrompt  # noqa: PLC0415
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError  # noqa: PLC0415

        started = time.perf_counter()
        prompt = self._tokens(messages)
        room = self._longest - len(prompt)
        if room < 1:
            raise ChatError("rejected", f"the prompt has {len(prompt)} tokens, and the model reads {self._longest}")
        asked = self._sampling(schema, min(max_tokens, room))
        try:
            request = f"limner-{next(self._numbers)}"
            answers = self._engine.generate(TokensPrompt(prompt_token_ids=prompt), asked, request, priority=priority)
            found = [answer async for answer in answers][-1]
        except (VLLMValidationError, ValueError) as error:
            raise ChatError("rejected", f"the engine does not take the prompt: {error}") from error
        except EngineDeadError as error:
            raise ChatError("unreachable", "the engine has ended; what it said last is above") from error
        except EngineGenerateError as error:
            raise ChatError("refused", f"the engine has failed: {error.__cause__}") from error
        written = found.outputs[0]
        usage = Usage(len(prompt), len(written.token_ids), time.perf_counter() - started)
        if written.finish_reason == "length":
            raise cut_off(max_tokens, written.text, usage)
        return parsed(written.text, schema, usage), usage

    async def aclose(self) -> None:
        """Do nothing: the engine ends with its block."""

    def close(self) -> None:
        """Let go of the engine."""
        self._engine = None

    def _tokens(self, messages: Sequence[Message]) -> list[int]:
        said = [{"role": role, "content": content} for role, content in messages]
        text = self._tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def _sampling(self, schema: type[BaseModel], max_tokens: int) -> Any:
        from vllm import SamplingParams  # noqa: PLC0415 - as above
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams  # noqa: PLC0415

        asked = {
            "temperature": 0.0,
            "max_tokens": max_tokens,
            "structured_outputs": StructuredOutputsParams(json=_json_schema(schema)),
            "output_kind": RequestOutputKind.FINAL_ONLY,
        }
        return SamplingParams.from_optional(**(self._defaults | asked))


@contextmanager
def _not_left_behind(processes: Collection[BaseProcess]) -> Iterator[None]:
    """Have these processes killed when we are: vLLM's would stay, and keep the memory."""
    pids = [str(process.pid) for process in processes]
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", _WATCH, *pids], stdin=subprocess.PIPE) as watch:
        try:
            yield
        finally:
            watch.kill()


@cache
def _json_schema(schema: type[BaseModel]) -> dict[str, Any]:
    return schema.model_json_schema()


@contextmanager
def engine(resolved: Resolved, settings: ServeSettings) -> Iterator[OfflineChat]:
    """Start an engine; it ends with the block.

    Args:
        resolved: A pulled chat model.
        settings: As for a server.

    Raises:
        ModelError: The model is not there or no chat model, vLLM is not installed, memory is short, or the engine did
            not start.
    """
    require_chat_model(resolved)
    build = installed_build()
    require_memory(resolved, settings, build)
    os.environ.update(vllm_env(settings, build, usable_cores()) | _QUIET)  # vLLM and its processes read it there
    from transformers import AutoTokenizer  # noqa: PLC0415 - as above
    from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415
    from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415

    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    given, _ = parser.parse_known_args([*engine_argv(resolved, settings, build), "--disable-log-stats"])
    others = set(multiprocessing.active_children())
    try:
        running = AsyncLLM.from_engine_args(AsyncEngineArgs.from_cli_args(given))
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelError(f"vLLM could not load {resolved.name}: {error}") from error
    try:
        with _not_left_behind(set(multiprocessing.active_children()) - others):
            chat = OfflineChat(running, AutoTokenizer.from_pretrained(resolved.path), resolved.name)
            try:
                yield chat
            finally:
                chat.close()
    finally:
        running.shutdown()
        del running
        gc.collect()  # its finalizer fails when the interpreter ends
