"""A tiny corpus, a run that was trained on it through the command line, and the command line itself in this process."""

from __future__ import annotations

import io
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from seq2seq import cli


@pytest.fixture(scope="module")
def the_machine_as_it_was() -> Iterator[None]:
    """Afterwards: training in this process sets all of it up."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if matplotlib were not installed: drawing takes longer than training here."""
    monkeypatch.setitem(sys.modules, "seq2seq.stages.curves", None)


LEXICON = {
    "the": "der", "small": "kleine", "big": "große", "green": "grüne", "old": "alte", "cat": "Katze", "dog": "Hund",
    "horse": "Pferd", "king": "König", "door": "Tür", "sees": "sieht", "hears": "hört", "finds": "findet",
    "opens": "öffnet", "and": "und", "often": "häufig", "today": "heute", "here": "hier",
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What a command gave: its exit code and what it wrote, as bytes and as text."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        return self.stdout.decode("utf-8")

    @property
    def lines(self) -> list[str]:
        return self.out.split("\n")[:-1] if self.out else []

    @property
    def err(self) -> str:
        return self.stderr.decode("utf-8")


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def run_in_process(
    *arguments: str | Path, stdin: bytes = b"", cwd: Path | None = None, terminal: bool = False
) -> Result:
    """`seq2seq ARGUMENTS` without the seconds that a new process needs to import torch.

    terminal: standard input is one; what the user types is then to be had from a patched `input`.
    """
    threads = _torch_threads()
    before = os.getcwd()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    streams, argv = (sys.stdin, sys.stdout, sys.stderr), sys.argv
    out, err = io.BytesIO(), io.BytesIO()
    sys.argv = ["seq2seq", *map(str, arguments)]
    sys.stdin = (Terminal if terminal else io.TextIOWrapper)(io.BufferedReader(io.BytesIO(stdin)), encoding="ascii")
    # As narrow as the narrowest locale: the program must see to it that German comes out.
    sys.stdout = io.TextIOWrapper(out, encoding="ascii")
    sys.stderr = io.TextIOWrapper(err, encoding="ascii", errors="backslashreplace")
    code: str | int | None = 0
    try:
        if cwd is not None:
            os.chdir(cwd)
        cli.main()
    except SystemExit as stop:
        code = stop.code
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            stream.detach()  # or it closes the bytes with it
        sys.stdin, sys.stdout, sys.stderr = streams
        sys.argv = argv
        os.chdir(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _torch_threads(threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_flush_denormal(False)  # commands set up the whole process
    return Result(code if isinstance(code, int) else 0 if code is None else 1, out.getvalue(), err.getvalue())


def _torch_threads(number: int | None = None) -> int | None:
    """torch's number of threads, where torch is imported; sets it where a number is given."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if number is not None:
        torch.set_num_threads(number)
    return int(torch.get_num_threads())


def write_corpus(folder: Path, sizes: dict[str, int]) -> None:
    """train.en, train.de and so on: word for word, in UTF-8; the first two test sentences stand in train too."""
    generator = random.Random(7)
    words = sorted(LEXICON)
    for split, size in sizes.items():
        sources = [" ".join(generator.choices(words, k=generator.randint(3, 8))) for _ in range(size)]
        if split == "test":
            sources[:2] = (folder / "train.en").read_text(encoding="utf-8").splitlines()[:2]
        targets = [" ".join(LEXICON[word] for word in source.split()) for source in sources]
        for language, lines in (("en", sources), ("de", targets)):
            (folder / f"{split}.{language}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


TINY_TOML = """
[data]
source_language = "en"
target_language = "de"
train_source = "train.en"
train_target = "train.de"
valid_source = "valid.en"
valid_target = "valid.de"
test_source = "test.en"
test_target = "test.de"

[tokenizer]
vocab_size = 90

[model]
initial_gain = 1.0  # after so few steps 0.5 leaves it with loops
d_model = 32
num_heads = 2
d_ff = 64
num_encoder_layers = 1
num_decoder_layers = 1
dropout = 0.0

[training]
max_steps = 100
batch_tokens = 600
schedule = "constant"
warmup_steps = 20
learning_rate_scale = 0.3
label_smoothing = 0.0
log_every = 20
validate_every = 50
save_every = 50
average = "none"
average_checkpoints = 1
precision = "fp32"
num_threads = 1

[decoding]
beam_size = 3
"""


@dataclass(frozen=True)
class TinyRun:
    """A trained run: its folder, the folder of its corpus and recipe.toml, and what `seq2seq train` printed."""

    path: Path
    corpus: Path
    result: Result


Cli = Callable[..., Result]


@pytest.fixture(scope="session")
def run_cli() -> Cli:
    return run_in_process


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train, valid and test in .en and .de, and recipe.toml."""
    folder = tmp_path_factory.mktemp("tiny corpus")  # with a space, as folders of users have
    write_corpus(folder, {"train": 300, "valid": 12, "test": 20})
    (folder / "recipe.toml").write_text(TINY_TOML, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_run(tiny_corpus: Path, run_cli: Cli) -> TinyRun:
    """Trained by `seq2seq train recipe.toml` in the corpus folder, a second or two; do not write to it."""
    result = run_cli("train", "recipe.toml", cwd=tiny_corpus)
    assert result.code == 0, result.err
    return TinyRun(tiny_corpus / "runs" / "recipe", tiny_corpus, result)


@pytest.fixture(params=["compiled", "torch"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a test twice: with the compiled kernels, where they were built, and without them."""
    from seq2seq.model import native

    if request.param == "compiled" and not native.available():
        pytest.skip("the compiled kernels were not built")
    with native.disabled() if request.param == "torch" else nullcontext():
        yield request.param


def in_words(sentences: Sequence[str]) -> list[str]:
    """What a perfect translator of the tiny corpus gives."""
    return [" ".join(LEXICON[word] for word in sentence.split()) for sentence in sentences]
