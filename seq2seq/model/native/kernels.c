/* Kernels of training and decoding steps on a CPU, for float32 and bfloat16 activations. All arithmetic is float32.
 *
 * torch runs these as many small operations, each with its own pass over memory. Everything here runs on the thread
 * that calls it: training keeps several cores busy with one part of the batch on each. There is no allocation that
 * outlives a call and no state. The same functions in torch are beside their callers in Python (packed.py, loss.py,
 * dropout.py); tests compare them.
 *
 * Shapes: N tokens of all sentences of a batch, one after the other; D d_model, H heads, K head size, V vocabulary,
 * B sentences. Arrays are contiguous unless a row stride is given (in elements).
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))
#define PRAGMA(text) _Pragma(#text)
#define SIMD PRAGMA(omp simd)
#define SIMD_SUM(...) PRAGMA(omp simd reduction(+ : __VA_ARGS__))

/* Of what this was built from: setup.py has it from the files. */
EXPORT uint64_t kernels_source(void) { return KERNELS_SOURCE; }

/* This file is compiled once for each generation of x86-64 processors (see setup.py); __init__.py takes the newest that
 * this processor has the instructions of: 2 AVX-512, 1 AVX2, 0 neither, or another architecture. */
EXPORT int processor_level(void) {
#if defined(__GNUC__) && defined(__x86_64__)
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
               __builtin_cpu_supports("bmi2");
    int avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512vl");
    return !avx2 ? 0 : avx512 ? 2 : 1;
#else
    return 0;
#endif
}

INLINE float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

INLINE float load_f32(float value) { return value; }
INLINE float store_f32(float value) { return value; }

INLINE float load_bf16(uint16_t value) {
    return float_of((uint32_t)value << 16);
}

/* Rounds to nearest even; a NaN stays one. */
INLINE uint16_t store_bf16(float value) {
    uint32_t bits = bits_of(value);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (uint16_t)(value == value ? rounded : 0x7fc0u);
}

/* e^x for x <= 88, relative error below 2e-7; smaller than -87 counts as -87. 2^n e^r, n the integer next to x / ln 2; the
 * polynomial was fitted to e^r - 1 on [-ln 2 / 2, ln 2 / 2], for the smallest relative error of e^r (9e-8). A NaN stays
 * one, whatever its bits: p is one, and is multiplied by 2^n. */
INLINE float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    float shifted = x * 1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23: the fraction is rounded away */
    float n = shifted - 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f; /* ln 2 in two parts, the first of 10 bits */
    float p = 8.290314633e-3f;
    p = p * r + 4.189792934e-2f;
    p = p * r + 1.666763620e-1f;
    p = p * r + 4.999914953e-1f;
    p = p * r + 9.999997072e-1f;
    p = p * r + 1.0f;
    return p * float_of((bits_of(shifted) << 23) + 0x3f800000u); /* 2^n: the low bits of `shifted` are n */
}

/* 32 random bits, a pure function of seed and index: two rounds of multiply and shift (constants of "lowbias32",
 * C. Wellons, public domain), one half of the seed before each. */
INLINE uint32_t random_bits(uint32_t index, uint64_t seed) {
    uint32_t x = index ^ (uint32_t)seed;
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x += (uint32_t)(seed >> 32);
    x *= 0x846ca68bu;
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    return x;
}

/* What dropout multiplies an element by: 0 with probability threshold / 2^32, else scale. */
INLINE float kept(uint32_t index, uint64_t seed, uint32_t threshold, float scale) {
    return random_bits(index, seed) >= threshold ? scale : 0.0f;
}

/* Attention works on float32 in scratch memory: 16 numbers at a time, four rows at a time, so that sums stay in registers
 * and do not wait for one another. A block is as large as the processor's registers, of which 16 numbers need WIDE: the
 * compiler keeps larger ones in memory. */
#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
enum { WIDE = 16 / LANES };
typedef float block __attribute__((vector_size(4 * LANES)));

#define ROUND_UP(n, unit) (((n) + (unit) - 1) / (unit) * (unit))

INLINE block load_block(const float *from) {
    block value;
    memcpy(&value, from, sizeof value);
    return value;
}

INLINE void store_block(float *to, block value) { memcpy(to, &value, sizeof value); }

/* The sum of a block, by halves. */
INLINE float sum_of_block(block value) {
    float x[LANES];
    memcpy(x, &value, sizeof value);
    for (int half = LANES / 2; half > 0; half /= 2) {
        SIMD for (int t = 0; t < half; t++) x[t] += x[t + half];
    }
    return x[0];
}

static float *aligned_floats(int64_t count) {
    void *memory = NULL;
    return posix_memalign(&memory, 64, sizeof(float) * (size_t)count) ? NULL : memory;
}

static void free_aligned(void *memory) { free(memory); }

static int64_t longest_of(const int64_t *starts, int64_t sentences) {
    int64_t longest = 1;
    for (int64_t b = 0; b < sentences; b++) {
        int64_t length = starts[b + 1] - starts[b];
        longest = length > longest ? length : longest;
    }
    return longest;
}

/* columns [size, keys] = rows [s, width] transposed, zeros past s. */
INLINE void transpose(float *columns, const float *rows, int64_t s, int64_t size, int64_t width, int64_t keys) {
    for (int64_t j = 0; j < s; j++)
        for (int64_t a = 0; a < size; a++) columns[a * keys + j] = rows[j * width + a];
    for (int64_t a = 0; a < size; a++)
        for (int64_t j = s; j < keys; j++) columns[a * keys + j] = 0.0f;
}

/* out[4, stride] = rows [4, width] times columns [size, keys], of which the first `count`, rounded up to 16. */
INLINE void products(float *out, int64_t stride, const float *rows, int64_t width, const float *columns, int64_t keys,
                     int64_t count, int64_t size) {
    for (int64_t first = 0; first < count; first += 16) {
        block sums[4][WIDE] = {{{0}}};
        for (int64_t a = 0; a < size; a++) {
            for (int c = 0; c < WIDE; c++) {
                block column = load_block(columns + a * keys + first + c * LANES);
                for (int n = 0; n < 4; n++) sums[n][c] += rows[n * width + a] * column;
            }
        }
        for (int n = 0; n < 4; n++)
            for (int c = 0; c < WIDE; c++) store_block(out + n * stride + first + c * LANES, sums[n][c]);
    }
}

/* out[n] = sum over j in [from, to) of weights[n * between_rows + j * between] * rows[j], n = 0 ... 3; [4, width]. */
INLINE void weighted_rows(float *out, int64_t width, const float *weights, int64_t between_rows, int64_t between,
                          const float *rows, int64_t row_stride, int64_t from, int64_t to) {
    for (int64_t a = 0; a < width; a += 16) {
        block sums[4][WIDE] = {{{0}}};
        for (int64_t j = from; j < to; j++) {
            const float *weight = weights + j * between;
            for (int c = 0; c < WIDE; c++) {
                block value = load_block(rows + j * row_stride + a + c * LANES);
                for (int n = 0; n < 4; n++) sums[n][c] += weight[n * between_rows] * value;
            }
        }
        for (int n = 0; n < 4; n++)
            for (int c = 0; c < WIDE; c++) store_block(out + n * width + a + c * LANES, sums[n][c]);
    }
}

/* The softmax of the first `count` numbers of a row, in place; zeros from there to `end`, a multiple of 16, where
 * anything may stand before. statistics becomes the highest of them, and 1 / the sum of the exponentials of what they are
 * above it. */
INLINE void softmax_row(float *row, float *statistics, int64_t count, int64_t end) {
    float highest = -INFINITY;
    block totals = {0};
    for (int64_t first = 0; first < end; first += 16) {
        PRAGMA(omp simd reduction(max : highest)) for (int t = 0; t < 16; t++) {
            float score = first + t < count ? row[first + t] : -INFINITY; /* a select, not a branch: it stays in vectors */
            highest = score > highest ? score : highest;
        }
    }
    for (int64_t first = 0; first < end; first += 16) {
        SIMD for (int t = 0; t < 16; t++) {
            float power = exponential(row[first + t] - highest);
            row[first + t] = first + t < count ? power : 0.0f;
        }
        for (int c = 0; c < WIDE; c++) totals += load_block(row + first + c * LANES);
    }
    float inverse = 1.0f / sum_of_block(totals);
    for (int64_t first = 0; first < end; first += 16) {
        SIMD for (int t = 0; t < 16; t++) row[first + t] *= inverse;
    }
    statistics[0] = highest;
    statistics[1] = inverse;
}

INLINE void drop_row(float *row, int64_t count, uint32_t place, uint64_t seed, uint32_t threshold, float scale) {
    for (int64_t first = 0; first < count; first += 16) {
        SIMD for (int t = 0; t < 16; t++)
            row[first + t] *= kept(place + (uint32_t)(first + t), seed, threshold, scale);
    }
}

/* scores become the (dropped-out) weights, changes (gradients of those) become gradients of the scores. */
INLINE void softmax_row_backward(float *scores, float *changes, const float *statistics, float delta, int64_t count,
                                 int64_t end, uint32_t place, uint64_t seed, uint32_t threshold, float scale) {
    float highest = statistics[0], inverse = statistics[1];
    for (int64_t first = 0; first < end; first += 16) {
        float factor[16];
        for (int t = 0; t < 16; t++) factor[t] = 1.0f;
        if (threshold) {
            SIMD for (int t = 0; t < 16; t++)
                factor[t] = kept(place + (uint32_t)(first + t), seed, threshold, scale);
        }
        SIMD for (int t = 0; t < 16; t++) {
            float weight = exponential(scores[first + t] - highest) * inverse;
            weight = first + t < count ? weight : 0.0f;
            changes[first + t] = weight * (changes[first + t] * factor[t] - delta);
            scores[first + t] = weight * factor[t];
        }
    }
}

/* The highest of a row of v logits, and their sum. */
INLINE void highest_and_sum_f32(float *highest, float *sum, const float *row, int64_t v) {
    float most = -INFINITY, total = 0.0f;
    PRAGMA(omp simd reduction(max : most) reduction(+ : total)) for (int64_t j = 0; j < v; j++) {
        total += row[j];
        most = row[j] > most ? row[j] : most;
    }
    *highest = most;
    *sum = total;
}

/* The sum of e^(x - highest) over a row, which with `keep` becomes these numbers. */
INLINE float exponentials_f32(float *row, int64_t v, float highest, int keep) {
    float total = 0.0f;
    if (keep) {
        SIMD_SUM(total) for (int64_t j = 0; j < v; j++) {
            float power = exponential(row[j] - highest);
            row[j] = power;
            total += power;
        }
    } else {
        SIMD_SUM(total) for (int64_t j = 0; j < v; j++) total += exponential(row[j] - highest);
    }
    return total;
}

/* The same for bfloat16 numbers, two at a time: a word of two of them is one float with the other's bits shifted out,
 * and one with them masked out. */
typedef uint32_t word __attribute__((may_alias, aligned(2)));

INLINE void highest_and_sum_bf16(float *highest, float *sum, const uint16_t *row, int64_t v) {
    const word *words = (const word *)row;
    float most = -INFINITY, total = 0.0f, last = load_bf16(row[v - 1]);
    PRAGMA(omp simd reduction(max : most) reduction(+ : total)) for (int64_t j = 0; j < v / 2; j++) {
        float one = float_of(words[j] << 16), other = float_of(words[j] & 0xffff0000u);
        float higher = one > other ? one : other;
        total += one + other;
        most = higher > most ? higher : most;
    }
    *highest = v % 2 && last > most ? last : most;
    *sum = v % 2 ? total + last : total;
}

INLINE float exponentials_bf16(uint16_t *row, int64_t v, float highest, int keep) {
    word *words = (word *)row;
    float total = 0.0f, last = exponential(load_bf16(row[v - 1]) - highest);
    if (keep) {
        SIMD_SUM(total) for (int64_t j = 0; j < v / 2; j++) {
            float one = exponential(float_of(words[j] << 16) - highest);
            float other = exponential(float_of(words[j] & 0xffff0000u) - highest);
            total += one + other;
            /* Rounded to the nearest, halves up: they are positive. */
            words[j] = (bits_of(one) + 0x8000u) >> 16 | ((bits_of(other) + 0x8000u) & 0xffff0000u);
        }
        if (v % 2) row[v - 1] = store_bf16(last);
    } else {
        SIMD_SUM(total) for (int64_t j = 0; j < v / 2; j++) {
            float one = exponential(float_of(words[j] << 16) - highest);
            float other = exponential(float_of(words[j] & 0xffff0000u) - highest);
            total += one + other;
        }
    }
    return v % 2 ? total + last : total;
}

#define TYPE float
#define LOAD load_f32
#define STORE store_f32
#define NAMED(name) name##_f32
#include "kernels.inc"
#undef TYPE
#undef LOAD
#undef STORE
#undef NAMED

#define TYPE uint16_t
#define LOAD load_bf16
#define STORE store_bf16
#define NAMED(name) name##_bf16
#include "kernels.inc"

#include "steps.inc"
