"""`seq2seq train`, and `seq2seq verify-resume`, which proves that a training can be resumed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seq2seq.commands.common import (
    check_result_file,
    option,
    signals,
    tell,
)
from seq2seq.errors import OptionError, UserError

if TYPE_CHECKING:
    from seq2seq.config import Config


def train(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG.toml", hidden=True)] = None,
    run_dir_: Annotated[
        str | None,
        option("FOLDER", "Where the run is kept; runs/CONFIG, runs/PRESET or runs/RUN-finetuned.", "--run-dir"),
    ] = None,
    source: Annotated[str | None, option("FILE", "Training sentences to translate from, one a line.")] = None,
    target: Annotated[str | None, option("FILE", "Their translations, line by line.")] = None,
    valid_source: Annotated[str | None, option("FILE", "Validation sentences, to see how training goes.")] = None,
    valid_target: Annotated[str | None, option("FILE", "Their translations.")] = None,
    test_source: Annotated[str | None, option("FILE", "Test sentences, translated once at the end.")] = None,
    test_target: Annotated[str | None, option("FILE", "Their translations.")] = None,
    preset: Annotated[
        str | None,
        option("tiny|quick|small|base|big", "Start from a recipe: quick takes 10 minutes, tiny 30, small 60."),
    ] = None,
    init_from_: Annotated[
        str | None, option("RUN", "Fine-tune its model; its recipe is taken unless another is given.", "--init-from")
    ] = None,
    set_: Annotated[list[str] | None, option("SECTION.KEY=VALUE", "Change a setting; repeatable.", "--set")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run from its last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that the folder holds.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show validations only, no progress.")] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print all settings as a recipe, and do not train.")
    ] = False,
) -> None:
    """Train a translator from parallel text.

    CONFIG.toml is a recipe. Give one, or --source and --target with --preset, or both: files given here take the place
    of the recipe's corpus, of its languages and its bleu_tokenize. A run that was stopped goes on with --run-dir and
    --resume alone. With --init-from training begins with a finished run's weights and vocabulary, on whatever corpus
    is given; without another recipe it keeps that run's settings, languages and bleu_tokenize.
    """
    if resume and overwrite:
        raise OptionError("--resume and --overwrite exclude each other")
    if run_dir_ == "":  # as a variable of a script that was not set
        raise OptionError("--run-dir is empty: name a folder")
    paths = {
        "train_source": source, "train_target": target, "valid_source": valid_source, "valid_target": valid_target,
        "test_source": test_source, "test_target": test_target,
    }  # fmt: skip
    corpus = {name: value for name, value in paths.items() if value}
    if corpus and not (source and target):
        raise OptionError("--source and --target belong together: give both (validation and test files come on top)")
    asked = _Asked(
        config=config,
        preset=preset,
        corpus=corpus,
        changes=set_ or [],
        init_from=None if init_from_ is None else _initial(init_from_, set_ or []),
        run_dir=None if run_dir_ is None else Path(run_dir_),
        resume=resume,
        shown=print_config,
    )
    settings = asked.settings()
    if print_config:
        from seq2seq.recipe import dump_config

        print(dump_config(settings, name_unset=True), end="")
    else:
        _train(settings, asked.folder(settings), resume=resume, overwrite=overwrite, quiet=quiet)


def _train(settings: Config, folder: Path, *, resume: bool, overwrite: bool, quiet: bool) -> None:
    """Trains, shows how it goes, and says how to go on where it is stopped."""
    from seq2seq import pipeline
    from seq2seq.progress import TrainingProgress, describe_outcome
    from seq2seq.run import Run, resume_command
    from seq2seq.training.state import Interrupted

    with TrainingProgress(quiet=quiet) as progress:
        try:
            outcome = pipeline.train(
                settings, folder, progress, resume=resume, overwrite=overwrite, stop=signals.received, gently=signals
            )
        except Interrupted:
            latest = Run(folder).latest_checkpoint()
            newest = f"the newest checkpoint is of step {latest.step:,}" if latest else "there is no checkpoint yet"
            progress.message(f"stopped; {newest}; continue with: {resume_command(folder)}")
            sys.exit(signals.reason()[1])
        except pipeline.UntestedError as interrupted:
            progress.message("the training is finished; only its test set was not translated")
            print(describe_outcome(interrupted.outcome, settings))
            raise
        except KeyboardInterrupt:  # while data was prepared, or the model finished
            if not Run.exists(folder):
                progress.message("stopped before the first step: the same command begins anew")
            elif not overwrite and Run(folder).config() == settings:  # else it may be an older one
                progress.message(f"continue with: {resume_command(folder)}")
            raise
    print(describe_outcome(outcome, settings))


def _initial(name: str, changes: list[str]) -> Path:
    if not name:
        raise OptionError("--init-from: which run? Name its folder")
    init_from = Path(name)
    if init_from.is_file():
        raise OptionError(f"--init-from {init_from}: is a file; name the folder of a run")
    if any(change.partition("=")[0].strip() == "training.init_from" for change in changes):
        raise OptionError("--init-from and --set training.init_from are both given: keep one of them")
    return init_from


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the command line says of a training, and what follows from it: the settings and the folder.

    corpus: the files given, by their names in `[data]`. changes: what --set says. shown: nothing is trained.
    """

    config: Path | None
    preset: str | None
    corpus: dict[str, str]
    changes: list[str]
    init_from: Path | None
    run_dir: Path | None
    resume: bool
    shown: bool

    @property
    def given(self) -> bool:
        """Whether there is a corpus, by files or by --set, so that a run of which there is nothing yet can begin."""
        by_set = any(change.strip().startswith(("data.train", "data.dataset")) for change in self.changes)
        return bool(self.corpus) or by_set

    @property
    def place(self) -> Path | None:
        """The run's folder, where it is known before there are settings."""
        if self.run_dir is not None:
            return self.run_dir
        if self.init_from is not None:
            return Path("runs") / f"{self.init_from.resolve().name}-finetuned"
        if self.resume and self.config is None and self.given:
            return Path("runs") / (self.preset or "run")
        return None

    def folder(self, settings: Config) -> Path:
        return self.place or Path("runs") / (self.config.stem if self.config is not None else settings.preset or "run")

    def settings(self) -> Config:
        """The recipe with all changes. Raises OptionError or UserError where there is nothing to train on."""
        own = self.own_recipe  # before the others: it may be a pipe, or a link
        recipe = own or self.config
        if recipe is None and not self.given and not self.shown:
            if self.place is not None and (self.place / "config.toml").exists():
                raise OptionError(f"nothing to train on: to go on with the run in {self.place}, add --resume")
            raise OptionError(
                "nothing to train on: give a recipe such as data/quickstart.toml, or --source and --target"
            )
        from seq2seq.recipe import load_config, refuse_fetching, toml_text

        changes = list(self.changes)
        if self.init_from is not None:
            changes.append(f"training.init_from={toml_text(str(self.init_from))}")
        data = self.corpus or None
        settings = load_config(recipe, preset=self.preset, overrides=changes, data=data, own=own is not None)
        if own is not None and not self.shown:
            from seq2seq.text.download import downloads_in_use

            needed = downloads_in_use(settings.data) if self.resume else settings.data.downloads
            refuse_fetching(needed, str(own))
        return settings

    @cached_property
    def own_recipe(self) -> Path | None:
        """The config.toml of a run, where it serves as the recipe: of the one resumed, fine-tuned or shown."""
        folder, option_name = self._own_folder()
        if folder is None:
            return None
        from seq2seq.run import Run

        try:
            own = Run.open(folder).config()  # a stranger's: what is no plain file of its own is refused
        except UserError as error:
            raise type(error)(f"{option_name}: {error}") from None
        if self.preset not in (None, own.preset):
            began = f"with preset {own.preset}" if own.preset else "without a preset"
            raise OptionError(f"--preset {self.preset}: {folder} began {began}; leave --preset out")
        return folder / "config.toml"

    def _own_folder(self) -> tuple[Path | None, str]:
        """The run whose recipe is taken, and the option that named it."""
        if self.config is not None:
            return None, ""
        place = self.place
        begun = place is None or (place / "config.toml").exists()
        if self.resume and (begun or not (self.given or self.init_from is not None)):
            if place is None:
                raise OptionError("--resume: which run? Name its folder with --run-dir")
            if not place.is_dir():
                raise UserError(f"--resume: {place}: no such run folder; check the path")
            if not begun:
                raise UserError(f"--resume: {place}: nothing was trained there yet; give recipe or corpus as well")
            return place, "--resume"
        if self.init_from is not None and self.preset is None:
            return self.init_from, "--init-from"
        if self.shown and place is not None and self.preset is None and not self.given:
            return place, "--run-dir"
        return None, ""


def verify_resume(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", hidden=True)],
    steps: Annotated[int, option("N", "How long the two trainings are.")] = 40,
    kills: Annotated[int, option("N", "How often one of them is killed.")] = 3,
    seed: Annotated[int, option("N", "Chooses the steps at which it is killed.")] = 1,
    json_: Annotated[Path | None, option("FILE", "Also write what was found to this file.", "--json")] = None,
    set_: Annotated[list[str] | None, option("SECTION.KEY=VALUE", "Change a setting; repeatable.", "--set")] = None,
) -> None:
    """Train twice for a few steps, once whole, once killed at random steps and resumed, and compare to the bit.

    CONFIG is a recipe, or the config.toml of a run. Both trainings are processes of their own in a temporary folder and
    are ended by SIGKILL. Ends with 1 where weights, optimizer, order of batches, log or final model differ, and where
    the training was over before it was killed.
    """
    if json_ is not None:
        check_result_file("--json", json_, report=("identical", "whole", "resumed"))
    import tempfile

    from seq2seq import verifying
    from seq2seq.recipe import load_config
    from seq2seq.run_folder.files import json_bytes
    from seq2seq.text.errors import write_result

    settings = load_config(config, overrides=set_ or [])
    with tempfile.TemporaryDirectory(prefix="seq2seq-verify-") as folder:
        proof = verifying.verify_resume(settings, Path(folder), steps=steps, kills=kills, seed=seed, tell=tell)
    print(verifying.describe(proof))
    if json_ is not None:
        write_result(json_, json_bytes(proof.as_json()).decode())
    if not proof.identical:
        raise typer.Exit(1)
