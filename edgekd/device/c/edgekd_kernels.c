#include "edgekd_kernels.h"

#include <string.h>

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#define EDGEKD_HELIUM 1
#elif defined(__ARM_FEATURE_DSP) && defined(__GNUC__)
#define EDGEKD_DSP 1
#elif EDGEKD_SMALL_CORE && defined(__GNUC__)
#define EDGEKD_THUMB 1
#endif

#define PIXELS 4 /* whose products are taken at once where there are special instructions */

/* In plain C: on cores without such instructions, and for what those have no code for. */

/* The values under the kernel at two pixels, row by row, each filled to words; of both pixels in one word, the second's
 * above the first's. */
static APART void pair(const int8_t *const *rows, int kernel_rows, int length, int at, int apart, uint32_t *pairs) {
    for (const int8_t *const *end_of_rows = rows + kernel_rows; rows != end_of_rows; rows++) {
        const int8_t *value = *rows + at, *other = value + apart;
        for (int i = 0; i < length; i++) *pairs++ = (uint32_t)value[i] + ((uint32_t)other[i] << 16);
    }
}

/* Adds to two sums the products of `weights` with the values of two pixels. A product of 32 bits is one with each of a
 * pair; those of two weights have sums of 16 bits each, for no weight is -128, and HALF keeps the first from borrowing of
 * the second. What all of them sum up to, less the sum of the second ones, is that of the first. */
#define HALF 0x8000u
static APART void add_products(const int8_t *weights, const uint32_t *pairs, int length, uint32_t sums[2]) {
    const int8_t *end = weights + length;
    uint32_t all = 0u - HALF * ((uint32_t)length / 2), second = 0;
    do {
        uint32_t both = HALF + (uint32_t)weights[0] * pairs[0] + (uint32_t)weights[1] * pairs[1];
        uint32_t more = HALF + (uint32_t)weights[2] * pairs[2] + (uint32_t)weights[3] * pairs[3];
        all += both;
        second += (uint32_t)((int32_t)both >> 16);
        all += more;
        second += (uint32_t)((int32_t)more >> 16);
        weights += 4, pairs += 4;
    } while (weights != end);
    sums[0] += all - (second << 16), sums[1] += second;
}

static void convolve(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns, int outputs,
                     const edgekd_rounding *by, uint32_t *pairs, int8_t *out) {
    int length = EDGEKD_WORDS(layer->kernel_columns * channels), all = layer->kernel_rows * length;
    int step = layer->stride_columns * channels;
    for (int x = 0; x < columns; x += 2, out += 2 * outputs) {
        int both = x + 1 < columns;
        const int8_t *weights = layer->weights;
        const int32_t *parameters = layer->parameters;
        int8_t *other = both ? out + outputs : out;
        pair(rows, layer->kernel_rows, length, x * step, both * step, pairs);
        for (int o = 0; o < outputs; o++, weights += all, parameters += 2) {
            uint32_t sums[2] = {(uint32_t)parameters[0], (uint32_t)parameters[0]};
            add_products(weights, pairs, all, sums);
            other[o] = edgekd_rounded((int32_t)sums[1], parameters[1], by);
            out[o] = edgekd_rounded((int32_t)sums[0], parameters[1], by);
        }
    }
}

/* Adds to the sums of four channels their products under a kernel. Of channels that are not there weights are 0. */
static APART void add_four_channels(const int8_t *weights, const int8_t *const *rows, int at, int channels,
                                    int kernel_rows, int kernel_columns, int32_t sums[4]) {
    int32_t a = sums[0], b = sums[1], c = sums[2], d = sums[3];
    for (const int8_t *const *end_of_rows = rows + kernel_rows; rows != end_of_rows; rows++) {
        const int8_t *value = *rows + at, *end = value + kernel_columns * channels;
        do {
            a += weights[0] * value[0];
            b += weights[1] * value[1];
            c += weights[2] * value[2];
            d += weights[3] * value[3];
            weights += 4;
            value += channels;
        } while (value != end);
    }
    sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d;
}

static void convolve_depthwise(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                               const edgekd_rounding *by, int8_t *out) {
    int step = layer->stride_columns * channels, taps = 4 * layer->kernel_rows * layer->kernel_columns;
    for (int x = 0, at = 0; x < columns; x++, at += step) {
        const int8_t *weights = layer->weights;
        const int32_t *parameters = layer->parameters;
        for (int c = 0; c < channels; c += 4, weights += taps) {
            int left = channels - c < 4 ? channels - c : 4;
            int32_t sums[4] = {0, 0, 0, 0};
            add_four_channels(weights, rows, at + c, channels, layer->kernel_rows, layer->kernel_columns, sums);
            for (const int32_t *sum = sums; left > 0; left--, sum++, parameters += 2)
                *out++ = edgekd_rounded(parameters[0] + *sum, parameters[1], by);
        }
    }
}

#if !EDGEKD_HELIUM
static void max_pool(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                     int8_t *out) {
    for (int x = 0, at = 0; x < columns; x++, at += layer->stride_columns * channels) {
        for (int c = 0; c < channels; c++, out++) {
            int8_t largest = INT8_MIN;
            for (int ky = 0; ky < layer->kernel_rows; ky++) {
                const int8_t *value = rows[ky] + at + c;
                for (int kx = 0; kx < layer->kernel_columns; kx++, value += channels)
                    if (*value > largest) largest = *value;
            }
            *out = largest;
        }
    }
}

/* Adds to the sum of each channel its values in so many columns, each 128 more than it is; four channels at once. */
static void add_values(const int8_t *value, int channels, int columns, uint32_t *sums) {
    const int8_t *end = value + channels, *last = edgekd_has_words(value, channels) ? value + (channels & ~3) : value;
    int length = columns * channels;
    for (; value != last; value += 4, sums += 4) {
        const int8_t *column = value, *end_of_columns = value + length;
        uint32_t first_and_third = 0, others = 0;
        do {
            uint32_t word = edgekd_word_at(column) ^ 0x80808080;
            first_and_third += word & 0x00FF00FF;
            others += word >> 8 & 0x00FF00FF;
            column += channels;
        } while (column != end_of_columns);
        sums[0] += first_and_third & 0xFFFF;
        sums[1] += others & 0xFFFF;
        sums[2] += first_and_third >> 16;
        sums[3] += others >> 16;
    }
    for (; value != end; value++, sums++)
        for (int at = 0; at < length; at += channels) *sums += (uint32_t)(value[at] + 128);
}

/* The same of what a table says of the values of one column, for each of its bins. */
static void add_told(const edgekd_layer *layer, const int8_t *value, int channels, uint32_t *sums) {
    const uint16_t *table = layer->table + 128 * layer->bins;
    int bins = layer->bins, apart = layer->shared ? 0 : 256 * bins;
    for (const int8_t *end = value + channels; value != end; value++, table += apart) {
        const uint16_t *told = table + *value * bins;
        int left = bins;
        for (; left >= 4; left -= 4, told += 4, sums += 4) {
            uint32_t first = edgekd_two_at(told), second = edgekd_two_at(told + 2);
            sums[0] += first & 0xFFFF, sums[1] += first >> 16;
            sums[2] += second & 0xFFFF, sums[3] += second >> 16;
        }
        for (; left > 0; left--) *sums++ += *told++;
    }
}
#endif

#if EDGEKD_DSP || EDGEKD_THUMB
#include <stddef.h>

/* Of loops that are written out; r0 has what they were given, and r7 they save and restore. */
#define ALL_REGISTERS "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "cc", "memory"

/* Whether sums are rounded as edgekd_rounded does where the exponent is 1 and all 256 values are allowed. */
static int rounds_quickly(const edgekd_layer *layer) {
    return layer->exponent == 1 && layer->low == INT8_MIN && layer->high == INT8_MAX;
}

static int32_t offset_of(int32_t zero_point) { return 2 * zero_point + 1; }

static int has_quick_depthwise(const edgekd_layer *layer, int channels) {
    return rounds_quickly(layer) && channels % 4 == 0 && layer->kernel_rows == 3 && layer->kernel_columns == 3;
}

#endif

#if EDGEKD_HELIUM
#include "edgekd_kernels_helium.h"
#elif EDGEKD_DSP
#include "edgekd_kernels_dsp.h"
#elif EDGEKD_THUMB
#include "edgekd_kernels_thumb.h"
#endif

void edgekd_convolve(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns, int outputs,
                     int32_t zero_point, void *scratch, int8_t *out) {
    edgekd_rounding by;
#if EDGEKD_HELIUM || EDGEKD_DSP || EDGEKD_THUMB
    if (has_quick_convolution(layer, columns, outputs)) {
        convolve_quickly(layer, rows, channels, columns, outputs, zero_point, scratch, out);
        return;
    }
#endif
    by = edgekd_rounding_of(layer->exponent, zero_point, layer->low, layer->high);
    convolve(layer, rows, channels, columns, outputs, &by, scratch, out);
}

void edgekd_convolve_depthwise(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                               int32_t zero_point, int8_t *out) {
    edgekd_rounding by;
#if EDGEKD_HELIUM || EDGEKD_DSP || EDGEKD_THUMB
    if (has_quick_depthwise(layer, channels)) {
        depthwise_quickly(layer, rows, columns, channels, zero_point, out);
        return;
    }
#endif
    by = edgekd_rounding_of(layer->exponent, zero_point, layer->low, layer->high);
    convolve_depthwise(layer, rows, columns, channels, &by, out);
}

void edgekd_max_pool(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels, int8_t *out) {
    max_pool(layer, rows, columns, channels, out);
}

void edgekd_add_values(const int8_t *value, int channels, int columns, uint32_t *sums) {
    add_values(value, channels, columns, sums);
}

void edgekd_add_told(const edgekd_layer *layer, const int8_t *value, int channels, uint32_t *sums) {
    add_told(layer, value, channels, sums);
}
