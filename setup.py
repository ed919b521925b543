"""The compiled part of the package, built where there is a C compiler; the package works without it, only slower."""

import hashlib
import platform
import sys
from pathlib import Path

from setuptools import Extension, setup

FOLDER = "seq2seq/model/native"
SOURCES = ("kernels.c", "kernels.inc", "steps.inc")
PARTS = ("kernels_avx2.c", "kernels_avx512.c")  # in every source distribution, whatever processor makes it
if sys.platform == "win32":
    sys.exit("seq2seq runs on Linux and macOS: on Windows, install it inside WSL")
flags = ["-O3", "-fopenmp-simd", "-fno-fast-math", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
# The package does not use kernels that were built from other sources than lie beside it.
digest = hashlib.sha256(b"".join(Path(FOLDER, name).read_bytes() for name in SOURCES)).hexdigest()
# The same source for each generation of processors; which of them is used is decided where the package runs
# (`processor_level` in kernels.c asks for these instructions).
generations: dict[str, list[str]] = {"": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    generations["_avx2"] = ["-mavx2", "-mfma", "-mbmi", "-mbmi2"]
    generations["_avx512"] = [*generations["_avx2"], *(f"-mavx512{part}" for part in ("f", "bw", "cd", "dq", "vl"))]
kernels = [
    Extension(
        f"seq2seq.model.native._kernels{name}",
        # A file for each: builds that run side by side would write to one object file otherwise.
        sources=[f"{FOLDER}/kernels{name}.c"],
        depends=["setup.py", *(f"{FOLDER}/{file}" for file in (*SOURCES, *PARTS))],
        define_macros=[("KERNELS_SOURCE", f"0x{digest[:16]}ULL")],
        extra_compile_args=[*flags, *instructions],
        libraries=["m"],
        optional=True,
    )
    for name, instructions in generations.items()
]
setup(ext_modules=kernels)
