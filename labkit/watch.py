"""A training run as it goes: a curve and a bar in a notebook, a bar on a terminal, else lines.

    with watch(steps) as on_step:
        history = fit(model, items, settings, on_step)

In a notebook one output is drawn anew, at most REDRAW times a second: HTML and SVG without a
widget, so that JupyterLab, Colab and a page on the web show the same, and the last drawing stays.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from labkit import svg
from labkit.history import Step
from labkit.widgets import in_kernel

REDRAW = 4  # drawings a second
LINES = 10  # most lines of a run where there is neither a notebook nor a terminal


def drawing(steps: list[Step], of: int) -> str:
    """The curve of the losses so far over a bar of the steps, and the time left."""
    done = steps[-1].number if steps else 0  # a resumed run does not begin at 1
    seconds = sum(step.seconds for step in steps)
    left = seconds / max(1, len(steps)) * (of - done)
    loss = f"loss {steps[-1].loss:.4f}, " if steps else ""
    to_go = f", {left:.0f} s to go" if left else ""
    said = f"step {done} of {of}, {loss}{seconds:.0f} s{to_go}"
    bar = f'<progress value="{done}" max="{of}" aria-label="training"></progress> {said}'
    numbers, losses = [s.number for s in steps], [s.loss for s in steps]
    return f"{svg.curve(numbers, losses, 'loss, nats a learnt token', 'steps')}<div>{bar}</div>"


@contextmanager
def watch(steps: int) -> Iterator[Callable[[Step], None]]:
    """What to call after each of so many steps; it shows them in the way that fits the place."""
    if in_kernel():
        yield from _in_notebook(steps)
    elif sys.stderr.isatty():
        with tqdm(total=steps, unit="step", desc="training") as bar:

            def move(step: Step) -> None:
                bar.set_postfix(loss=f"{step.loss:.4f}", refresh=False)
                bar.update(step.number - bar.n)

            yield move
    else:
        yield _line


def _in_notebook(of: int) -> Iterator[Callable[[Step], None]]:
    from IPython.display import HTML, display

    steps: list[Step] = []
    handle, shown = display(HTML(drawing(steps, of)), display_id=True), [time.monotonic()]

    def draw(step: Step) -> None:
        steps.append(step)
        if time.monotonic() - shown[0] > 1 / REDRAW:
            handle.update(HTML(drawing(steps, of)))
            shown[0] = time.monotonic()

    try:
        yield draw
    finally:  # also when the run broke off: what was reached stays on the page
        handle.update(HTML(drawing(steps, of)))


def _line(step: Step) -> None:
    if step.number % -(-step.of // LINES) == 0 or step.number == step.of:
        print(f"step {step.number:4d} of {step.of}  loss {step.loss:.4f}", flush=True)
