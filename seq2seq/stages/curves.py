"""curves.png: loss, learning rate and validation BLEU of a run (needs the extra `plot`)."""

from __future__ import annotations

from typing import Any, TypeGuard

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from seq2seq.run import Run
from seq2seq.run_folder.files import replacing
from seq2seq.run_folder.run_files import CURVES


def draw_curves(run: Run) -> None:
    """Draws metrics.jsonl into curves.png."""
    records = list(run.metrics())
    steps = [record for record in records if "loss" in record]
    validations = [record for record in records if "valid_loss" in record]
    scored = _points(validations, "valid_bleu")
    figure = Figure(figsize=(8, 9 if scored else 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3 if scored else 2, 1, sharex=True)
    _line(axes[0], steps, "nll", "training", "tab:blue")
    _line(axes[0], validations, "valid_loss", "validation", "tab:orange")
    axes[0].set_ylabel("−log p per target token (nats)")
    axes[0].legend(frameon=False)
    if scored:
        _line(axes[1], validations, "valid_bleu", "validation", "tab:green")
        step, best = max(scored, key=lambda point: point[1])
        axes[1].set_ylabel("validation BLEU")
        axes[1].set_title(f"best {best:.1f} at step {step:,.0f}", fontsize="medium")
    _line(axes[-1], steps, "learning_rate", "learning rate", "tab:gray")
    axes[-1].set_ylabel("learning rate")
    axes[-1].set_xlabel("step")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=0)
    with replacing(run.path / CURVES) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _points(records: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, value) of the records that have both as numbers: the log may be damaged, or a stranger's."""
    points = [(record.get("step"), record.get(key)) for record in records]
    return [(step, value) for step, value in points if _is_number(step) and _is_number(value)]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and abs(value) < 1e15  # not NaN either, nor too large to draw


def _line(axis: Any, records: list[dict[str, Any]], key: str, label: str, color: str) -> None:
    points = _points(records, key)
    marker = "o" if len(points) < 30 else ""  # a line through one point is nothing
    steps, values = [step for step, _ in points], [value for _, value in points]
    axis.plot(steps, values, label=label, color=color, linewidth=1.5, marker=marker, markersize=3)
