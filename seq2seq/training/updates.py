"""One update: the gradient of the mean loss over all target tokens of some micro-batches, then an optimizer's step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq.config import TrainingConfig
from seq2seq.model.dropout import seeded
from seq2seq.model.packed import Sentences
from seq2seq.model.transformer import PAD, Transformer
from seq2seq.runtime import derived_seed
from seq2seq.text.batching import Batch, Indices, PiecePairs, collate
from seq2seq.training.loss import ROW_UNIT, smoothed_cross_entropy
from seq2seq.training.muon import Muon, costs, layer_matrices
from seq2seq.training.optimizer import build_optimizers
from seq2seq.training.r_drop import paired_cross_entropy
from seq2seq.workers import Workers, choose_workers


@dataclass(frozen=True)
class Step:
    """What one update did: sums over its target tokens, the norm of the gradient, and whether it was taken.

    loss, nll, grad_norm and finite (0 or 1) are float32 scalars on the device: reading them waits for it.
    """

    loss: Tensor
    nll: Tensor
    grad_norm: Tensor
    finite: Tensor
    tokens: int
    splits: int = 0


Sums = tuple[Tensor, Tensor, list[Tensor]]  # of the loss, of -log p, and the gradients


class Updater:
    """Holds the workers that compute a model's gradients, and the optimizers of each worker's share of the parameters.

    After the gradients, too, each worker does its share on its own. Where all threads are inside of each operation,
    some hundred small ones an update, they wait for each other at every one when other work takes the cores; so they
    do where there are fewer workers than threads.

    A part of a batch for which a GPU's memory is too small is halved, as often as it takes; so are, from then on, parts
    that are as large. `splits` counts the halvings. The gradient stays that of the mean loss over all target tokens.
    """

    def __init__(self, config: TrainingConfig, model: Transformer, device: torch.device) -> None:
        self.config, self.model, self.device = config, model, device
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        threads = torch.get_num_threads()
        self.workers = Workers(choose_workers(config.workers, threads, config.micro_batch_tokens, device))
        matrices = layer_matrices(model) if config.optimizer == "muon" else {}
        self.shares = shares(costs(self.parameters, matrices), self.workers.count)
        self._optimizers = [
            build_optimizers(config, [self.parameters[i] for i in share], matrices) for share in self.shares
        ]
        self.splits = 0
        self.too_many: int | None = None  # tokens of the smallest part that did not fit

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Of all shares."""
        return [optimizer for share in self._optimizers for optimizer in share]

    def update(self, pairs: PiecePairs, micro_batches: Sequence[Indices], step: int, rate: float) -> Step:
        """Takes update number `step` with the learning rate `rate`, unless its loss or gradient is not finite.

        Nothing here waits for a GPU: whether the update is taken is decided there.
        """
        self.model.train()
        before = self.splits
        tokens = sum(int(pairs.target_lengths[indices].sum()) + len(indices) for indices in micro_batches)
        loss, nll = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        gradients: list[Tensor] = []
        for number, indices in enumerate(micro_batches):
            parts = self._micro_batch(pairs, indices, tokens, step, number)
            loss += sum(part_loss for part_loss, _, _ in parts)
            nll += sum(part_nll for _, part_nll, _ in parts)
            gradients = self._sum([*([gradients] if gradients else []), *(part for _, _, part in parts)])
            del parts  # before the next ones are computed: they are as large as the weights
        norm, finite = self._step(gradients, loss, rate)
        return Step(loss, nll, norm, finite, tokens, self.splits - before)

    def rehearse(self, pairs: PiecePairs, indices: Indices) -> int:
        """Computes the gradients of a micro-batch for the sake of the memory and the time that they take.

        Returns how often it had to be split, and forgets it: updates are to be the same without a rehearsal.
        """
        self.model.train()
        before = self.splits, self.too_many
        self._micro_batch(pairs, indices, int(pairs.target_lengths[indices].sum()) + len(indices), 0, 0)
        splits = self.splits - before[0]
        self.splits, self.too_many = before
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return splits

    def _micro_batch(self, pairs: PiecePairs, indices: Indices, tokens: int, step: int, number: int) -> list[Sums]:
        """Sums of loss and -log p, and gradients, from each worker."""
        count = self.workers.count
        # Of neighbours in length one goes to each worker, so that all have about as much to do.
        parts = [indices[worker::count] for worker in range(min(count, len(indices)))]
        seeds = [derived_seed(self.config.seed, "dropout", step, number, worker) for worker in range(len(parts))]
        tasks = [partial(self._gradients, pairs, part, tokens, seed) for part, seed in zip(parts, seeds, strict=True)]
        return self.workers.run(tasks)

    def _gradients(self, pairs: PiecePairs, indices: Indices, tokens: int, seed: int) -> Sums:
        """For some pairs: sums of loss and -log p, and their part of the gradients of the mean over all `tokens`."""
        own = int(pairs.source_lengths[indices].sum() + pairs.target_lengths[indices].sum()) + 2 * len(indices)
        if self.too_many is None or own < self.too_many or len(indices) == 1:
            try:
                return self._gradients_at_once(pairs, indices, tokens, seed)
            except torch.OutOfMemoryError:
                if len(indices) == 1:
                    raise
            # Out here, where the error no longer holds on to what had been computed.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.too_many = own
        self.splits += 1
        halves = [
            self._gradients(pairs, half, tokens, derived_seed(seed, "half", number))
            for number, half in enumerate((indices[::2], indices[1::2]))
        ]
        (loss, nll, gradients), (more_loss, more_nll, more_gradients) = halves
        torch._foreach_add_(gradients, more_gradients)
        return loss + more_loss, nll + more_nll, gradients

    def _gradients_at_once(self, pairs: PiecePairs, indices: Indices, tokens: int, seed: int) -> Sums:
        batch = collate(pairs, indices).to(self.device)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)  # torch.manual_seed looks for every other kind of device, too
        with seeded(seed):
            loss, nll = batch_losses(self.model, batch, self.config.label_smoothing, self.config.r_drop)
        gradients = torch.autograd.grad(loss / tokens, self.parameters, materialize_grads=True)
        return loss.detach(), nll, list(gradients)

    def _sum(self, gradients: list[list[Tensor]]) -> list[Tensor]:
        """The sum of gradients of all parameters, in the place of the first."""
        first, *others = gradients

        def add(share: list[int]) -> None:
            for other in others:
                torch._foreach_add_([first[i] for i in share], [other[i] for i in share])

        if others:
            self.workers.run([partial(add, share) for share in self.shares])
        return first

    def _step(self, gradients: list[Tensor], loss: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """The norm of the gradient, before it is clipped, and whether the step was taken, 0 or 1."""

        def norm_of(share: list[int]) -> Tensor:
            return torch.nn.utils.get_total_norm([gradients[i] for i in share])

        norms = self.workers.run([partial(norm_of, share) for share in self.shares])
        norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        finite = (torch.isfinite(norm) & torch.isfinite(loss)).float()
        found_inf = 1.0 - finite

        def take(share: list[int], optimizers: list[torch.optim.Optimizer]) -> None:
            parameters = [self.parameters[i] for i in share]
            for i, parameter in zip(share, parameters, strict=True):
                parameter.grad = gradients[i]
            if self.config.clip_norm:
                torch.nn.utils.clip_grads_with_norm_(parameters, self.config.clip_norm, norm)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
                if isinstance(optimizer, Muon):
                    optimizer.dtype = self.model.compute_dtype
                # What a gradient scaler sets, too: the optimizer then leaves weights and moments as they are.
                optimizer.grad_scale, optimizer.found_inf = None, found_inf  # type: ignore[attr-defined]
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

        self.workers.run([partial(take, *pair) for pair in zip(self.shares, self._optimizers, strict=True)])
        return norm, finite


def shares(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Numbers of tensors of the given sizes in at most `count` shares, none empty, that are about as large."""
    found: list[list[int]] = [[] for _ in range(min(count, len(sizes)))]
    for number in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        min(found, key=lambda share: sum(sizes[i] for i in share)).append(number)
    return [sorted(share) for share in found if share]


def batch_losses(model: Transformer, batch: Batch, smoothing: float, r_drop: float = 0.0) -> tuple[Tensor, Tensor]:
    """Sums over the target tokens of a batch: the smoothed loss, and -log p. Teacher forcing.

    With r_drop there are two predictions, whose mean loss and -log p these are, with the price of their divergence.
    On a CPU there are more states than target tokens (`_rounded`): those after the last count for nothing.
    """
    device = batch.source.device
    source, target_input = batch.source, batch.target_input
    if device.type == "cpu":
        source, target_input = _rounded(source), _rounded(target_input)
    sources = Sentences.of(batch.source_starts, len(source)).to(device)
    targets = Sentences.of(batch.target_starts, len(target_input)).to(device)
    states = model.packed_states(source, sources, target_input, targets)
    if r_drop:
        again = model.packed_states(source, sources, target_input, targets)
        return paired_cross_entropy(states, again, model.output_weight, batch.target_output, smoothing, r_drop)
    return smoothed_cross_entropy(states, model.output_weight, batch.target_output, smoothing)


def _rounded(ids: Tensor) -> Tensor:
    """With padding after the last sentence, up to a multiple of ROW_UNIT.

    Otherwise every batch has another number of rows, and the library of matrix products compiles a kernel for each and
    keeps a thousand of them: a fifth of all memory, and some time.
    """
    return F.pad(ids, (0, -len(ids) % ROW_UNIT), value=PAD)
