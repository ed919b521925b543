"""Beam search by the compiled decoder: many steps in one call (`beam_steps` in native/steps.inc).

A step of one sentence takes the kernels a tenth of a millisecond, and as long again to be told of it from Python. What
is found is the same, to the bit.

Shapes: as in beam.py; L decoder layers, W width of all heads.
"""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seq2seq.decoding.engine import MANY, Engine, EngineDecoding
from seq2seq.decoding.hypotheses import Penalty
from seq2seq.decoding.scorer import Scorer
from seq2seq.model import native
from seq2seq.model.transformer import EOS

if TYPE_CHECKING:
    from seq2seq.decoding.beam import Beams

FLOATS = 1 << 20  # of keys and values that steps make room for at once, unless one step has more


class _Beams(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in (
                "pieces", "places", "totals", "free", "best", "limits", "limit_penalties", "penalties",
                "traced_pieces", "traced_parents", "traced_logs", "traced_finished",
            )
        ),
        *((name, ctypes.c_int64) for name in ("sentences", "width", "k", "n_best", "end", "done")),
    ]  # fmt: skip


def serves(scorer: Scorer, beam_size: int) -> bool:
    """Whether the compiled decoder can keep so many beams of what is searched."""
    return isinstance(scorer, Engine) and scorer.many_steps and beam_size <= MANY


def advance(search: Beams) -> None:
    """Steps of a search that has no constraints: one at least, until enough sentences are done that they are dropped.

    It also ends where there is no more room; the next call makes some.
    """
    decoding, (sentences, width), k = search.decoding, search.pieces.shape, search.beam_size
    assert isinstance(decoding, EngineDecoding)
    decoding.make_room()
    engine, first, rows = decoding.engine, decoding.count, sentences * k
    a_step = rows * engine.num_layers * 2 * engine.heads * engine.size
    room = min(decoding.ancestry.shape[1], len(decoding.positions), int(search.limits.max())) - first
    most = max(1, min(room, FLOATS // a_step))
    kept, moved = native.floats(most, a_step), torch.empty(rows, decoding.ancestry.shape[1], dtype=torch.int32)
    decoding.ancestry = torch.cat([decoding.ancestry, moved[len(decoding.ancestry) :]])
    traced = [
        torch.zeros(most, sentences, k, dtype=kind) for kind in (torch.int64, torch.int64, torch.float32, torch.bool)
    ]
    pieces, places, totals = (_with_room(x, rows) for x in (search.pieces, search.places, search.totals))
    free, best = search.free.contiguous(), search.best.contiguous()
    limits, limit_penalties = search.limits.contiguous(), search.limit_penalties.contiguous()
    tensors = (
        pieces, places, totals, free, best, limits, limit_penalties, _penalties(search.penalty, first, most), *traced,
    )  # fmt: skip
    beams = _Beams(*(tensor.data_ptr() for tensor in tensors), sentences, width, k, best.shape[1], EOS, 0)
    past, of = decoding.history(), decoding.memories(width)
    addresses = [ctypes.addressof(structure) for structure in (past, of)]
    native.run("beam_steps", engine.address, *addresses, decoding.positions, ctypes.addressof(beams), kept, moved, most)
    search.trace.add_steps(search.live, *(part[: beams.done] for part in traced))
    shape = sentences, beams.width
    search.pieces, search.places, search.totals = (
        x[: sentences * beams.width].view(shape) for x in (pieces, places, totals)
    )
    search.free, search.best = free, best
    decoding.took(kept, beams.done, sentences * beams.width)


def _with_room(values: Tensor, rows: int) -> Tensor:
    """[B, w] at the beginning of memory for `rows` of them."""
    room = values.new_empty(rows)
    room[: values.numel()] = values.flatten()
    return room


def _penalties(penalty: Penalty, first: int, most: int) -> Tensor:
    """By length: of those that `most` steps after the first ones can end with."""
    lengths = range(first + 1, first + most + 1)
    values = [*[math.nan] * (first + 1), *(float(penalty(float(length))) for length in lengths)]
    return torch.tensor(values, dtype=torch.float32)
