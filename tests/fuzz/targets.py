"""What is fuzzed: a file of a run folder or of data, how it is damaged, and what a user then does with it.

Each target takes a case's own generator of random numbers, damages a file, and works with what is left. It must end as
if all were well or in a UserError. A hash that stands in another file is made right, as whoever meant harm would.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mutations import mutate, mutate_fields, mutate_gzip, mutate_lines, mutate_tensors, mutate_toml

from seq2seq import pipeline
from seq2seq.config import DataConfig, TokenizerConfig
from seq2seq.decoding.translator import Translator
from seq2seq.export.light import LightRun
from seq2seq.recipe import build_config, load_config
from seq2seq.run import Run
from seq2seq.run_folder import checkpoints
from seq2seq.run_folder.weights import build_model
from seq2seq.text.corpus import build_piece_corpus, build_text_corpus
from seq2seq.text.reading import read_lines, read_pairs
from seq2seq.text.tokenizer import Tokenizer
from seq2seq.training.state import Interrupted
from seq2seq.training.trainer import Trainer

SENTENCES = [
    f"the {size} {one} sees {two}" for size in ("big", "old") for one in ("cat", "dog") for two in ("mice", "birds")
]
ODD_LINES = ["the cat", "", "\0", "é e\u0301 ﬁ ½ 日本語", "😀 \u202e abc", "a" * 300, "\ufdfa \u3300"]
CHECKPOINT = "checkpoints/step-00000002"


class Quiet:
    def message(self, text: str) -> None:
        assert "\n" not in text

    def working(self, what: str, done: int = 0, total: int | None = None) -> None: ...
    def progress(self, record: Any) -> None: ...
    def validation(self, record: Any) -> None: ...


class Playground:
    """A trained run and a corpus, whose files are put back after each case."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run_path = folder, folder / "run"
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{line}\n" for line in SENTENCES)
        for name, text in (("a.en", lines), ("a.de", lines.upper())):
            (folder / name).write_text(text, encoding="utf-8")
        self.config = build_config(
            {
                "data": {"train_source": str(folder / "a.en"), "train_target": str(folder / "a.de")},
                "tokenizer": {"vocab_size": 48},
                "model": {"d_model": 8, "num_heads": 2, "d_ff": 8, "num_encoder_layers": 1, "num_decoder_layers": 1},
                "training": {"max_steps": 2, "save_every": 2, "average": "none", "batch_tokens": 100, "num_threads": 1},
                "decoding": {"max_extra_length": 5, "max_source_length": 50},
            }
        )
        pipeline.train(self.config, self.run_path, Quiet())
        self.files = {p: p.read_bytes() for p in self.run_path.rglob("*") if p.is_file()}
        self.run = Run(self.run_path)
        self.tokenizer = self.run.tokenizer()
        self.trainer = self._trainer()
        self.models = self._models()

    def _trainer(self) -> Trainer:
        text, _ = build_text_corpus(
            read_pairs(self.config.data, "train"), self.folder / "text", drop_empty=True, drop_duplicates=False
        )
        encode = self.tokenizer.encode_source, self.tokenizer.encode_target
        pairs = build_piece_corpus(text, *encode, self.config.data, self.folder / "pieces", None, filters=True)
        model = build_model(self.config, self.tokenizer)
        training = self.config.training.model_copy(update={"max_steps": 3})  # one more than there are
        return Trainer(
            self.run, training, model, pairs, None, None, Quiet(), device=torch.device("cpu"), stop=lambda: True
        )

    def go_on(self) -> None:
        """Resumes, and trains one step."""
        if self.trainer.resume():
            with contextlib.suppress(Interrupted):
                self.trainer.train()

    def _models(self) -> list[bytes]:
        """SentencePiece models of each kind to begin with."""
        kinds = [
            {"algorithm": "bpe"}, {"algorithm": "unigram"}, {"algorithm": "unigram", "normalization": "nmt_nfkc"},
            {"algorithm": "bpe", "byte_fallback": True, "vocab_size": 330},
        ]  # fmt: skip
        configs = [TokenizerConfig.model_validate({"vocab_size": 48, **kind}) for kind in kinds]
        return [Tokenizer.learn(config, SENTENCES, SENTENCES, seed=1).source_bytes for config in configs]

    def put_back(self) -> None:
        for folder in (self.run_path / "checkpoints").glob("*"):
            if folder.name != Path(CHECKPOINT).name:
                shutil.rmtree(folder)
        for path, content in self.files.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)

    def set_model_hash(self, content: bytes) -> None:
        self._set(self.run_path / "model.json", ("files", "model.safetensors"), content)

    def _set(self, path: Path, place: tuple[str, str], content: bytes) -> None:
        document = json.loads(path.read_bytes())
        document[place[0]][place[1]] = hashlib.sha256(content).hexdigest()
        path.write_bytes(sealed(document))


def sealed(state: dict[str, Any]) -> bytes:
    """state.json with a hash of itself that is right, as a saved one has it."""
    if state.pop(checkpoints.STATE_HASH, None) is not None:
        state[checkpoints.STATE_HASH] = checkpoints._state_hash(state)
    return json.dumps(state).encode("utf-8", "surrogatepass")


def configuration(play: Playground, generator: random.Random) -> None:
    path = play.run_path / "config.toml"
    how = mutate_toml if generator.random() < 0.6 else partial(mutate, structured=False)
    path.write_bytes(how(play.files[path], generator))
    try:
        load_config(path)
    finally:
        Run.open(play.run_path).load_model()


def model_json(play: Playground, generator: random.Random) -> None:
    path = play.run_path / "model.json"
    path.write_bytes(mutate(play.files[path], generator, structured=True))
    LightRun.open(play.run_path).remark()
    run = Run.open(play.run_path)
    run.remark()
    run.load_model()
    pipeline.train(play.config, play.run_path, Quiet(), resume=True)


def model_tensors(play: Playground, generator: random.Random) -> None:
    path = play.run_path / "model.safetensors"
    content = mutate_tensors(play.files[path], generator)
    path.write_bytes(content)
    play.set_model_hash(content)
    Run.open(play.run_path).load_model()


def source_hashes(play: Playground, generator: random.Random) -> None:
    path = play.run_path / "training_sources.safetensors"
    path.write_bytes(mutate_tensors(play.files[path], generator))
    Run.open(play.run_path).source_hashes()


def state_json(play: Playground, generator: random.Random) -> None:
    path = play.run_path / CHECKPOINT / "state.json"
    content = mutate(play.files[path], generator, structured=True)
    with contextlib.suppress(ValueError, AttributeError, RecursionError):  # it is no object any more
        content = sealed(json.loads(content))
    path.write_bytes(content)
    play.go_on()


def checkpoint_tensors(play: Playground, generator: random.Random) -> None:
    name = generator.choice(("model.safetensors", "optimizer.safetensors"))
    path = play.run_path / CHECKPOINT / name
    content = mutate_tensors(play.files[path], generator)
    path.write_bytes(content)
    play._set(play.run_path / CHECKPOINT / "state.json", ("files", name), content)
    play.go_on()


def metrics(play: Playground, generator: random.Random) -> None:
    path = play.run_path / "metrics.jsonl"
    path.write_bytes(mutate(play.files[path], generator, structured=False))
    list(Run.open(play.run_path).metrics())


def tokenizer_model(play: Playground, generator: random.Random) -> None:
    seed = generator.choice(play.models)
    how = mutate_fields if generator.random() < 0.7 else partial(mutate, structured=False)
    content = how(seed, generator)
    tokenizer = Tokenizer(content)
    for ids in (*tokenizer.encode_source(ODD_LINES), list(range(tokenizer.source_vocab_size))):
        tokenizer.source_pieces(ids)
        tokenizer.decode([ids])


def _pairs(play: Playground, name: str, content: bytes, **fields: str) -> None:
    path = play.folder / name
    path.write_bytes(content)
    data = DataConfig(train_pairs=str(path), **fields)
    build_text_corpus(read_pairs(data, "train"), play.folder / "fuzzed.text", drop_empty=True, drop_duplicates=True)


def tsv(play: Playground, generator: random.Random) -> None:
    seed = "".join(f"{line}\t{line.upper()}\n" for line in SENTENCES).encode()
    _pairs(play, "fuzzed.tsv", mutate_lines(seed, generator, structured=False))


def jsonl(play: Playground, generator: random.Random) -> None:
    rows = [{"source": line, "target": line.upper(), "n": 1} for line in SENTENCES]
    rows += [{"translation": {"en": line, "de": line}} for line in SENTENCES]
    half = generator.choice((rows[: len(SENTENCES)], rows[len(SENTENCES) :]))
    seed = "\n".join(json.dumps(row) for row in half).encode()
    content = mutate_lines(seed, generator, structured=True)
    _pairs(play, "fuzzed.jsonl", content, source_language="en", target_language="de")


def gzipped(play: Playground, generator: random.Random) -> None:
    seed = "".join(f"{line}\t{line.upper()}\n" for line in SENTENCES * 20).encode()
    content = mutate_gzip(seed, generator)
    try:
        _pairs(play, "fuzzed.tsv.gz", content)
    finally:
        list(read_lines(play.folder / "fuzzed.tsv.gz", Quiet().message))


def translate(play: Playground, generator: random.Random) -> None:
    path = play.folder / "fuzzed.en"
    path.write_bytes(mutate_lines("\n".join(ODD_LINES).encode(), generator, structured=False)[:20_000])
    translator = Translator.of(play.run.load_model(), play.tokenizer, play.config.decoding)
    lines = list(read_lines(path, Quiet().message))
    assert len(translator.translate(lines[:20], beam_size=1)) == len(lines[:20])


Target = Callable[[Playground, random.Random], None]
# With the share that each has of all cases.
TARGETS: dict[Target, int] = {
    configuration: 3, model_json: 3, model_tensors: 3, source_hashes: 1, state_json: 3, checkpoint_tensors: 2,
    metrics: 1, tsv: 2, jsonl: 3, gzipped: 2, translate: 1, tokenizer_model: 6,
}  # fmt: skip
