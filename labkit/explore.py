"""A picture or a table that answers to sliders and menus, with a twin that needs none.

    Explorer([Whole("rank", "rank", 1, 64, value=8)], show=lambda rank: picture_of(rank))

`show` takes the values by the names of the controls and returns something that shows itself. It
holds the arithmetic; a control only moves a value. Where no widget can live (nbval, a page on the
web, a screen reader) the same object shows what `show` gives for the first values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from labkit.project import LabkitError


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`."""

    name: str
    label: str
    low: int
    high: int
    value: int
    step: int = 1


@dataclass(frozen=True)
class Real:
    """A number from `low` to `high` in steps; with `log`, the steps are factors of ten."""

    name: str
    label: str
    low: float
    high: float
    value: float
    step: float = 0.1
    log: bool = False


@dataclass(frozen=True)
class Menu:
    """One of a few values, each under the text that the learner reads."""

    name: str
    label: str
    options: Sequence[tuple[str, Any]]
    value: Any


Control = Whole | Real | Menu


@dataclass(frozen=True)
class Explorer:
    """Controls over `show`; in a kernel a widget, elsewhere what `show` gives at first.

    Raises:
        ValueError: if two controls share a name, or one starts outside its range.
    """

    controls: Sequence[Control]
    show: Callable[..., Any]

    def __post_init__(self) -> None:
        names = [control.name for control in self.controls]
        if len(set(names)) < len(names):
            raise ValueError(f"two controls share a name: {', '.join(names)}")
        for control in self.controls:
            if isinstance(control, Menu):
                inside = control.value in [value for _, value in control.options]
            else:
                inside = control.low <= control.value <= control.high
            if not inside:
                raise ValueError(f"{control.name}={control.value!r} is none of its own values")

    def first(self) -> dict[str, Any]:
        """The values that the controls start with, by name."""
        return {control.name: control.value for control in self.controls}

    def html(self, **values: Any) -> str:  # noqa: ANN401
        """What `show` gives as HTML; a value that it refuses gives its own sentence."""
        try:
            shown = self.show(**values)
        except (LabkitError, ValueError) as error:
            return f'<p role="alert">{escape(str(error))}</p>'
        as_html = getattr(shown, "_repr_html_", None)
        return as_html() if as_html else f"<pre>{escape(str(shown))}</pre>"

    def __str__(self) -> str:
        return str(self.show(**self.first()))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.html(**self.first())

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:  # noqa: ANN401
        from labkit import widgets  # here, so that `show` works without ipywidgets

        return widgets.shown(lambda: widgets.explorer(self.controls, self.html))
