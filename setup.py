"""The compiled part of the package, built where there is a C compiler; the package works without it, only slower."""

import sys

from setuptools import Extension, setup

flags = [] if sys.platform == "win32" else ["-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"]
kernels = Extension(
    "seq2seq.model.native._kernels",
    sources=["seq2seq/model/native/kernels.c"],
    depends=["seq2seq/model/native/kernels.inc", "seq2seq/model/native/steps.inc"],
    extra_compile_args=[*flags, *([] if sys.platform == "win32" else ["-fvisibility=hidden"])],
    libraries=[] if sys.platform == "win32" else ["m"],
    optional=True,
)
setup(ext_modules=[kernels])
