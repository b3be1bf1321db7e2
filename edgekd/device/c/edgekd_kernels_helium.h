/* Part of edgekd_kernels.c: sums of products of int8 values with Helium, sixteen at once. */
#ifndef EDGEKD_KERNELS_HELIUM_H
#define EDGEKD_KERNELS_HELIUM_H

#include <arm_mve.h>

/* Four sums, brought to the scale of the result and kept within its range. */
static inline int32x4_t rounded_four(int32x4_t sums, int32x4_t mantissas, const edgekd_rounding *by) {
    int32x4_t high = vmulhq_s32(by->left ? vshlq_r_s32(sums, by->left) : sums, mantissas);
    int32x4_t values = vshlq_r_s32(vaddq_n_s32(high, by->offset), -by->right);
    return vminq_s32(vmaxq_s32(values, vdupq_n_s32(by->low)), vdupq_n_s32(by->high));
}

/* One output at four pixels, whose values lie `apart` from each other: 64 products in ten instructions, and the loop
 * itself sees to a rest that is no 16. */
static inline int32x4_t four_sums(const int8_t *weight, const int8_t *a, int apart, int length, int32_t bias) {
    const int8_t *b = a + apart, *c = b + apart, *d = c + apart;
    int32_t sum_a = bias, sum_b = bias, sum_c = bias, sum_d = bias;
    int32x4_t sums;
    __asm__ volatile(
        "dlstp.8 lr, %[length]\n"
        "1:\n"
        "vldrb.8 q0, [%[weight]], #16\n"
        "vldrb.8 q1, [%[a]], #16\n"
        "vmladava.s8 %[sum_a], q0, q1\n"
        "vldrb.8 q2, [%[b]], #16\n"
        "vmladava.s8 %[sum_b], q0, q2\n"
        "vldrb.8 q1, [%[c]], #16\n"
        "vmladava.s8 %[sum_c], q0, q1\n"
        "vldrb.8 q2, [%[d]], #16\n"
        "vmladava.s8 %[sum_d], q0, q2\n"
        "letp lr, 1b\n"
        : [weight] "+r"(weight), [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d), [sum_a] "+Te"(sum_a),
          [sum_b] "+Te"(sum_b), [sum_c] "+Te"(sum_c), [sum_d] "+Te"(sum_d)
        : [length] "r"(length)
        : "lr", "q0", "q1", "q2", "memory");
    sums = vsetq_lane_s32(sum_a, vuninitializedq_s32(), 0);
    sums = vsetq_lane_s32(sum_b, sums, 1);
    sums = vsetq_lane_s32(sum_c, sums, 2);
    return vsetq_lane_s32(sum_d, sums, 3);
}

static void convolve_quickly(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns,
                             int outputs, const edgekd_rounding *by, int8_t *patches, int8_t *out) {
    int length = EDGEKD_WORDS(layer->kernel_columns * channels), all = layer->kernel_rows * length;
    int step = layer->stride_columns * channels;
    const uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)outputs);
    for (int x = 0; x < columns; x += PIXELS) {
        int from = columns - x < PIXELS ? columns - PIXELS : x, apart = step;
        const int8_t *values = rows[0] + from * step, *weights = layer->weights;
        if (layer->kernel_rows > 1) {
            values = patches, apart = all;
            for (int p = 0; p < PIXELS; p++)
                gather(rows, layer->kernel_rows, length, (from + p) * step, patches + p * all);
        }
        for (int o = 0; o < outputs; o++, weights += all) {
            int32x4_t sums = four_sums(weights, values, apart, all, layer->parameters[2 * o]);
            sums = rounded_four(sums, vdupq_n_s32(layer->parameters[2 * o + 1]), by);
            vstrbq_scatter_offset_s32(out + from * outputs + o, places, sums);
        }
    }
}

static int has_quick_depthwise(const edgekd_layer *layer, int channels, const edgekd_rounding *by) {
    (void)by;
    return channels % 4 == 0 && layer->kernel_rows > 0;
}

static void depthwise_quickly(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                              const edgekd_rounding *by, int8_t *out) {
    int step = layer->stride_columns * channels, taps = 4 * layer->kernel_rows * layer->kernel_columns;
    const int8_t *weights = layer->weights;
    for (int c = 0; c < channels; c += 4, weights += taps) {
        const int32x4x2_t parameters = vld2q_s32(layer->parameters + 2 * c);
        for (int x = 0, at = c; x < columns; x++, at += step) {
            const int8_t *weight = weights;
            int32x4_t sums = parameters.val[0];
            for (int ky = 0; ky < layer->kernel_rows; ky++) {
                const int8_t *value = rows[ky] + at;
                for (int kx = layer->kernel_columns; kx > 0; kx--, weight += 4, value += channels)
                    sums = vaddq_s32(sums, vmulq_s32(vldrbq_s32(weight), vldrbq_s32(value)));
            }
            vstrbq_s32(out + x * channels + c, rounded_four(sums, parameters.val[1], by));
        }
    }
}

static int has_quick_convolution(const edgekd_rounding *by, int columns) {
    (void)by;
    return columns >= PIXELS;
}

#endif
