#include "edgekd_kernels.h"

int32_t edgekd_product(const int8_t *a, const int8_t *b, int length) {
    int32_t sum = 0;
    for (int i = 0; i < length; i++) sum += a[i] * b[i];
    return sum;
}

void edgekd_convolve(const edgekd_layer *layer, const int8_t *patches, int length, int pixels, int outputs,
                     int32_t zero_point, int8_t *out) {
    const int8_t *weights = layer->weights;
    for (int o = 0; o < outputs; o++, weights += length) {
        const int8_t *a = patches, *b = pixels > 1 ? patches + length : patches;
        int32_t first = layer->bias[o], second = first;
        for (int i = 0; i < length; i++) {
            first += weights[i] * a[i];
            second += weights[i] * b[i];
        }
        first = edgekd_scaled(first, layer->mantissas[o], layer->exponents[o]) + zero_point;
        out[o] = edgekd_clamped(first, layer->low, layer->high);
        if (pixels > 1) {
            second = edgekd_scaled(second, layer->mantissas[o], layer->exponents[o]) + zero_point;
            out[outputs + o] = edgekd_clamped(second, layer->low, layer->high);
        }
    }
}

void edgekd_convolve_depthwise(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                               int32_t zero_point, int8_t *out) {
    int step = layer->stride_columns * channels;
    for (int x = 0; x < columns; x++, out += channels) {
        for (int c = 0; c < channels; c++) {
            const int8_t *weight = layer->weights + c;
            int32_t sum = layer->bias[c];
            for (int ky = 0; ky < layer->kernel_rows; ky++) {
                const int8_t *value = rows[ky] + x * step + c;
                for (int kx = 0; kx < layer->kernel_columns; kx++, weight += channels, value += channels)
                    sum += *weight * *value;
            }
            sum = edgekd_scaled(sum, layer->mantissas[c], layer->exponents[c]) + zero_point;
            out[c] = edgekd_clamped(sum, layer->low, layer->high);
        }
    }
}
