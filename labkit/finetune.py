"""The fine-tune without a browser: load, score, train, score, save; the last line is JSON.

python -m labkit.finetune                                 tiny (or Llama on a GPU), QLoRA
python -m labkit.finetune --method full --steps 200       the other methods
python -m labkit.finetune --model smollm2-135m --limit 8  a real model, few answers scored

peak_bytes is what CUDA had allocated at most in training; without CUDA, the most memory that the
whole process held, Python and its libraries included.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
from safetensors import SafetensorError

from labkit import adapters, data, evaluate, models, project, train
from labkit.history import ran_out
from labkit.train import Settings
from labkit.watch import watch

CHECKPOINT = "checkpoint.safetensors"
METHODS = ("qlora", "lora", "full")
FULL_RATE = 0.1  # full fine-tuning wants about a tenth of LoRA's learning rate


def positive(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 on")
    return int(text)


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    text = __doc__ or ""
    parser = argparse.ArgumentParser(
        prog="python -m labkit.finetune",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Settings()
    parser.add_argument("--model", help="tiny, smollm2-135m, llama-3.2-1b or a folder")
    parser.add_argument("--method", choices=METHODS, default="qlora")
    parser.add_argument("--steps", type=positive, default=default.steps)
    parser.add_argument("--batch", type=positive, default=default.batch)
    parser.add_argument("--lr", type=float, help="5e-4, and a tenth of it for --method full")
    parser.add_argument("--rank", type=positive, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=positive, help="score only so many letters and questions")
    parser.add_argument("--out", type=Path, help="folder of the adapter (default: runs/METHOD)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    return parser.parse_args(arguments)


def prepared(loaded: models.Loaded, method: str, rank: int) -> torch.nn.Module:
    """The model with what trains unfrozen: adapters, or everything."""
    if method == "full":
        return loaded.model.float().requires_grad_(True)
    return train.attach(loaded.model, rank=rank, alpha=2 * rank)


def settings_of(asked: argparse.Namespace) -> Settings:
    """What was asked for as `Settings`, which refuse what cannot be.

    The last step of adapters is kept on disk until they are saved, in case scoring breaks off. A
    whole model with its moments would be six times its file, so there only an interrupt keeps it.
    """
    usual = Settings.lr * (FULL_RATE if asked.method == "full" else 1)
    return Settings(
        steps=asked.steps,
        batch=asked.batch,
        lr=usual if asked.lr is None else asked.lr,
        seed=asked.seed,
        checkpoint=folder(asked) / CHECKPOINT,
        checkpoint_every=0 if asked.method == "full" else asked.steps,
    )


def folder(asked: argparse.Namespace) -> Path:
    return asked.out or project.runs() / asked.method


def peak_resident() -> int:
    """Most bytes of memory that this process has held at once."""
    if sys.platform == "linux":  # getrusage would count the process that started this one, too
        said = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(re.findall(r"VmHWM:\s*(\d+) kB", said)[0]) * 1024
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run(asked: argparse.Namespace) -> dict[str, object]:
    """Do it; returns what the last line says."""
    settings = settings_of(asked)
    loaded = models.load(asked.model, quantize="nf4" if asked.method == "qlora" else None)
    print(loaded, flush=True)
    tokenizer = loaded.tokenizer
    letters = data.examples("test")[: asked.limit]
    questions = data.examples("regression")[:: max(1, 300 // asked.limit) if asked.limit else 1]
    examples = data.examples("train")
    items = [data.encode(tokenizer, example) for example in examples]

    def scored(model: torch.nn.Module, when: str) -> tuple[float, float]:
        task = evaluate.score_task(model, tokenizer, letters)
        skills = evaluate.score_regression(model, tokenizer, questions)
        print(f"{when}: {task}\n{when}: {skills}", flush=True)
        return task.exact_match, skills.exact_match

    task_before, regression_before = scored(loaded.model, "before")
    torch.manual_seed(asked.seed)
    model = prepared(loaded, asked.method, asked.rank)
    print(train.count(model), flush=True)
    begin = time.perf_counter()
    with watch(asked.steps) as on_step:
        history = train.fit(model, items, settings, on_step, resume=asked.resume)
    seconds = time.perf_counter() - begin
    print(history, flush=True)
    task_after, regression_after = scored(model, "after")
    scores = {"task": task_after, "regression": regression_after}
    path = keep(model, loaded, asked.method, folder(asked), examples, settings, scores)
    (folder(asked) / CHECKPOINT).unlink(missing_ok=True)
    return {
        "model": loaded.tier,
        "method": asked.method,
        "trainable": train.count(model).trainable,
        "seconds": round(seconds, 1),
        "task_before": task_before,
        "task_after": task_after,
        "regression_before": regression_before,
        "regression_after": regression_after,
        "adapter_path": str(folder(asked)),
        "adapter_bytes": path.stat().st_size,
        "peak_bytes": history.peak_bytes or peak_resident(),
    }


def keep(
    model: torch.nn.Module,
    base: models.Loaded,
    method: str,
    out: Path,
    examples: Sequence[data.Example],
    settings: Settings,
    scores: dict[str, float],
) -> Path:
    """Save the adapter with its card, or the whole model; the weights file.

    Raises:
        LabkitError: if the folder cannot be written.
    """
    if method == "full":
        try:
            model.to(torch.bfloat16).save_pretrained(out)
            base.tokenizer.save_pretrained(out)
        except (OSError, SafetensorError) as error:
            room = -(-sum(p.nbytes for p in model.parameters()) // 2**20)
            raise project.LabkitError(
                f"the model could not be written to {out.name} ({error}): free {room} MiB or "
                "choose another folder with --out"
            ) from error
        return out / "model.safetensors"
    return adapters.save(model, out, adapters.card(model, base, examples, settings, scores))


def main(arguments: Sequence[str] | None = None) -> int:
    asked, again = options(arguments), "; here: the same command with --resume"
    try:
        print(json.dumps(run(asked)))
        return 0
    except train.TrainingStopped as error:
        said = str(error)
    except KeyboardInterrupt:
        said = "interrupted outside of the training"
    except (project.LabkitError, ValueError) as error:
        said, again = str(error), ""
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        said = "out of memory outside of the training: end other programs, or try --model tiny"
    kept = (folder(asked) / CHECKPOINT).is_file()
    print(f"labkit.finetune: {said}{again if kept else ''}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
