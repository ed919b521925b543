"""Who imports whom. Imports run one way, and what is light stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import seq2seq

PACKAGE = Path(seq2seq.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py"))

# Each part may import those above it, and none of those beside it.
ORDER: list[set[str]] = [
    {"errors", "signals", "remarks", "version", "other_names"},
    {"untrusted", "machine"},
    {"config", "atomic", "presets"},
    {"recipe", "runtime", "workers", "text", "model"},
    {"run_folder", "settings"},
    {"run", "kept_translations"},
    {"training", "decoding"},
    {"evaluation", "inspection", "export"},
    {"stages", "diversifying"},
    {"pipeline", "verifying"},
    {"progress"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}
HEAVY = ("torch", "datasets", "sentencepiece", "sacrebleu", "pydantic", "numpy", "pyarrow", "safetensors", "matplotlib")


def part_of(module: str) -> str:
    """The first name below seq2seq: "text" of "seq2seq.text.corpus"; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def imports_of(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Every module of this package that a module imports, wherever it does so."""
    for node in ast.walk(ast.parse((PACKAGE.parent / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: imports are absolute here"
            names = [node.module or ""]
            if node.module == "seq2seq":
                names = [f"seq2seq.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from ((name, node) for name in names if name.split(".")[0] == "seq2seq")


def edges() -> Iterator[tuple[str, str, str]]:
    """(part, part that it imports, where) for every import from one part in another."""
    for path in MODULES:
        own = path.with_suffix("").parts[1]
        if own == "__init__":
            continue
        for name, node in imports_of(path):
            if part_of(name) != own:
                yield own, part_of(name), f"{path}, line {node.lineno}"


def test_every_part_has_its_place() -> None:
    parts = {path.with_suffix("").parts[1] for path in MODULES} - {"__init__"}
    assert parts <= RANK.keys()
    assert {part for _, part, _ in edges()} <= RANK.keys()


def test_imports_run_one_way() -> None:
    found = list(edges())
    assert len(found) > 50  # or they are not found
    wrong = [f"{where}: {own} imports {other}" for own, other, where in found if RANK[other] >= RANK[own]]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("one", "other"), [("text", "model"), ("training", "decoding")])
def test_neighbours_do_not_know_of_each_other(one: str, other: str) -> None:
    pairs = {(own, imported) for own, imported, _ in edges()}
    assert not pairs & {(one, other), (other, one)}
    assert one in {own for own, _ in pairs}  # or the test reads nothing


def test_the_package_itself_imports_nothing_but_its_version() -> None:
    assert [name for name, _ in imports_of(Path("seq2seq/__init__.py"))] == ["seq2seq.version"]
    assert list(imports_of(Path("seq2seq/version.py"))) == []


def test_tokenizer_and_model_agree_on_special_ids() -> None:
    from seq2seq.model import transformer
    from seq2seq.text import tokenizer

    ids = {name: getattr(tokenizer, name) for name in ("PAD", "UNK", "BOS", "EOS")}
    assert ids == {name: getattr(transformer, name) for name in ids}
    assert ids == {"PAD": 0, "UNK": 1, "BOS": 2, "EOS": 3}


def heavy_modules_after(code: str) -> list[str]:
    """Which heavy modules a fresh interpreter has imported after some code."""
    report = f"print('HEAVY', *[name for name in {HEAVY!r} if name in sys.modules])"
    script = f"import atexit, sys\n@atexit.register\ndef report():\n    {report}\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    _, found, heavy = done.stdout.rpartition("HEAVY")
    assert found
    return heavy.split()


@pytest.mark.parametrize("module", ["seq2seq", "seq2seq.cli", "seq2seq.errors"])
def test_importing_imports_nothing_heavy(module: str) -> None:
    assert heavy_modules_after(f"import {module}") == []


def test_the_probe_for_heavy_modules_finds_them() -> None:
    assert heavy_modules_after("import seq2seq.config") == ["pydantic"]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert heavy_modules_after(command(arguments)) == []


@pytest.mark.parametrize("name", ["train", "translate", "score", "benchmark", "diversify", "export", "verify-resume"])
def test_help_of_a_command_imports_nothing_heavy(name: str) -> None:
    # In some versions typer itself brings in pydantic to read a command's options.
    assert set(heavy_modules_after(command([name, "--help"]))) <= {"pydantic"}


def command(arguments: list[str]) -> str:
    return f"sys.argv = {['seq2seq', *arguments]!r}; from seq2seq.cli import main; main()"


def test_configuration_errors_come_without_torch() -> None:
    code = (
        "import seq2seq.recipe\ntry: seq2seq.recipe.build_config({'model': 3})\nexcept seq2seq.config.ConfigError: pass"
    )
    assert heavy_modules_after(code) == ["pydantic"]
