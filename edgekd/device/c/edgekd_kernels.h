/* Sums of products of int8 values, in the form that each core does fastest; the results are the same, bit for bit. */
#ifndef EDGEKD_KERNELS_H
#define EDGEKD_KERNELS_H

#include "edgekd_network.h"

#define EDGEKD_PATCHES 2 /* pixels whose products are taken at once */

#define EDGEKD_PADDED(count) (((count) + 3u) & ~3u)

/* A sum times mantissa * 2^-(32 + exponent), rounded once, halves upwards: for what the shift by 32 leaves out cannot
 * reach a half. */
static inline int32_t edgekd_scaled(int32_t sum, int32_t mantissa, int exponent) {
    int32_t high;
    if (exponent < 1) {
        sum = (int32_t)((uint32_t)sum << (1 - exponent));
        exponent = 1;
    }
    high = (int32_t)(((int64_t)sum * mantissa) >> 32);
    return (high + (1 << (exponent - 1))) >> exponent;
}

static inline int8_t edgekd_clamped(int32_t value, int32_t low, int32_t high) {
    return (int8_t)(value < low ? low : value > high ? high : value);
}

/* A convolution at up to EDGEKD_PATCHES pixels. `patches` (pixels, length): the values under the kernel; `out` (pixels,
 * outputs). `length` is a multiple of 4. */
void edgekd_convolve(const edgekd_layer *layer, const int8_t *patches, int length, int pixels, int outputs,
                     int32_t zero_point, int8_t *out);

/* A depthwise convolution of one row: `rows` (kernel rows), each at the first column that is used; `out` (columns,
 * channels). */
void edgekd_convolve_depthwise(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                               int32_t zero_point, int8_t *out);

/* Sum of the products of two rows whose length is a multiple of 4. */
int32_t edgekd_product(const int8_t *a, const int8_t *b, int length);

#endif
