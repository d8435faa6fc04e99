"""The trainers of transformers and TRL as shipped, around a model with random weights."""

import tempfile
import time
from typing import Any

import torch
from torch import nn

from labkit import project
from labkit.memory import building
from labkit.memory.setup import TrainingSetup
from labkit.memory.shapes import ModelShape
from labkit.memory.stepping import PADS

OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_8bit",
    "paged_adamw_32bit": "paged_adamw_32bit",
    "sgd": "sgd",
}


def made(
    base: nn.Module,
    shape: ModelShape,
    setup: TrainingSetup,
    steps: int,
    marks: Any,  # noqa: ANN401
) -> tuple[Any, nn.Module]:
    """A trainer that runs `steps` steps and calls `marks` from the second on, and its model."""
    build = _sft if setup.stack == "trl" else _plain
    trainer = build(base, shape, setup, arguments(setup, steps))
    clock = _clock(marks)
    trainer.add_callback(clock)
    trainer.labkit_clock = clock
    return trainer, trainer.model


def seconds(trainer: Any) -> list[float]:  # noqa: ANN401
    """Seconds of each step but the first."""
    return trainer.labkit_clock.seconds[1:]


def arguments(setup: TrainingSetup, steps: int) -> dict[str, Any]:
    """What both kinds of TrainingArguments are told."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "max_steps": steps,
        "per_device_train_batch_size": setup.batch,
        "gradient_accumulation_steps": setup.accumulation,
        "gradient_checkpointing": setup.checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "optim": OPTIMIZERS[setup.optimizer],
        "bf16": setup.autocast,
        "use_cpu": not torch.cuda.is_available(),
        "learning_rate": 1e-4,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }


def _rows(shape: ModelShape, setup: TrainingSetup, length: int, count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    top = min(shape.vocab, 1000)
    return torch.randint(10, top, (count, length), generator=generator).tolist()


def _count(setup: TrainingSetup, given: dict[str, Any]) -> int:
    return given["max_steps"] * setup.batch * setup.accumulation


def _plain(base: nn.Module, shape: ModelShape, setup: TrainingSetup, given: dict[str, Any]) -> Any:  # noqa: ANN401
    """Trainer on a model that is adapted beforehand; every row has its attention mask."""
    from transformers import Trainer, TrainingArguments

    short = PADS if setup.padded else 0
    items = []
    for number, ids in enumerate(_rows(shape, setup, setup.seq_len, _count(setup, given))):
        pads = short if number % 2 else 0
        mask = [1] * (setup.seq_len - pads) + [0] * pads
        labels = ids[: setup.seq_len - pads] + [-100] * pads
        items.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
    return Trainer(
        model=building.adapt(base, setup),
        args=TrainingArguments(**given, train_sampling_strategy="sequential"),
        train_dataset=items,
    )


def _sft(base: nn.Module, shape: ModelShape, setup: TrainingSetup, given: dict[str, Any]) -> Any:  # noqa: ANN401
    """SFTTrainer, which adapts the model itself; every row is padded up where rows are."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    length = setup.seq_len - (PADS if setup.padded else 0)
    if setup.quantized and setup.prepared:
        from peft import prepare_model_for_kbit_training

        prepare_model_for_kbit_training(base, setup.checkpointing, {"use_reentrant": False})
    ids = _rows(shape, setup, length, _count(setup, given))
    return SFTTrainer(
        model=base,
        processing_class=AutoTokenizer.from_pretrained(project.data("models", "tiny")),
        train_dataset=Dataset.from_dict({"input_ids": ids}),
        peft_config=building.lora_config(setup) if setup.adapted else None,
        args=SFTConfig(
            **given,
            max_length=setup.seq_len,
            pad_to_multiple_of=setup.seq_len if setup.padded else None,
        ),
    )


def _clock(marks: Any) -> Any:  # noqa: ANN401
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Times each step, and lets `marks` count from the second on."""

        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.began = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401
            marks("between")
            if state.global_step:
                marks.start()
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
            marks("step")
            self.seconds.append(time.perf_counter() - self.began)

    return Clock()
