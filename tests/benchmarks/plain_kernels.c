/* For comparison: the kernels of edgekd_kernels.c as one would write them first, in the place of that file. */
#include "edgekd_kernels.h"

static int8_t rounded(int32_t sum, int32_t mantissa, const edgekd_rounding *by) {
    int32_t shifted = (int32_t)((uint32_t)sum << by->left);
    int32_t value = ((int32_t)(((int64_t)shifted * mantissa) >> 32) + by->offset) >> by->right;
    return (int8_t)(value < by->low ? by->low : value > by->high ? by->high : value);
}

/* The values under the kernel at one pixel, row by row, each filled to words. */
static void gather(const int8_t *const *rows, int kernel_rows, int length, int at, int8_t *patch) {
    for (int ky = 0; ky < kernel_rows; ky++) {
        const int8_t *from = rows[ky] + at;
        for (int i = 0; i < length; i++) *patch++ = from[i];
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
            other[o] = rounded(sums[1], mantissa, by);
            out[o] = rounded(sums[0], mantissa, by);
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
            *out++ = rounded(sum, parameters[1], by);
        }
    }
}

void edgekd_convolve(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns, int outputs,
                     int32_t zero_point, void *scratch, int8_t *out) {
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, zero_point, layer->low, layer->high);
    convolve(layer, rows, channels, columns, outputs, &by, scratch, out);
}

void edgekd_convolve_depthwise(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                               int32_t zero_point, int8_t *out) {
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, zero_point, layer->low, layer->high);
    convolve_depthwise(layer, rows, columns, channels, &by, out);
}

void edgekd_add_values(const int8_t *value, int channels, int columns, uint32_t *sums) {
    for (int x = 0; x < columns; x++)
        for (int c = 0; c < channels; c++) sums[c] += (uint32_t)(*value++ + 128);
}

void edgekd_add_told(const edgekd_layer *layer, const int8_t *value, int channels, uint32_t *sums) {
    for (int c = 0; c < channels; c++)
        for (int k = 0; k < layer->bins; k++)
            *sums++ += layer->table[((layer->shared ? 0 : c * 256) + value[c] + 128) * layer->bins + k];
}

void edgekd_max_pool(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels, int8_t *out) {
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
