"""Is there room on the disk for what a training keeps?"""

from __future__ import annotations

from collections.abc import Callable

from seq2seq.atomic import readable_size
from seq2seq.config import TrainingConfig
from seq2seq.run import Run
from seq2seq.run_folder.checkpoints import CHECKPOINTS, OVERHEAD_BYTES
from seq2seq.run_folder.files import check_space, free_space


def check_room(run: Run, config: TrainingConfig, weights: int, optimizer: int, tell: Callable[[str], None]) -> None:
    """Raises UnwrittenError where not even one checkpoint and a model fit; warns where all that is kept may not.

    weights, optimizer: bytes of the model, and of its optimizer's state (`optimizer_bytes`).
    """
    folder = run.path / CHECKPOINTS
    check_space(folder, 2 * weights + optimizer + OVERHEAD_BYTES)
    needed = disk_needed(config, weights, optimizer)
    there = sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))
    free = free_space(run.path)
    if free is not None and free + there < needed:
        tell(
            f"{run.path}: what is kept may come to {readable_size(needed)}, and {readable_size(free)} are free; "
            "free some space, or lower training.keep_last"
        )


def disk_needed(config: TrainingConfig, weights: int, optimizer: int) -> int:
    """Bytes of all that a run folder may come to hold."""
    # The two newest checkpoints have optimizers; one more checkpoint is being written; and there is the model to use.
    return weights * (config.keep_last + config.keep_best + 1 + 1) + 3 * optimizer
