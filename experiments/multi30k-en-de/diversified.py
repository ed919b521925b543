"""The best recipe: a wider model that learns from the corpus and from what other models make of it.

    python experiments/multi30k-en-de/diversified.py [--only lowercase|raw] [--seeds 1 2 3] [--teachers three|two]

Trains six teachers on the corpus alone, has them translate it (`seq2seq diversify`), trains the students on it all, one
a seed, and measures each on the test sets as run.py does, with the paper's own search (beam 4, alpha 0.6). Trainings
and translations that are in `--folder` already are not done again, if they have the settings that are asked for; a
training that was interrupted is resumed. Nothing but the 29,000 pairs is used.

`--teachers three` is the same in less than half the time: two forward teachers and a backward one, all of preset
`quick`, and students of `tiny`'s size. `--teachers two` is a forward and a backward one, two translations of each, and
wide students with BPE-dropout of the source. With `--student-set training.max_steps=6600` those learn for longer. With
`--rounds 2` the students, and the backward teachers, translate the corpus once more, and others learn from that; with
`--rounds 3` a backward student of that second text, too, which takes the backward teachers' place in the third.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from run import DATA, RECIPES, check_settings, seq2seq

from seq2seq.recipe import load_config
from seq2seq.run_folder.files import write_atomic
from seq2seq.text.download import ensure_downloads

TEACHERS_SEARCH = ("--beam-size", "5", "--length-penalty", "1.8")
SEARCH = ("--beam-size", "4", "--length-penalty", "0.6")
STUDENTS = {  # preset and settings
    "six": ("small", "training.max_steps=5000"),
    "three": ("quick", "training.max_steps=6500", "training.batch_tokens=4096"),
    "two": ("small", "training.max_steps=3800", "tokenizer.sample_source=0.1"),
}
FOLDERS = {"six": "best", "three": "three", "two": "two"}
ROUNDS = (("diversified", "student"), ("second", "second"), ("third", "third"))  # folder of the text, students
LABELS = {"six": "diversified, small", "three": "diversified", "two": "diversified by two, small, BPE-dropout"}


class Experiment:
    """One variant of the corpus, and the folder of its runs."""

    def __init__(self, name: str, folder: Path, label: str, settings: list[str]) -> None:
        self.name, self.recipe, self.folder, self.label, self.settings = name, RECIPES[name], folder, label, settings

    def files(self, source: str, target: str, train: Path = DATA, *, gzipped: bool = True) -> list[str]:
        """Options that name a training corpus, in the folder `train`, and the validation set."""
        options = []
        for part, folder in (("train", train), ("valid", DATA)):
            for option, language in (("source", source), ("target", target)):
                name = self.recipe.files.format("val" if part == "valid" else part, language)
                if folder != DATA and not gzipped:
                    name = name.removesuffix(".gz")
                options += [f"--{option}" if part == "train" else f"--{part}-{option}", str(folder / name)]
        return options

    def both_directions(self) -> list[str]:
        """The corpus and the corpus turned round, as one. Gzipped files may follow each other in one file."""
        folder = self.folder / "both-directions"
        folder.mkdir(parents=True, exist_ok=True)
        names = {language: self.recipe.files.format("train", language) for language in ("en", "de")}
        texts = {language: (DATA / name).read_bytes() for language, name in names.items()}
        for language, other in (("en", "de"), ("de", "en")):
            write_atomic(folder / names[language], texts[language] + texts[other])
        return self.files("en", "de", folder)

    def train(
        self, name: str, corpus: list[str], *settings: str, preset: str = "quick", initial: Path | None = None
    ) -> Path:
        """Trains a run, or the rest of it."""
        run = self.folder / name
        wanted = (f"data.bleu_tokenize={self.recipe.tokenize}", *settings, *self.settings)
        if (run / "model.json").exists():
            if initial is None:  # else settings are the other run's, too
                check_settings(run, self.recipe.config, preset, wanted, "name another --folder")
        else:
            begin = ["--preset", preset, *(["--init-from", str(initial)] if initial else [])]
            resume = ["--resume"] if (run / "config.toml").exists() else []
            options = [part for setting in wanted for part in ("--set", setting)]
            seq2seq("train", str(self.recipe.config), *corpus, *begin, "--run-dir", str(run), *resume, *options)
        return run

    def diversify(self, name: str, forward: list[Path], backward: list[Path], n_best: int) -> list[str]:
        """The corpus and what the runs make of it, `n_best` translations of a line each."""
        output = self.folder / name
        corpus = self.files("en", "de", output, gzipped=False)
        if not all(Path(file).exists() for file in (corpus[1], corpus[3])):
            runs = [("--forward", run) for run in forward] + [("--backward", run) for run in backward]
            named = [part for option, run in runs for part in (option, str(run))]
            original = self.files("en", "de")[:4]
            options = ["--output", str(output), "--overwrite", *TEACHERS_SEARCH, "--n-best", str(n_best)]
            seq2seq("diversify", *original, *named, *options)
        return corpus

    def two_teachers(self) -> tuple[list[Path], list[Path]]:
        """One that translates forward, and one that translates backward, of preset `quick`."""
        return [self.train("quick", self.files("en", "de"), "training.max_steps=5000")], [self.backward(5000)]

    def three_teachers(self) -> tuple[list[Path], list[Path]]:
        """Two that translate forward, and one that translates backward, of preset `quick`."""
        corpus = self.files("en", "de")
        forward = [
            self.train("quick", corpus, "training.max_steps=6268"),
            self.train("decay", corpus, "training.weight_decay=0.1", "training.max_steps=6268"),
        ]
        return forward, [self.backward()]

    def six_teachers(self) -> tuple[list[Path], list[Path]]:
        """Four that translate forward, and two that translate backward."""
        corpus = self.files("en", "de")
        short_batches = ("training.batch_tokens=2048", "training.max_steps=5500")
        wide = self.train("wide", corpus, *short_batches, "training.seed=21", preset="small")
        quick = self.train("quick", corpus, "training.max_steps=6268")
        tiny = self.train("tiny", corpus, "training.max_steps=10772", preset="tiny")
        both = self.train("both", self.both_directions(), "training.max_steps=6268")
        slower = "training.learning_rate_scale=0.28"
        tuned = self.train("tuned", corpus, slower, "training.max_steps=2500", initial=both)
        return [wide, quick, tiny, tuned], [self.backward(), both]

    def backward(self, steps: int = 5500) -> Path:
        return self.train("back", self.files("de", "en"), "training.seed=13", f"training.max_steps={steps}")

    def measure(self, run: Path) -> None:
        """Adds the figures of a finished run to results.json."""
        command = [sys.executable, str(Path(__file__).parent / "run.py"), "--only", self.name, "--run-dir", str(run)]
        subprocess.run([*command, *SEARCH, "--label", self.label], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("lowercase", "raw"), default="lowercase")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the students")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="for every training")
    parser.add_argument(
        "--student-set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="for the students, after --set"
    )
    parser.add_argument("--rounds", type=int, choices=(1, 2, 3), default=1, help="2, 3: the students teach others")
    parser.add_argument("--teachers", choices=tuple(STUDENTS), default="six")
    parser.add_argument("--folder", type=Path, help="runs/m30k-best-VARIANT, m30k-three-VARIANT, m30k-two-VARIANT")
    parser.add_argument("--label", help="what the results are called, before the seed; needed with --set")
    arguments = parser.parse_args()
    if (arguments.set or arguments.student_set) and not arguments.label:
        parser.error("--set, --student-set: other settings are another result: give it a --label")
    teachers, variant = arguments.teachers, arguments.only
    folder = arguments.folder or Path("runs") / f"m30k-{FOLDERS[teachers]}-{variant}"
    rounds = ("", ", two rounds", ", three rounds")[arguments.rounds - 1]
    label = arguments.label or f"{variant}, {LABELS[teachers]}{rounds}"
    experiment = Experiment(variant, folder, label, arguments.set)
    ensure_downloads(load_config(experiment.recipe.config).data.downloads, print)

    train = {"six": experiment.six_teachers, "three": experiment.three_teachers, "two": experiment.two_teachers}
    forward, backward = train[teachers]()
    preset, *settings = STUDENTS[teachers]
    general = list(experiment.settings)
    for number, (corpus, name) in enumerate(ROUNDS[: arguments.rounds]):
        experiment.settings = general + arguments.student_set
        if number == 2:
            turned = experiment.files("de", "en", experiment.folder / ROUNDS[1][0], gzipped=False)
            backward = [experiment.train("second-back", turned, "training.seed=13", *settings, preset=preset)]
        more = experiment.diversify(corpus, forward, backward, n_best=2 if teachers == "two" else 1)
        forward = [
            experiment.train(f"{name}-{seed}", more, f"training.seed={seed}", *settings, preset=preset)
            for seed in arguments.seeds
        ]
    for student in forward:  # of the last round
        experiment.measure(student)


if __name__ == "__main__":
    main()
