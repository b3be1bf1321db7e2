#include "edgekd_kernels.h"

#include <string.h>

#if EDGEKD_PLAIN /* for comparison */
#elif defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#define HELIUM 1
#elif defined(__ARM_FEATURE_DSP) && defined(__GNUC__)
#define DSP 1
#endif

#define PIXELS 4 /* whose products are taken at once where there are special instructions */

static inline uint32_t word_at(const int8_t *values) {
    uint32_t word;
    memcpy(&word, values, sizeof word);
    return word;
}

/* In plain C: on cores without such instructions, and for what those have no code for. */

#if defined(__GNUC__)
#define APART __attribute__((noinline)) /* inlined, inner loops would run out of registers */
#else
#define APART
#endif

/* The values under the kernel at one pixel, row by row, each filled to words. */
static void gather(const int8_t *const *rows, int kernel_rows, int length, int at, int8_t *patch) {
    for (int ky = 0; ky < kernel_rows; ky++) {
        const int8_t *from = rows[ky] + at;
        for (int i = 0; i < length; i += 4, patch += 4) {
            uint32_t word = word_at(from + i);
            memcpy(patch, &word, sizeof word);
        }
    }
}

/* Adds to two sums the products of `weights` with the values of two pixels, which lie one behind the other. */
static APART void add_products(const int8_t *weights, const int8_t *values, int length, int32_t sums[2]) {
    const int8_t *end = weights + length, *others = values + length;
    int32_t first = sums[0], second = sums[1];
    do {
        int32_t weight = *weights++;
        first += weight * *values++;
        second += weight * *others++;
    } while (weights != end);
    sums[0] = first, sums[1] = second;
}

static void convolve(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns, int outputs,
                     const edgekd_rounding *by, int8_t *patches, int8_t *out) {
    int length = EDGEKD_WORDS(layer->kernel_columns * channels), all = layer->kernel_rows * length;
    int step = layer->stride_columns * channels;
    for (int x = 0; x < columns; x += 2, out += 2 * outputs) {
        int both = x + 1 < columns;
        const int8_t *weights = layer->weights;
        int8_t *other = both ? out + outputs : out;
        gather(rows, layer->kernel_rows, length, x * step, patches);
        gather(rows, layer->kernel_rows, length, (x + both) * step, patches + all);
        for (int o = 0; o < outputs; o++, weights += all) {
            int32_t mantissa = layer->parameters[2 * o + 1], sums[2];
            sums[0] = sums[1] = layer->parameters[2 * o];
            add_products(weights, patches, all, sums);
            other[o] = edgekd_rounded(sums[1], mantissa, by);
            out[o] = edgekd_rounded(sums[0], mantissa, by);
        }
    }
}

/* The sum of one channel under a kernel, whose weights lie four channels apart. */
static APART int32_t channel_sum(const int8_t *weight, const int8_t *const *rows, int at, int channels, int kernel_rows,
                                 int kernel_columns, int32_t sum) {
    const int8_t *const *end = rows + kernel_rows;
    for (; rows != end; rows++) {
        const int8_t *value = *rows + at;
        int left = kernel_columns;
        do {
            sum += *weight * *value;
            weight += 4;
            value += channels;
        } while (--left);
    }
    return sum;
}

static void convolve_depthwise(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                               const edgekd_rounding *by, int8_t *out) {
    int step = layer->stride_columns * channels, taps = 4 * layer->kernel_rows * layer->kernel_columns;
    for (int x = 0, at = 0; x < columns; x++, at += step) {
        for (int c = 0; c < channels; c++) {
            const int32_t *parameters = layer->parameters + 2 * c;
            int32_t sum = channel_sum(layer->weights + (c >> 2) * taps + (c & 3), rows, at + c, channels,
                                      layer->kernel_rows, layer->kernel_columns, parameters[0]);
            *out++ = edgekd_rounded(sum, parameters[1], by);
        }
    }
}

#if HELIUM
#include "edgekd_kernels_helium.h"
#elif DSP
#include "edgekd_kernels_dsp.h"
#endif

void edgekd_convolve(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns, int outputs,
                     int32_t zero_point, void *scratch, int8_t *out) {
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, zero_point, layer->low, layer->high);
#if HELIUM
    if (has_quick_convolution(layer, outputs)) {
        convolve_quickly(layer, rows, channels, columns, outputs, zero_point, scratch, out);
        return;
    }
#elif DSP
    if (has_quick_convolution(&by, columns)) {
        convolve_quickly(layer, rows, channels, columns, outputs, &by, scratch, out);
        return;
    }
#endif
    convolve(layer, rows, channels, columns, outputs, &by, scratch, out);
}

void edgekd_convolve_depthwise(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                               int32_t zero_point, int8_t *out) {
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, zero_point, layer->low, layer->high);
#if HELIUM
    if (has_quick_depthwise(layer, channels)) {
        depthwise_quickly(layer, rows, columns, channels, &by, out);
        return;
    }
#elif DSP
    if (has_quick_depthwise(layer, channels, &by)) {
        depthwise_quickly(layer, rows, columns, channels, &by, out);
        return;
    }
#endif
    convolve_depthwise(layer, rows, columns, channels, &by, out);
}
