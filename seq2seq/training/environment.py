"""What the bits of a result depend on beside configuration and data: it is kept with every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from seq2seq.model import native
from seq2seq.model.transformer import Transformer
from seq2seq.runtime import precision_name


def environment(model: Transformer, device: torch.device, workers: int) -> dict[str, Any]:
    """Of a training here. workers: how many threads compute parts of a step side by side."""
    precision = precision_name(model.compute_dtype)
    if device.type == "cuda":
        return {"precision": precision, "device": torch.cuda.get_device_name(device), "torch": torch.__version__}
    return {
        "precision": precision,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "workers": workers,
        "kernels": native.generation() or "torch",
        "torch": torch.__version__,
    }


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of the environment of a checkpoint is another one now, each in words."""
    return [f"{name} {now.get(name)} instead of {value}" for name, value in saved.items() if now.get(name) != value]
