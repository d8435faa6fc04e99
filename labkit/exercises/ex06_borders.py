"""What the judges of notebook 06 ask at the border: are wrong arguments refused?"""

from collections.abc import Callable, Iterable
from typing import Any


def accepted(
    answer: Callable[..., Any], cases: Iterable[tuple[tuple[Any, ...], str]]
) -> str | None:
    """The first of the wrong arguments that raises no ValueError, in words. None: all do."""
    for given, words in cases:
        try:
            answer(*given)
        except ValueError:
            continue
        except Exception as error:
            return f"{words} must raise ValueError, not {type(error).__name__}"
        return f"{words} must raise ValueError"
    return None
