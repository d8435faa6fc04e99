"""Which GPU, driver and versions a row was measured with."""

import platform
import subprocess
from datetime import date
from importlib import metadata
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """GPU, driver, versions and date."""
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    names = ("torch", "transformers", "peft", "bitsandbytes", "trl")
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in names},
        "date": date.today().isoformat(),
    }
