"""Teach a small model to write as a larger one does: LoRA over lessons, by peft and transformers' Trainer.

Torch and peft take seconds to import, so this module imports them only where it works.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from agent.convert import convert
from agent.errors import LessonError
from agent.lessons import Lesson, digest
from agent.models import CARD, Resolved, hash_weights, read_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

ADAPTER, MODEL = "adapter", "model"
_CHECKPOINTS = "checkpoints"
_IGNORED = -100  # labels that the loss leaves out

Progress = Callable[[int, int], None]
Metrics = dict[str, float]


class Course(BaseModel):
    """How a model is taught.

    Attributes:
        rank: Of the adapter, on all linear layers; it is scaled by 2.
        epochs: Passes over the lessons.
        learning_rate: At its height, after a warm-up of 3 % of the steps; it falls to 0 by a cosine.
        batch: Lessons in a step.
        max_tokens: Of a lesson; longer ones are left out.
        seed: Of the order of lessons and of the adapter's first weights.
        save_every: Steps between checkpoints.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    rank: int = Field(default=16, ge=1)
    epochs: float = Field(default=3.0, gt=0)
    learning_rate: float = Field(default=5e-4, gt=0)
    batch: int = Field(default=8, ge=1)
    max_tokens: int = Field(default=768, ge=16)
    seed: int = 0
    save_every: int = Field(default=100, ge=1)


def train(
    base: Resolved,
    taught: Sequence[Lesson],
    held_out: Sequence[Lesson],
    out: Path,
    course: Course,
    card: Mapping[str, Any],
    progress: Progress | None = None,
) -> Metrics:
    """Train an adapter, and merge it into the base.

    What was trained is `out/adapter` (bfloat16 safetensors with its card), and `out/model`, which can be served. A
    run that was stopped goes on from its last checkpoint, if it is called with the same lessons and course.

    Args:
        base: The small model; it is there.
        taught: Lessons to teach by.
        held_out: Lessons that the loss is measured on.
        out: The folder.
        course: How.
        card: What else the card says.
        progress: Called with the steps done and all steps.

    Returns:
        Mean loss per token of the answers before and after, on the held-out lessons (on the taught ones, if there are
        none); steps; seconds of this run.

    Raises:
        LessonError: There is no lesson to teach by that is short enough, or the folder has a run that was stopped of
            other lessons, another base or another course.
        ModelError: The merged model could not be written.
    """
    import torch  # noqa: PLC0415
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415
    from transformers import (  # noqa: PLC0415
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        PrinterCallback,
        set_seed,
    )
    from transformers.trainer_pt_utils import get_length_grouped_indices  # noqa: PLC0415
    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

    disable_progress_bar()  # type: ignore[no-untyped-call]

    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(base.path, local_files_only=True)
    rows = _rows(tokenizer, taught, course.max_tokens)
    if not rows:
        raise LessonError(f"There is no lesson of at most {course.max_tokens} tokens to teach by.")
    in_order = torch.Generator().manual_seed(course.seed)  # one order for all epochs, which a resumed run has, too
    lengths = [len(row["input_ids"]) for row in rows]
    order = get_length_grouped_indices(lengths, course.batch, generator=in_order)  # type: ignore[no-untyped-call]
    rows = [rows[n] for n in order]
    resumed = _is_begun(out / _CHECKPOINTS, f"{base.weights_hash} {digest(taught)} {course.model_dump_json()}")
    set_seed(course.seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32, local_files_only=True),
        LoraConfig(r=course.rank, lora_alpha=2 * course.rank, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer = _trainer()(
        model=model,
        args=_arguments(out / _CHECKPOINTS, course, len(rows)),
        train_dataset=rows,
        eval_dataset=_rows(tokenizer, held_out, course.max_tokens) or rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=_IGNORED),
        callbacks=[_telling(progress)] if progress else [],
    )
    trainer.remove_callback(PrinterCallback)
    before = trainer.evaluate()["eval_loss"]
    done = trainer.train(resume_from_checkpoint=resumed)
    metrics = {
        "loss_before": round(before, 4),
        "loss_after": round(trainer.evaluate()["eval_loss"], 4),
        "steps": done.global_step,
        "seconds": round(time.perf_counter() - started, 1),
    }
    model.to(dtype=torch.bfloat16)
    model.save_pretrained(str(out / ADAPTER))
    _without_paths(out / ADAPTER, base.name)
    said = {
        **card,
        "lessons": dict(Counter(lesson.role for lesson in taught)),
        "base": base.name,
        "base_sha256": base.weights_hash,
        "course": course.model_dump(),
        "metrics": metrics,
        "weights_sha256": hash_weights(out / ADAPTER),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
    }
    (out / ADAPTER / CARD).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    merge(base, out, str(card.get("name", out.name)))
    shutil.rmtree(out / _CHECKPOINTS)
    return metrics


def _arguments(checkpoints: Path, course: Course, lessons: int) -> "TrainingArguments":
    import torch  # noqa: PLC0415
    from transformers import TrainingArguments  # noqa: PLC0415

    on_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=course.epochs,
        learning_rate=course.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, int(0.03 * course.epochs * lessons / course.batch)),
        per_device_train_batch_size=course.batch,
        per_device_eval_batch_size=course.batch,
        seed=course.seed,
        data_seed=course.seed,
        save_steps=course.save_every,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        use_cpu=not on_gpu,
        bf16=True,
        train_sampling_strategy="sequential",
    )


def _trainer() -> "type[Trainer]":
    import torch  # noqa: PLC0415
    from transformers import Trainer  # noqa: PLC0415

    class Answers(Trainer):
        """Computes logits from the first token of an answer on: those of the prompts are no part of the loss."""

        def compute_loss(
            self,
            model: Any,
            inputs: Any,
            return_outputs: bool = False,  # noqa: FBT001
            num_items_in_batch: Any = None,
        ) -> Any:
            del num_items_in_batch
            labels = inputs.pop("labels")
            kept = labels.shape[1] - int((labels != _IGNORED).any(0).nonzero()[0]) + 1
            logits = model(**inputs, logits_to_keep=kept).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1).float(), labels[:, 1 - kept :].flatten(), ignore_index=_IGNORED
            )
            return (loss, {}) if return_outputs else loss

    return Answers


def _is_begun(checkpoints: Path, what: str) -> bool:
    """Tell whether there is a checkpoint to go on from, and refuse one of something else."""
    note = checkpoints / "of.txt"
    if note.is_file() and note.read_text(encoding="utf-8") != what:
        raise LessonError(
            f"{checkpoints} is of other lessons, another base or other settings. Remove it, or choose another folder."
        )
    checkpoints.mkdir(parents=True, exist_ok=True)
    note.write_text(what, encoding="utf-8")
    return any(checkpoints.glob("checkpoint-*"))


def merge(base: Resolved, out: Path, name: str) -> None:
    """Write `out/model`: the base with `out/adapter` in it, ready to be served.

    Raises:
        ModelError: It could not be written.
    """
    convert(base.path, out / MODEL, out / "merge.log", adapter=out / ADAPTER)
    card = {
        "name": name,
        "weights_sha256": hash_weights(out / MODEL),
        "taught": sorted(read_adapter(out / ADAPTER).taught),
    }
    (out / MODEL / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _without_paths(adapter: Path, base: str) -> None:
    """Name the base in peft's files where they name a folder of this machine; our card says the rest."""
    config = adapter / "adapter_config.json"
    said = json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": base}
    config.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (adapter / "README.md").unlink(missing_ok=True)


def _rows(
    tokenizer: "PreTrainedTokenizerBase", lessons: Sequence[Lesson], max_tokens: int
) -> list[dict[str, list[int]]]:
    """Return the tokens of lessons; those of the prompt are left out of the loss."""
    rows = []
    for lesson in lessons:
        asked = [{"role": role, "content": text} for role, text in lesson.messages]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        tail = tokenizer(lesson.answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        if len(head) + len(tail) <= max_tokens:
            labels = [_IGNORED] * len(head) + tail
            rows.append({"input_ids": head + tail, "attention_mask": [1] * len(labels), "labels": labels})
    return rows


def _telling(progress: Progress) -> "TrainerCallback":
    from transformers import TrainerCallback  # noqa: PLC0415

    class Telling(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            del args, control
            progress(state.global_step, state.max_steps)

    return Telling()
