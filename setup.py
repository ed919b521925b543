"""The compiled part of the package, built where there is a C compiler; the package works without it, only slower."""

import platform
import sys

from setuptools import Extension, setup

FOLDER = "seq2seq/model/native"
windows = sys.platform == "win32"
flags = [] if windows else ["-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
# The same source for each generation of processors; which of them is used is decided where the package runs
# (`processor_level` in kernels.c asks for these instructions).
generations: dict[str, list[str]] = {"": []}
if platform.machine().lower() in ("x86_64", "amd64") and not windows:
    generations["_avx2"] = ["-mavx2", "-mfma", "-mbmi", "-mbmi2"]
    generations["_avx512"] = [*generations["_avx2"], *(f"-mavx512{part}" for part in ("f", "bw", "cd", "dq", "vl"))]
kernels = [
    Extension(
        f"seq2seq.model.native._kernels{name}",
        # A file for each: builds that run side by side would write to one object file otherwise.
        sources=[f"{FOLDER}/kernels{name}.c"],
        depends=["setup.py", *(f"{FOLDER}/{file}" for file in ("kernels.c", "kernels.inc", "steps.inc"))],
        extra_compile_args=[*flags, *instructions],
        libraries=[] if windows else ["m"],
        optional=True,
    )
    for name, instructions in generations.items()
]
setup(ext_modules=kernels)
