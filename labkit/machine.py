"""Which GPU, driver, cores and versions a row was measured with."""

import os
import platform
import subprocess
from datetime import date
from importlib import metadata
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """GPU and driver (None without one), cores, threads, versions and date."""
    gpu = driver = None
    if torch.cuda.is_available():
        ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        said = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
        gpu, driver = torch.cuda.get_device_name(), said.splitlines()[0].strip()
    names = ("torch", "transformers", "peft", "bitsandbytes", "trl")
    return {
        "gpu": gpu,
        "driver": driver,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in names},
        "date": date.today().isoformat(),
    }
