#include "edgekd_kernels.h"

#include <string.h>

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#define HELIUM 1
#include <arm_mve.h>
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

/* The values under the kernel at one pixel, row by row, each filled to words. */
static void gather(const int8_t *const *rows, int kernel_rows, int length, int at, int8_t *patch) {
    for (int ky = 0; ky < kernel_rows; ky++)
        for (int i = 0; i < length; i += 4, patch += 4) {
            uint32_t word = word_at(rows[ky] + at + i);
            memcpy(patch, &word, sizeof word);
        }
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
            int32_t first = layer->bias[o], second = first;
            for (int i = 0; i < all; i++) {
                first += weights[i] * patches[i];
                second += weights[i] * patches[all + i];
            }
            other[o] = edgekd_rounded(second, layer->mantissas[o], by);
            out[o] = edgekd_rounded(first, layer->mantissas[o], by);
        }
    }
}

static void convolve_depthwise(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                               const edgekd_rounding *by, int8_t *out) {
    int step = layer->stride_columns * channels, taps = 4 * layer->kernel_rows * layer->kernel_columns;
    for (int x = 0, at = 0; x < columns; x++, at += step, out += channels) {
        for (int c = 0; c < channels; c++) {
            const int8_t *weight = layer->weights + (c >> 2) * taps + (c & 3);
            int32_t sum = layer->bias[c];
            for (int ky = 0; ky < layer->kernel_rows; ky++) {
                const int8_t *value = rows[ky] + at + c;
                for (int kx = layer->kernel_columns; kx > 0; kx--, weight += 4, value += channels)
                    sum += *weight * *value;
            }
            out[c] = edgekd_rounded(sum, layer->mantissas[c], by);
        }
    }
}

#if HELIUM

/* Four sums, brought to the scale of the result and kept within its range. */
static inline int32x4_t rounded_four(int32x4_t sums, int32x4_t mantissas, const edgekd_rounding *by) {
    int32x4_t high = vmulhq_s32(by->left ? vshlq_r_s32(sums, by->left) : sums, mantissas);
    int32x4_t values = vshlq_r_s32(vaddq_n_s32(high, by->offset), -by->right);
    return vminq_s32(vmaxq_s32(values, vdupq_n_s32(by->low)), vdupq_n_s32(by->high));
}

/* One output at four pixels, whose values lie `apart` from each other. */
static inline int32x4_t four_sums(const int8_t *weight, const int8_t *values, int apart, int length, int32_t bias) {
    const int8_t *a = values, *b = a + apart, *c = b + apart, *d = c + apart;
    int32_t sum_a = bias, sum_b = bias, sum_c = bias, sum_d = bias;
    int32x4_t sums;
    for (; length >= 16; length -= 16, weight += 16, a += 16, b += 16, c += 16, d += 16) {
        int8x16_t weights = vldrbq_s8(weight);
        sum_a = vmladavaq_s8(sum_a, weights, vldrbq_s8(a)), sum_b = vmladavaq_s8(sum_b, weights, vldrbq_s8(b));
        sum_c = vmladavaq_s8(sum_c, weights, vldrbq_s8(c)), sum_d = vmladavaq_s8(sum_d, weights, vldrbq_s8(d));
    }
    if (length) {
        int8x16_t weights = vldrbq_z_s8(weight, vctp8q((uint32_t)length)); /* zeros count for nothing */
        sum_a = vmladavaq_s8(sum_a, weights, vldrbq_s8(a)), sum_b = vmladavaq_s8(sum_b, weights, vldrbq_s8(b));
        sum_c = vmladavaq_s8(sum_c, weights, vldrbq_s8(c)), sum_d = vmladavaq_s8(sum_d, weights, vldrbq_s8(d));
    }
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
            int32x4_t sums = four_sums(weights, values, apart, all, layer->bias[o]);
            sums = rounded_four(sums, vdupq_n_s32(layer->mantissas[o]), by);
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
        int32x4_t bias = vldrwq_s32(layer->bias + c), mantissas = vldrwq_s32(layer->mantissas + c);
        for (int x = 0, at = c; x < columns; x++, at += step) {
            const int8_t *weight = weights;
            int32x4_t sums = bias;
            for (int ky = 0; ky < layer->kernel_rows; ky++) {
                const int8_t *value = rows[ky] + at;
                for (int kx = layer->kernel_columns; kx > 0; kx--, weight += 4, value += channels)
                    sums = vaddq_s32(sums, vmulq_s32(vldrbq_s32(weight), vldrbq_s32(value)));
            }
            vstrbq_s32(out + x * channels + c, rounded_four(sums, mantissas, by));
        }
    }
}

static int has_quick_convolution(const edgekd_rounding *by, int columns) {
    (void)by;
    return columns >= PIXELS;
}

#elif DSP

/* Of four bytes the first and third, and the second and fourth, as two pairs of 16 bits. */
static inline uint32_t even(uint32_t bytes) {
    uint32_t pair;
    __asm__("sxtb16 %0, %1" : "=r"(pair) : "r"(bytes));
    return pair;
}

static inline uint32_t odd(uint32_t bytes) {
    uint32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(bytes));
    return pair;
}

/* The next two words of widened values, and their products with two pairs of weights. */
#define TWO_WORDS(at, first, second, sum)                                                        \
    do {                                                                                         \
        uint32_t x, y;                                                                           \
        __asm__("ldrd %0, %1, [%2], #8" : "=&r"(x), "=&r"(y), "+r"(at));                         \
        __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(first), "r"(x));                        \
        __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(second), "r"(y));                       \
    } while (0)

#define FOUR_WEIGHTS(weights, values, a, b, c, d)                                                \
    do {                                                                                         \
        uint32_t word = word_at(weights), first = even(word), second = odd(word);                \
        weights += 4;                                                                            \
        TWO_WORDS(values, first, second, a);                                                     \
        TWO_WORDS(values, first, second, b);                                                     \
        TWO_WORDS(values, first, second, c);                                                     \
        TWO_WORDS(values, first, second, d);                                                     \
    } while (0)

/* As edgekd_rounded, for all 256 values and sums that are not shifted to the left. */
static inline int8_t saturated(int32_t sum, int32_t mantissa, int32_t offset, int right) {
    int32_t value;
    __asm__("smmla %0, %1, %2, %3" : "=r"(value) : "r"(sum), "r"(mantissa), "r"(offset));
    value >>= right;
    __asm__("ssat %0, #8, %0" : "+r"(value));
    return (int8_t)value;
}

static int saturates(const edgekd_rounding *by) {
    return by->left == 0 && by->low == INT8_MIN && by->high == INT8_MAX;
}

/* The values under the kernel at one of four pixels, widened to 16 bits; the four lie in turn, two words of each. */
static void widen(const int8_t *const *rows, int kernel_rows, int length, int at, uint32_t *wide) {
    for (int ky = 0; ky < kernel_rows; ky++) {
        const int8_t *from = rows[ky] + at, *end = from + length;
        for (; from != end; from += 4, wide += 2 * PIXELS) {
            uint32_t word = word_at(from);
            wide[0] = even(word), wide[1] = odd(word);
        }
    }
}

/* All outputs at four pixels. */
static __attribute__((noinline)) void four_pixels(const int8_t *weights, const edgekd_layer *layer, const uint32_t *wide,
                                                  int all, int outputs, int32_t offset, int right, int8_t *out) {
    const int32_t *bias = layer->bias, *mantissas = layer->mantissas;
    int8_t *end_of_outputs = out + outputs;
    do {
        const int8_t *end = weights + all;
        const uint32_t *values = wide;
        int32_t a = *bias++, b = a, c = a, d = a, mantissa;
        if (all & 4) FOUR_WEIGHTS(weights, values, a, b, c, d);
        while (weights != end) {
            FOUR_WEIGHTS(weights, values, a, b, c, d);
            FOUR_WEIGHTS(weights, values, a, b, c, d);
        }
        mantissa = *mantissas++;
        out[3 * outputs] = saturated(d, mantissa, offset, right);
        out[2 * outputs] = saturated(c, mantissa, offset, right);
        out[outputs] = saturated(b, mantissa, offset, right);
        *out++ = saturated(a, mantissa, offset, right);
    } while (out != end_of_outputs);
}

static int has_quick_convolution(const edgekd_rounding *by, int columns) { return saturates(by) && columns >= PIXELS; }

static void convolve_quickly(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns,
                             int outputs, const edgekd_rounding *by, int8_t *scratch, int8_t *out) {
    int length = EDGEKD_WORDS(layer->kernel_columns * channels), all = layer->kernel_rows * length;
    int step = layer->stride_columns * channels;
    uint32_t *wide = (uint32_t *)(void *)scratch;
    for (int x = 0; x < columns; x += PIXELS) {
        int from = columns - x < PIXELS ? columns - PIXELS : x;
        for (int p = 0; p < PIXELS; p++) widen(rows, layer->kernel_rows, length, (from + p) * step, wide + 2 * p);
        four_pixels(layer->weights, layer, wide, all, outputs, by->offset, by->right, out + from * outputs);
    }
}

/* The barrier keeps the compiler from loading all taps first, for which there are not registers enough. */
#define TAP(value)                                                                               \
    do {                                                                                         \
        uint32_t w = word_at(weights), v = word_at(value), other_w = odd(w), other_v = odd(v);   \
        __asm__ volatile("" ::: "memory");                                                       \
        weights += 4;                                                                            \
        w = even(w), v = even(v);                                                                \
        __asm__ volatile("smlabb %0, %1, %2, %0" : "+r"(s0) : "r"(w), "r"(v));                   \
        __asm__ volatile("smlatt %0, %1, %2, %0" : "+r"(s2) : "r"(w), "r"(v));                   \
        __asm__ volatile("smlabb %0, %1, %2, %0" : "+r"(s1) : "r"(other_w), "r"(other_v));       \
        __asm__ volatile("smlatt %0, %1, %2, %0" : "+r"(s3) : "r"(other_w), "r"(other_v));       \
    } while (0)

/* All channels at one pixel, of three rows and columns. */
static __attribute__((noinline)) void nine_taps(const edgekd_layer *layer, const int8_t *top, const int8_t *middle,
                                                const int8_t *bottom, int channels, int32_t offset, int right,
                                                int8_t *out) {
    const int8_t *weights = layer->weights, *end = out + channels;
    const int32_t *bias = layer->bias, *mantissas = layer->mantissas;
    do {
        int32_t s0 = bias[0], s1 = bias[1], s2 = bias[2], s3 = bias[3];
        bias += 4;
        TAP(top);
        TAP(top + channels);
        TAP(top + 2 * channels);
        TAP(middle);
        TAP(middle + channels);
        TAP(middle + 2 * channels);
        TAP(bottom);
        TAP(bottom + channels);
        TAP(bottom + 2 * channels);
        top += 4, middle += 4, bottom += 4;
        out[0] = saturated(s0, mantissas[0], offset, right);
        out[1] = saturated(s1, mantissas[1], offset, right);
        out[2] = saturated(s2, mantissas[2], offset, right);
        out[3] = saturated(s3, mantissas[3], offset, right);
        mantissas += 4;
        out += 4;
    } while (out != end);
}

static int has_quick_depthwise(const edgekd_layer *layer, int channels, const edgekd_rounding *by) {
    return saturates(by) && channels % 4 == 0 && layer->kernel_rows == 3 && layer->kernel_columns == 3;
}

static void depthwise_quickly(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                              const edgekd_rounding *by, int8_t *out) {
    int step = layer->stride_columns * channels;
    for (int x = 0, at = 0; x < columns; x++, at += step, out += channels)
        nine_taps(layer, rows[0] + at, rows[1] + at, rows[2] + at, channels, by->offset, by->right, out);
}

#endif

void edgekd_convolve(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns, int outputs,
                     int32_t zero_point, void *scratch, int8_t *out) {
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, zero_point, layer->low, layer->high);
#if HELIUM || DSP
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
#if HELIUM || DSP
    if (has_quick_depthwise(layer, channels, &by)) {
        depthwise_quickly(layer, rows, columns, channels, &by, out);
        return;
    }
#endif
    convolve_depthwise(layer, rows, columns, channels, &by, out);
}
