"""Controls for the notebooks; what they show is worked out elsewhere.

Written for ipywidgets 7.7 (Colab) and 8.1 alike. Each builder takes plain text, options and
callbacks, so no control holds arithmetic and every one has a twin that needs no browser.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import ipywidgets as w

LOOK_EVERY = 2.0  # seconds between two looks at what another notebook may have changed


def in_kernel() -> bool:
    """Whether a Jupyter kernel runs this code, so that a widget has somewhere to appear."""
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


def shown(build: Callable[[], w.Widget]) -> dict[str, Any]:
    """The mime bundle of a new widget; nothing outside a kernel.

    An object that returns this from `_repr_mimebundle_` keeps its text and HTML beside the widget,
    for nbval, for screen readers and for pages where no widget can live.
    """
    if not in_kernel():
        return {}
    view = {"version_major": 2, "version_minor": 0, "model_id": build().model_id}
    return {"application/vnd.jupyter.widget-view+json": view}


_running: list[Callable[[], None]] = []  # what stops the live area that was shown before


def live(
    html: Callable[[], str],
    subscribe: Callable[[Callable[[], None]], Callable[[], None]],
    look: Callable[[], None],
) -> w.HTML:
    """HTML that is made again whenever `subscribe` calls, and looks for news while it can.

    `look` runs every LOOK_EVERY seconds where an event loop runs, as it does in a kernel. Only the
    area that was made last is live: a cell that is run again leaves nothing running behind.
    """
    while _running:
        _running.pop()()
    area = w.HTML(html())

    def renew() -> None:
        area.value = html()

    _running.extend((subscribe(renew), _repeat(look)))
    return area


def _repeat(look: Callable[[], None]) -> Callable[[], None]:
    """Call `look` again and again; returns what ends that."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # no loop: nothing can look in the background
        return lambda: None
    planned = []

    def again() -> None:
        look()
        planned[:] = [loop.call_later(LOOK_EVERY, again)]

    planned.append(loop.call_later(LOOK_EVERY, again))
    return lambda: planned[0].cancel()


def question(
    text: str, options: Sequence[tuple[str, str]], ask: str, answered: Callable[[str], str]
) -> w.VBox:
    """Radio buttons under a question; `answered` turns the chosen value into HTML."""
    buttons = w.RadioButtons(options=options, index=None, layout={"width": "auto"})
    reason = w.HTML()

    def chosen(change: dict[str, Any]) -> None:
        if change["new"] is not None:
            reason.value = _set(answered(change["new"]))

    buttons.observe(chosen, "value")
    title = w.HTML(_set(f"<strong>{escape(text)}</strong>"))
    hint = w.HTML(f"<small>({escape(ask)})</small>")
    parts = [title, buttons, hint, reason, _own_keys()]
    return w.VBox(parts, layout={"margin": "0 0 12px"})


# As wide as the column, never as wide as what stands inside: a long table then scrolls by itself.
NARROW = "width:0;min-width:100%"


def explorer(controls: Sequence[Any], html: Callable[..., str]) -> w.Box:
    """Controls (see `explore`) over an area with what `html` gives for their values.

    Each slider has a labelled text box beside it: a slider's own handle has no name that a screen
    reader could say, and a typed number is sooner set than a dragged one.
    """
    boxes = {control.name: _control(control) for control in controls}
    fields = {name: parts[0] for name, parts in boxes.items()}
    area = w.HTML(layout={"width": "100%"})

    def renew(_: object = None) -> None:
        made = html(**{control.name: _value(control, fields) for control in controls})
        area.value = f'<div style="{NARROW}">{_set(made)}</div>'

    for field in fields.values():
        field.observe(renew, "value")
    renew()
    # As many controls side by side as fit: the area stays in view while one of many is moved.
    wrap = w.Layout(display="flex", flex_flow="row wrap", align_items="center", width="100%")
    row = w.Layout(display="flex", flex_flow="row wrap", align_items="center", margin="0 1em 0 0")
    rows = [w.Box(parts, layout=row) for parts in boxes.values()]
    return w.Box([*rows, area, _own_keys()], layout=wrap)


# JupyterLab takes arrows and letters in a menu for its own commands: "b" would insert a cell. This
# mark leaves the keys to what has the focus.
OWN_KEYS = """
let turns = 50
const mark = () => {  // what runs first is not yet part of the page
  const box = element.closest('.widget-box')
  const own = event => event.target.setAttribute('data-lm-suppress-shortcuts', 'true')
  if (box) box.addEventListener('focusin', own)
  else if (turns-- > 0) setTimeout(mark, 200)
}
mark()
"""


def _own_keys() -> w.Output:
    """Nothing to see; where it is shown, the keys belong to the widgets around it."""
    from IPython.display import Javascript

    area = w.Output(layout={"height": "0", "margin": "0", "overflow": "hidden"})
    area.append_display_data(Javascript(OWN_KEYS))
    return area


def _value(control: Any, fields: dict[str, w.Widget]) -> Any:  # noqa: ANN401
    """The value that a control stands at."""
    held = fields[control.name].value
    return control.options[held][1] if hasattr(control, "options") else held


SHORT = 18  # letters of a label that fit in 9em; a longer menu wraps under its label
UNDER = {"width": "30em", "height": "auto", "max_width": "100%", "flex_flow": "row wrap"}


def _control(control: Any) -> list[w.Widget]:  # noqa: ANN401
    """The field that holds a control's value, and the slider that moves it where there is one."""
    named = {"description": control.label, "style": {"description_width": "9em"}}
    if hasattr(control, "options"):
        # By their places: ipywidgets takes the value None for "nothing is chosen".
        places = [(label, place) for place, (label, _) in enumerate(control.options)]
        at = [value for _, value in control.options].index(control.value)
        if len(control.label) <= SHORT:
            return [w.Dropdown(options=places, value=at, layout={"width": "24em"}, **named)]
        named["style"] = {"description_width": "auto"}
        return [w.Dropdown(options=places, value=at, layout=UNDER, **named)]
    limits = {"min": control.low, "max": control.high}
    common = limits | {"value": control.value, "step": control.step}
    narrow, plain = {"width": "16em"}, {"readout": False, "layout": {"width": "16em"}}
    if isinstance(control.low, int) and isinstance(control.step, int):
        field, slider = w.BoundedIntText(**common, layout=narrow, **named), w.IntSlider
    else:
        field, slider = w.BoundedFloatText(**common, layout=narrow, **named), w.FloatSlider
    if getattr(control, "log", False):
        tens = {"min": math.log10(control.low), "max": math.log10(control.high)}
        moved = w.FloatLogSlider(value=control.value, step=0.05, **tens, **plain)
    else:
        moved = slider(**common, **plain)
    w.link((field, "value"), (moved, "value"))
    return [field, moved]


def _set(html: str) -> str:
    """HTML set like prose: a widget gives every line the height of a control, 28 pixels."""
    return f'<div style="line-height:1.5">{html}</div>'
