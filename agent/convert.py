"""Weights to the safetensors that vLLM and transformers load: `python -m agent.convert FOLDER OUT [ADAPTER]`.

Quantised weights (GGUF) are turned back into bfloat16, in which a CPU computes fastest, and an adapter (LoRA) is merged
into them. The work is done in a process of its own, so that its gigabytes, progress bars and warnings stay out of the
caller.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from agent.errors import ModelError

GGUF = "model.gguf"
_TAIL_LINES = 8


def convert(source: Path, out: Path, log: Path, keep_open: tuple[int, ...] = (), adapter: Path | None = None) -> None:
    """Convert the weights in `source` into the folder `out`, in a child process.

    Args:
        source: The folder with `model.gguf`, or with a model that transformers reads.
        out: Gets `model.safetensors`, the configuration and the tokenizer with its chat template.
        log: What the child says is kept here.
        keep_open: Descriptors that the child inherits; a lock held on one lasts as long as the child.
        adapter: A folder with a LoRA adapter for these weights, as peft saves it.

    Raises:
        ModelError: The child failed, or wrote no weights or no chat template.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        done = subprocess.run(
            [sys.executable, "-m", "agent.convert", *(str(path.resolve()) for path in (source, out, adapter) if path)],
            cwd=Path(__file__).resolve().parents[1],  # where `agent` is found, installed or not
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            pass_fds=keep_open,
            check=False,
        )
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
        tail = "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])
        reason = "was killed, most likely for want of memory" if done.returncode < 0 else "failed"
        raise ModelError(f"The conversion of the weights {reason}. The end of {log}:\n{tail}")
    weights = list(out.glob("*.safetensors"))
    if not weights:
        raise ModelError(f"The conversion left no weights in {out}; see {log}.")
    for file in weights:
        file.chmod(0o644)  # transformers leaves them to their owner alone, unlike all that is beside them
    if not (out / "chat_template.jinja").is_file():
        raise ModelError(f"The weights of {source} carry no chat template, so they cannot chat.")


def main(source: Path, out: Path, adapter: Path | None = None) -> None:
    """Convert in this process."""
    import torch  # noqa: PLC0415 - seconds and gigabytes that only the child pays for
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415

    packed: dict[str, Any] = {}
    if (source / GGUF).is_file():
        packed = {"gguf_file": GGUF}
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, **packed)
    tokenizer.save_pretrained(out)
    if packed:
        packed["quantization_config"] = GgufConfig(dequantize=True)
    exact = torch.bfloat16 if adapter is None else torch.float32
    model = AutoModelForCausalLM.from_pretrained(source, dtype=exact, local_files_only=True, **packed)
    if adapter is not None:
        from peft import PeftModel  # noqa: PLC0415

        # Sums of double precision come out as the same bfloat16, and so with the same hash, on every machine.
        model = PeftModel.from_pretrained(model, adapter).double().merge_and_unload()
        model.to(dtype=torch.bfloat16)
    model.save_pretrained(out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
