"""Whether what a state.json says can be gone on with: it may be damaged, or a stranger's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from seq2seq.training.state import TrainingError, TrainingState


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Validation(_Strict):
    step: int
    valid_loss: float
    valid_bleu: float | None


class _SinceLog(_Strict):
    loss: float
    nll: float
    grad_norm: float
    tokens: float
    seconds: float


COUNTS = ("step", "epoch", "update", "target_tokens", "metrics_size", "skipped_steps", "skipped_in_a_row")
MOST = 2**53


def check_saved_state(values: Mapping[str, Any], where: str) -> None:
    """Raises TrainingError, beginning with `where`, for a field of a wrong type or a number that cannot be."""
    kinds = {
        **get_type_hints(TrainingState),
        "validations": list[_Validation],
        "since_log": _SinceLog | None,
        "identity": dict[str, str],
    }
    for name, kind in kinds.items():
        if name not in values:
            continue
        try:
            TypeAdapter(kind).validate_python(values[name], strict=True)
        except ValidationError:
            raise TrainingError(f"{where}: damaged: {name} = {values[name]!r:.60}") from None
    for name in COUNTS:
        if not 0 <= values.get(name, 0) < MOST:
            raise TrainingError(f"{where}: damaged: {name} = {values[name]!r:.60}")
    for name in ("horizon", "updates_per_epoch"):
        if (value := values.get(name)) is not None and not 1 <= value < MOST:
            raise TrainingError(f"{where}: damaged: {name} = {value!r:.60}")
