"""The fast way to decode on a CPU: a model laid out for the compiled decoder (native/steps.inc).

What `TransformerScorer` does in torch is done here with the same weights in two calls a step (for beam search without
constraints in one call for many, steps.py):

- No padding: the encoder runs over packed sentences, and attention looks at what there is.
- Weights are laid out once, for products of a few rows as well as of many. With precision bf16 they are rounded to
  bfloat16, and so is what they are multiplied by; sums and everything else are float32.
- Keys and values of the memory are computed for all layers in one product and laid out once; the hypotheses of a
  sentence share them.
- What a step's projections give stays where it is. When hypotheses are reordered or dropped, only a table of
  ancestors changes: which row of which step a row continues.
- Logits exist for a few rows at a time: the best pieces and their log-probabilities are taken while they are in the
  cache.

Shapes: as in scorer.py; N source pieces, L decoder layers, H heads, K head size, D d_model.
"""

from __future__ import annotations

import copy
import ctypes
import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq.decoding.scorer import Predictions, allowed
from seq2seq.model import native
from seq2seq.model.attention import MultiHeadAttention
from seq2seq.model.layers import DecoderLayer, EncoderLayer, FeedForward, LayerNorm, Residual
from seq2seq.model.packed import Sentences
from seq2seq.model.positional import LearnedPositions, SinusoidalPositions
from seq2seq.model.transformer import EOS, PAD, Transformer

PANEL = 64  # outputs that the kernel computes at once, or a multiple of them: matrices are rounded up to it
BLOCK = 16  # floats that it handles at once
FIRST_STEPS = 32  # that tables have room for at the beginning
SPARE = 4  # times as many rows may be kept as are looked back on
MANY = 64  # pieces that a kernel finds, and beams that it keeps: MOST_BEAMS in steps.inc


class _Matrix(ctypes.Structure):
    _fields_ = [
        ("weights", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("n", ctypes.c_int64),
        ("k", ctypes.c_int64),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in (
                "d", "heads", "size", "ff", "encoder_layers", "decoder_layers", "vocabulary", "pre_norm", "gelu",
                "half",
            )
        ),
        *((name, ctypes.c_void_p) for name in ("source_table", "target_table", "encoder_norm", "decoder_norm")),
        ("memory", _Matrix),
        ("output", _Matrix),
        *((name, ctypes.c_void_p) for name in ("encoder", "encoder_norms", "decoder", "decoder_norms")),
    ]  # fmt: skip


class History(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("steps", "counts", "ancestry")),
        ("stride", ctypes.c_int64),
        ("length", ctypes.c_int64),
    ]


class Memories(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("floats", "offsets", "lengths")),
        ("sentences", ctypes.c_int64),
        ("beams", ctypes.c_int64),
    ]


class Engine:
    """A scorer. Later changes of the model's weights do not reach it. many_steps: beam search may take them at once."""

    many_steps = True

    def __init__(self, model: Transformer) -> None:
        assert self.serves(model) and self.knows(model)
        self.device, self.source_vocab_size = torch.device("cpu"), model.source_vocab_size
        # Learned positions as they are now.
        self.source_positions = copy.deepcopy(model.source_positions).requires_grad_(False)
        self.target_positions = copy.deepcopy(model.target_positions).requires_grad_(False)
        self.half = model.compute_dtype == torch.bfloat16
        self._kept: list[object] = []  # what the addresses point at
        config = model.config
        self.d_model, self.heads, self.size = config.d_model, config.num_heads, config.key_size
        self.target_vocab_size, self.num_layers = model.target_vocab_size, config.num_decoder_layers
        self.longest = config.longest
        encoder = [layer for layer in model.encoder_layers if isinstance(layer, EncoderLayer)]
        decoder = [layer for layer in model.decoder_layers if isinstance(layer, DecoderLayer)]
        width = self.heads * self.size
        across = [layer.cross_attention for layer in decoder]
        weight, bias = torch.cat([a.in_weight[width:] for a in across]), torch.cat([a.in_bias[width:] for a in across])
        scale = math.sqrt(self.d_model)
        tied = model.source_embedding is model.target_embedding
        target_table = self._keep(model.target_embedding * scale)
        self._model = _Model(
            self.d_model, self.heads, self.size, config.d_ff, len(encoder), len(decoder),
            model.target_vocab_size, config.norm == "pre", config.activation == "gelu", self.half,
            target_table if tied else self._keep(model.source_embedding * scale), target_table,
            self._norm(model.encoder_norm), self._norm(model.decoder_norm),
            self._matrix(weight, bias), self._matrix(model.output_weight, None),
            self._matrices(matrix for layer in encoder for matrix in self._encoder_matrices(layer)),
            self._norms(r for layer in encoder for r in (layer.self_attention_residual, layer.feed_forward_residual)),
            self._matrices(matrix for layer in decoder for matrix in self._decoder_matrices(layer, width)),
            self._norms(
                residual
                for layer in decoder
                for residual in (
                    layer.self_attention_residual, layer.cross_attention_residual, layer.feed_forward_residual,
                )
            ),
        )  # fmt: skip
        self.address = ctypes.addressof(self._model)

    @staticmethod
    def serves(model: Transformer) -> bool:
        """Whether the model is where the kernels are, and computes in a dtype whose products they have."""
        if model.target_embedding.device.type != "cpu" or not native.available():
            return False
        dtype = model.compute_dtype
        return dtype == torch.float32 or (dtype == torch.bfloat16 and native.has_half_products())

    @staticmethod
    def knows(model: Transformer) -> bool:
        """Whether a model consists of what is laid out here: modules of these classes, parameters of these shapes."""
        config = model.config
        d_model, d_ff, width = config.d_model, config.d_ff, config.num_heads * config.key_size
        known: dict[type, dict[str, tuple[int, ...]]] = {
            Transformer: {
                name: (size, d_model)
                for name, size in (
                    ("target_embedding", model.target_vocab_size),
                    ("_source_embedding", model.source_vocab_size),
                    ("_output_weight", model.target_vocab_size),
                )
                if getattr(model, name) is not None
            },
            MultiHeadAttention: _projections((3 * width, d_model), (d_model, width)),
            FeedForward: _projections((d_ff, d_model), (d_model, d_ff)),
            LayerNorm: {"weight": (d_model,), "bias": (d_model,)},
            LearnedPositions: {"weight": (config.max_positions, d_model)},
            **{kind: {} for kind in (EncoderLayer, DecoderLayer, Residual, SinusoidalPositions, torch.nn.ModuleList)},
        }
        return all(
            known.get(type(module)) == {name: tuple(own.shape) for name, own in module.named_parameters(recurse=False)}
            for module in model.modules()
        )

    def _keep(self, tensor: Tensor) -> int:
        """The address of a tensor as float32, which lives as long as this."""
        kept = native.floats(*tensor.shape).copy_(tensor.detach())
        self._kept.append(kept)
        return kept.data_ptr()

    def _matrix(self, weight: Tensor, bias: Tensor | None) -> _Matrix:
        """weight [N, K], bias [N]."""
        outputs, inputs = weight.shape
        panels = (outputs + PANEL - 1) // PANEL * PANEL
        shape = (panels, (inputs + 1) // 2 * 2) if self.half else (panels, inputs)
        laid_out = torch.empty(shape, dtype=torch.bfloat16 if self.half else torch.float32)
        self._kept.append(laid_out)
        name = "lay_out_weights_bf16" if self.half else "lay_out_weights_f32"
        native.run(name, laid_out, weight.detach().float().contiguous(), outputs, inputs)
        return _Matrix(laid_out.data_ptr(), None if bias is None else self._keep(bias), outputs, inputs)

    def _matrices(self, matrices: Iterable[_Matrix]) -> int:
        listed = list(matrices)
        array = (_Matrix * len(listed))(*listed)
        self._kept.append(array)
        return ctypes.addressof(array)

    def _encoder_matrices(self, layer: EncoderLayer) -> list[_Matrix]:
        within = layer.self_attention
        return [
            self._matrix(within.in_weight, within.in_bias),
            self._matrix(within.out_weight, within.out_bias),
            *self._feed_forward(layer.feed_forward),
        ]

    def _decoder_matrices(self, layer: DecoderLayer, width: int) -> list[_Matrix]:
        within, across = layer.self_attention, layer.cross_attention
        return [
            self._matrix(within.in_weight[:width], within.in_bias[:width]),
            self._matrix(within.in_weight[width:], within.in_bias[width:]),
            self._matrix(within.out_weight, within.out_bias),
            self._matrix(across.in_weight[:width], across.in_bias[:width]),
            self._matrix(across.out_weight, across.out_bias),
            *self._feed_forward(layer.feed_forward),
        ]

    def _feed_forward(self, layer: FeedForward) -> list[_Matrix]:
        return [self._matrix(layer.in_weight, layer.in_bias), self._matrix(layer.out_weight, layer.out_bias)]

    def _norm(self, norm: LayerNorm | None) -> int | None:
        return None if norm is None else self._keep(torch.cat([norm.weight, norm.bias]))

    def _norms(self, residuals: Iterable[Residual]) -> int:
        norms = [residual.norm for residual in residuals]
        return self._keep(torch.cat([part for norm in norms for part in (norm.weight, norm.bias)]))

    def positions(self, side: torch.nn.Module, length: int) -> Tensor:
        """[length, D] float32."""
        table: Tensor = side(0, length)
        return table.detach().float().contiguous()

    def start(self, source: Tensor) -> EngineDecoding:
        """source [B, S] ends with padding, and has none between pieces."""
        real = source != PAD
        lengths, ids = real.sum(1), source[real].to(torch.int64)
        native.check_ids(ids, self.source_vocab_size)
        sentences = Sentences.of(F.pad(lengths.cumsum(0), (1, 0)))
        keys = (lengths + BLOCK - 1) // BLOCK * BLOCK
        width = (self.size + BLOCK - 1) // BLOCK * BLOCK
        floats = self.num_layers * self.heads * (keys * self.size + lengths * width)
        offsets = F.pad(floats.cumsum(0), (1, 0))
        memory = native.floats(int(offsets[-1]))
        positions = self.positions(self.source_positions, sentences.longest)
        inputs = positions, ids, sentences.positions, sentences.starts
        native.run("encode_sentences", memory, offsets, self.address, *inputs, len(lengths))
        return EngineDecoding(self, memory, offsets[:-1].contiguous(), lengths)


def _projections(inner: tuple[int, int], outer: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Of a sub-layer, which has one on its way in and one on its way out."""
    return {"in_weight": inner, "in_bias": inner[:1], "out_weight": outer, "out_bias": outer[:1]}


class EngineDecoding:
    """A decoding with the ancestors of every row."""

    def __init__(self, engine: Engine, memory: Tensor, offsets: Tensor, lengths: Tensor) -> None:
        self.engine, self.memory, self.offsets, self.lengths = engine, memory, offsets, lengths
        self.count, self.rows = 0, len(lengths)  # steps; rows that there are now
        self.kept: list[Tensor] = []  # [L, R, 2, H, K] each step: keys and values
        self.ancestry = torch.empty(self.rows, FIRST_STEPS, dtype=torch.int32)  # [R, steps or more]
        self.steps, self.counts = torch.empty(2, FIRST_STEPS, dtype=torch.int64).unbind()
        self.positions = engine.positions(engine.target_positions, min(FIRST_STEPS, engine.longest))
        self.order = torch.arange(self.rows, dtype=torch.int32)

    def history(self) -> History:
        """Of the steps there are and the one to come, as the kernels read it."""
        tables = (self.steps, self.counts, self.ancestry)
        return History(*(table.data_ptr() for table in tables), self.ancestry.shape[1], self.count + 1)

    def memories(self, beams: int) -> Memories:
        """Of the sentences, with so many rows each, as the kernels read it."""
        parts = (self.memory, self.offsets, self.lengths)
        return Memories(*(part.data_ptr() for part in parts), len(self.lengths), beams)

    def step(self, pieces: Tensor) -> Predictions:
        engine, rows, pieces = self.engine, len(pieces), pieces.to(torch.int64).contiguous()
        if rows != self.rows:
            raise ValueError(f"{rows} pieces for {self.rows} rows")
        native.check_ids(pieces, engine.target_vocab_size)
        self.make_room()
        newest = native.floats(engine.num_layers, rows, 2 * engine.heads * engine.size)
        self.kept.append(newest)
        self.steps[self.count], self.counts[self.count] = newest.data_ptr(), rows
        states = native.floats(rows, engine.d_model)
        past, of = self.history(), self.memories(rows // len(self.lengths))
        addresses = engine.address, ctypes.addressof(past), ctypes.addressof(of)
        native.run("decode_step", states, *addresses, self.positions[self.count], pieces)
        if len(self.order) < rows:
            self.order = torch.arange(rows, dtype=torch.int32)
        self.ancestry[:, self.count] = self.order[:rows]
        self.count += 1
        return _Best(engine, states)

    def took(self, kept: Tensor, steps: int, rows: int) -> None:
        """After steps that were made at once: the memory of their keys and values, and how many rows there are now."""
        for step, count in enumerate(self.counts[self.count : self.count + steps].tolist()):
            shape = self.engine.num_layers, count, 2 * self.engine.heads * self.engine.size
            self.kept.append(kept[step, : math.prod(shape)].view(shape))
        self.count, self.rows = self.count + steps, rows
        self.ancestry = self.ancestry[:rows]

    def make_room(self) -> None:
        """For another step, at least. Raises ValueError where the model has no position for it."""
        if self.count >= len(self.positions):
            length = max(self.count + 1, min(2 * self.count, self.engine.longest))
            self.positions = self.engine.positions(self.engine.target_positions, length)
        if self.count < self.ancestry.shape[1]:
            return
        self.ancestry = torch.cat([self.ancestry, torch.empty_like(self.ancestry)], dim=1)
        self.steps, self.counts = (torch.cat([x, torch.empty_like(x)]) for x in (self.steps, self.counts))

    def select(self, sentences: Tensor | None, rows: Tensor | None) -> None:
        if sentences is not None:
            self.offsets, self.lengths = self.offsets[sentences], self.lengths[sentences]
        if rows is not None:
            self.ancestry = self.ancestry.index_select(0, rows)
            self.rows = len(rows)
            if self.rows and int(self.counts[: self.count].sum()) > SPARE * self.rows * self.count:
                self._gather()

    def _gather(self) -> None:
        """Keeps of every step only what rows there are now look back on: the others' memory is free again."""
        for step in range(self.count):
            self.kept[step] = self.kept[step].index_select(1, self.ancestry[:, step])
            self.steps[step], self.counts[step] = self.kept[step].data_ptr(), self.rows
        self.ancestry[:, : self.count] = torch.arange(self.rows, dtype=torch.int32)[:, None]


class _Best:
    """Predictions from states [R, D]."""

    def __init__(self, engine: Engine, states: Tensor) -> None:
        self.engine, self.states = engine, states

    def all(self) -> Tensor:
        logits = native.floats(len(self.states), self.engine.target_vocab_size)
        native.run("project_states", logits, self.states, self.engine.address, len(self.states))
        return allowed(logits.log_softmax(1))

    def best(self, count: int) -> tuple[Tensor, Tensor]:
        rows, count = len(self.states), min(count, self.engine.target_vocab_size - EOS)
        values, ids = native.floats(rows, count), torch.empty(rows, count, dtype=torch.int64)
        if count > MANY:  # the kernel keeps the best in order, which takes count^2
            values, ids = self.all().topk(count, dim=1)
            ids, order = ids.sort(1)
            return values.gather(1, order), ids
        native.run("best_pieces", values, ids, self.states, self.engine.address, rows, EOS, count)
        return values, ids
