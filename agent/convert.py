"""GGUF weights to the safetensors that vLLM and transformers load: `python -m agent.convert FOLDER OUT`.

Quantised weights are turned back into bfloat16, in which a CPU computes fastest. The work is done in a
process of its own, so that its gigabytes, progress bars and warnings stay out of the caller.
"""

import subprocess
import sys
from pathlib import Path

from agent.errors import ModelError

GGUF = "model.gguf"
_TAIL_LINES = 8


def convert(source: Path, out: Path, log: Path, keep_open: tuple[int, ...] = ()) -> None:
    """Convert `source/model.gguf` into the folder `out`, in a child process.

    Args:
        source: The folder with the GGUF file.
        out: Gets `model.safetensors`, the configuration and the tokenizer with its chat template.
        log: What the child says is kept here.
        keep_open: Descriptors that the child inherits; a lock held on one lasts as long as the child.

    Raises:
        ModelError: The child failed, or wrote no weights or no chat template.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        done = subprocess.run(
            [sys.executable, "-m", "agent.convert", str(source.resolve()), str(out.resolve())],
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


def main(source: Path, out: Path) -> None:
    """Convert in this process."""
    import torch  # noqa: PLC0415 - seconds and gigabytes that only the child pays for
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF, local_files_only=True)
    tokenizer.save_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=GGUF,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
        local_files_only=True,
    )
    model.save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
