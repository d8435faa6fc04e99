"""A setup as code to copy: what `estimate` takes, and the run that notebook 04 makes of it."""

from dataclasses import fields
from typing import Any

from labkit.memory import ModelShape, TrainingSetup

FULL_LOGITS = "lambda model, batch: model(**batch, use_cache=False).loss"


def as_code(shape: ModelShape, setup: TrainingSetup) -> str:
    """Python that estimates this setup, and behind it the lines that run it in notebook 04."""
    values = ", ".join(f"{f.name}={getattr(setup, f.name)!r}" for f in fields(setup))
    lines = [
        f"shape = ModelShape.preset({shape.name!r})",
        f"setup = TrainingSetup({values})",
        "estimate(shape, setup)  # at once; dry_run(shape, setup): the real code, on any CPU;",
        "                         # measure(shape, setup): on the GPU at hand",
        "",
    ]
    return "\n".join([*lines, *_notebook_04(setup)])


def run_of(setup: TrainingSetup) -> dict[str, dict[str, Any]]:
    """The arguments of notebook 04's calls, by the call that takes them."""
    targets = setup.targets if isinstance(setup.targets, str) else list(setup.targets)
    return {
        "load": {"quantize": "nf4" if setup.quantized else None},
        "attach": {"rank": setup.rank, "dropout": setup.dropout, "targets": targets},
        "settings": {"batch": setup.batch, "accumulate": setup.accumulation},
    }


def _notebook_04(setup: TrainingSetup) -> list[str]:
    if setup.method not in ("lora", "qlora"):
        return [f"# notebook 04 trains LoRA; method={setup.method!r} needs another notebook"]
    lines = ["# in notebook 04:", f"run = {run_of(setup)!r}", 'base = models.load(**run["load"])']
    if setup.prepared and setup.quantized:
        lines.append(f"prepare.prepare(base.model, checkpointing={setup.checkpointing})")
    lines.append('model = train.attach(base.model, **run["attach"])')
    if setup.checkpointing and not (setup.prepared and setup.quantized):
        lines += ["model.enable_input_require_grads()", "model.gradient_checkpointing_enable()"]
    loss = f", loss={FULL_LOGITS}" if setup.loss == "full_logits" else ""
    lines.append(f'train.fit(model, items, Settings(**run["settings"]){loss})')
    return lines
