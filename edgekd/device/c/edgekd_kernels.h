/* Sums of products of int8 values, in the form that each core does fastest: with Helium where there is MVE, by two
 * products at once where there are DSP instructions, in plain C elsewhere. The results are the same, bit for bit. */
#ifndef EDGEKD_KERNELS_H
#define EDGEKD_KERNELS_H

#include <string.h>

#include "edgekd_core.h"
#include "edgekd_network.h"

#define EDGEKD_WORDS(count) (((count) + 3) & ~3)

/* Whether four values can be read as a word there, and after so many others. */
static inline int edgekd_has_words(const int8_t *values, int apart) {
    return !EDGEKD_SMALL_CORE || (((uintptr_t)values | (uintptr_t)apart) & 3) == 0;
}

/* Four values, the first in the lowest byte. */
static inline uint32_t edgekd_word_at(const int8_t *values) {
    uint32_t word;
#if EDGEKD_SMALL_CORE
    memcpy(&word, __builtin_assume_aligned(values, 4), sizeof word);
#else
    memcpy(&word, values, sizeof word);
#endif
    return word;
}

/* Two of 16 bits. */
static inline uint32_t edgekd_two_at(const uint16_t *values) {
#if EDGEKD_SMALL_CORE
    return values[0] | (uint32_t)values[1] << 16;
#else
    uint32_t word;
    memcpy(&word, values, sizeof word);
    return word;
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

/* The upper word of a product of 64 bits. */
static inline int32_t edgekd_upper_product(int32_t a, int32_t b) {
#if EDGEKD_SMALL_CORE
    int32_t a_low = a & 0xFFFF, a_high = a >> 16, b_low = b & 0xFFFF, b_high = b >> 16;
    int32_t one = a_high * b_low + (int32_t)((uint32_t)a_low * (uint32_t)b_low >> 16);
    int32_t other = a_low * b_high + (one & 0xFFFF);
    return a_high * b_high + (one >> 16) + (other >> 16);
#else
    return (int32_t)(((int64_t)a * b) >> 32);
#endif
}

/* A sum times mantissa * 2^-(32 + exponent), rounded once, halves upwards, plus the zero point: for what the shift by 32
 * leaves out cannot reach a half. */
static inline int32_t edgekd_scaled(int32_t sum, int32_t mantissa, const edgekd_rounding *by) {
    int32_t shifted = (int32_t)((uint32_t)sum << by->left);
    return (edgekd_upper_product(shifted, mantissa) + by->offset) >> by->right;
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

/* The largest of the values under a window, of each channel. */
void edgekd_max_pool(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels, int8_t *out);

#define EDGEKD_MOST_COLUMNS 256 /* whose values, as they are added, have a sum of 16 bits */

/* Adds to the sum of each channel its values in so many columns, each 128 more than it is. */
void edgekd_add_values(const int8_t *value, int channels, int columns, uint32_t *sums);

/* The same of what the table of `layer` says of the values of one column, for each of its bins. */
void edgekd_add_told(const edgekd_layer *layer, const int8_t *value, int channels, uint32_t *sums);

#endif
