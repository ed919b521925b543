/* kernels.c, compiled with the instructions of AVX-512: see setup.py. */
#include "kernels.c"
