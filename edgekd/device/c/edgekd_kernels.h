/* Sums of products of int8 values, in the form that each core does fastest: with Helium where there is MVE, by two
 * products at once where there are DSP instructions, in plain C elsewhere. The results are the same, bit for bit. */
#ifndef EDGEKD_KERNELS_H
#define EDGEKD_KERNELS_H

#include <string.h>

#include "edgekd_network.h"

#define EDGEKD_WORDS(count) (((count) + 3) & ~3)

#if defined(__GNUC__)
#define APART __attribute__((noinline)) /* inlined, loops would run out of registers */
#else
#define APART
#endif

/* Four values, the first in the lowest byte. */
static inline uint32_t edgekd_word_at(const int8_t *values) {
    uint32_t word;
    memcpy(&word, values, sizeof word);
    return word;
}

/* Two of 16 bits. */
static inline uint32_t edgekd_two_at(const uint16_t *values) {
#ifdef __ARM_FEATURE_UNALIGNED
    uint32_t word;
    memcpy(&word, values, sizeof word);
    return word;
#else
    return values[0] | (uint32_t)values[1] << 16;
#endif
}

/* What brings the sums of a layer to another scale. */
typedef struct {
    int left, right;
    int32_t offset; /* half a step, and the zero point */
    int32_t low, high;
} edgekd_rounding;

static inline edgekd_rounding edgekd_rounding_of(int exponent, int32_t zero_point, int32_t low, int32_t high) {
    edgekd_rounding by;
    by.left = exponent < 1 ? 1 - exponent : 0;
    by.right = exponent < 1 ? 1 : exponent;
    by.offset = (int32_t)((uint32_t)zero_point << by.right) + (1 << (by.right - 1));
    by.low = low;
    by.high = high;
    return by;
}

/* A sum times mantissa * 2^-(32 + exponent), rounded once, halves upwards, plus the zero point: for what the shift by 32
 * leaves out cannot reach a half. */
static inline int32_t edgekd_scaled(int32_t sum, int32_t mantissa, const edgekd_rounding *by) {
    int32_t shifted = (int32_t)((uint32_t)sum << by->left);
    return ((int32_t)(((int64_t)shifted * mantissa) >> 32) + by->offset) >> by->right;
}

static inline int8_t edgekd_rounded(int32_t sum, int32_t mantissa, const edgekd_rounding *by) {
    int32_t value = edgekd_scaled(sum, mantissa, by);
    return (int8_t)(value < by->low ? by->low : value > by->high ? by->high : value);
}

/* One row of a convolution. `rows` (kernel rows), each at the first column that is used, of `channels` values a column;
 * `out` (columns, outputs); `scratch` holds 8 bytes for each value under the kernel, whose rows are filled to words;
 * of up to 12 values 28 bytes for each output, at most 16 of them, if that is more. */
void edgekd_convolve(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns, int outputs,
                     int32_t zero_point, void *scratch, int8_t *out);

/* The same, each channel for itself. */
void edgekd_convolve_depthwise(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                               int32_t zero_point, int8_t *out);

#endif
