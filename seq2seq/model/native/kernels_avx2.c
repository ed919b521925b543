/* kernels.c, compiled with the instructions of AVX2: see setup.py. */
#include "kernels.c"
