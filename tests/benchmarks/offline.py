"""Sends recorded chat requests to vLLM's offline engine; `tests.benchmarks.writer` starts it as a process.

Run as `python -m tests.benchmarks.offline WORK.json RESULT.json`. WORK holds `argv`, the command that would
serve the model, from which the engine takes its settings; `warm_up`, a request; and `requests`.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vllm import LLM, EngineArgs, SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.usage.usage_lib import UsageContext

Request = dict[str, Any]


def engine_settings(argv: Sequence[str]) -> dict[str, Any]:
    """Return the engine's settings in a server's command, and those that vLLM would add for a server."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model")
    parser.add_argument("--dtype")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--max-num-seqs", type=int)
    parser.add_argument("--enforce-eager", action="store_true")
    given, _ = parser.parse_known_args(argv)
    found = {name: value for name, value in vars(given).items() if value is not None}
    config = EngineArgs(**found).create_engine_config(UsageContext.OPENAI_API_SERVER)
    # Left alone, the offline engine would read twice as many prompt tokens in a step as the server.
    return found | {"max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens}


def sampling(llm: LLM, request: Request) -> SamplingParams:
    """Return what the server makes of a request: the model's own defaults, temperature 0, no seed, the schema."""
    defaults = llm.model_config.get_diff_sampling_param()
    asked = {
        "temperature": 0.0,
        "max_tokens": request["max_tokens"],
        "structured_outputs": StructuredOutputsParams(json=request["schema"]),
    }
    return SamplingParams.from_optional(**(defaults | asked))


def run(llm: LLM, requests: Sequence[Request]) -> dict[str, Any]:
    """Send all requests as one batch."""
    started = time.perf_counter()
    outputs = llm.chat(
        [request["messages"] for request in requests],
        [sampling(llm, request) for request in requests],
        use_tqdm=False,
    )
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "tokens_in": sum(len(output.prompt_token_ids or ()) for output in outputs),
        "tokens_out": sum(len(output.outputs[0].token_ids) for output in outputs),
        "texts": [output.outputs[0].text for output in outputs],
    }


def main() -> None:
    """Start the engine, warm it up, and time the batch."""
    work = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    started = time.perf_counter()
    settings = engine_settings(work["argv"])
    llm = LLM(**settings)
    ready = time.perf_counter() - started
    run(llm, [work["warm_up"]])
    result = run(llm, work["requests"]) | {"engine_start_s": ready, "engine": settings}
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
