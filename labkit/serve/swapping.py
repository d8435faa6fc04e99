"""How the adapter of a model is changed: PEFT's three ways, and the bank's.

    way                  what moves
    set_adapter          nothing: each layer is told another name, requires_grad is set
    load_adapter         the file is read, a new A and B made in each layer
    hotswap_adapter      the file is read and copied over the A and B that are there
    put, from the disk   the same, into a slot of the bank
    put, from memory     a copy into the slot alone
    chosen               nothing: one index a row

`ways` gives each as a step to be timed; `labkit.bench.timing.alternating` times them in turns.
Popular lessons call a swap "sub-millisecond"; what each takes is measured, not said, here.
"""

from collections.abc import Callable
from itertools import count, cycle
from pathlib import Path

from torch import nn

from labkit.serve.bank import Bank, read

Step = Callable[[], object]


def ways(
    folders: tuple[Path, Path], first: nn.Module, second: nn.Module, rank: int = 16
) -> dict[str, Step]:
    """A step for each way to change between two adapters of one rank.

    Args:
        folders: of two adapters of the same shapes.
        first, second: two copies of their base; the first gets PEFT's layers, the second slots.
    """
    bank = Bank(second, 2, rank)
    held = [read(folder) for folder in folders]
    for number, factors in enumerate(held):
        bank.put(str(number), factors)
    turns, memory, rows = cycle((0, 1)), cycle((1, 0)), cycle(("0", "1"))

    def choose() -> None:
        with bank.chosen([next(rows)]):
            pass

    return _peft(folders, first) | {
        "put, from the disk": lambda: bank.put("0", read(folders[next(turns)])),
        "put, from memory": lambda: bank.put("0", held[next(memory)]),
        "chosen": choose,
    }


def _peft(folders: tuple[Path, Path], base: nn.Module) -> dict[str, Step]:
    from peft import PeftModel
    from peft.utils.hotswap import hotswap_adapter

    model = PeftModel.from_pretrained(base, folders[0], adapter_name="0")
    model.load_adapter(folders[1], adapter_name="1")
    names, numbers, turns = cycle(("1", "0")), count(), cycle((1, 0))

    def load() -> None:
        name = f"new{next(numbers)}"
        model.load_adapter(folders[0], adapter_name=name)
        model.delete_adapter(name)  # else every round leaves one more behind

    return {
        "set_adapter": lambda: model.set_adapter(next(names)),
        "load_adapter": load,
        "hotswap_adapter": lambda: hotswap_adapter(
            model, folders[next(turns)], adapter_name="0", torch_device=str(model.device)
        ),
    }
