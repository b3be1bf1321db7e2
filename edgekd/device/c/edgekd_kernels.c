#include "edgekd_kernels.h"

#include <string.h>

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#define HELIUM 1
#include <arm_mve.h>
#elif defined(__ARM_FEATURE_DSP) && defined(__GNUC__)
#define DSP 1
#include <arm_acle.h>
#endif

static inline uint32_t word_at(const int8_t *values) {
    uint32_t word;
    memcpy(&word, values, sizeof word);
    return word;
}

#if HELIUM

#define PIXELS 4

static inline mve_pred16_t first_of(int count, int lanes) {
    return lanes == 16 ? vctp8q((uint32_t)count) : lanes == 8 ? vctp16q((uint32_t)count) : vctp32q((uint32_t)count);
}

/* Four sums, brought to the scale of the result and kept within its range. */
static inline int32x4_t rounded_four(int32x4_t sums, int32x4_t mantissas, const edgekd_rounding *by) {
    int32x4_t high = vmulhq_s32(by->left ? vshlq_r_s32(sums, by->left) : sums, mantissas);
    int32x4_t values = vshlq_r_s32(vaddq_n_s32(high, by->offset), -by->right);
    return vminq_s32(vmaxq_s32(values, vdupq_n_s32(by->low)), vdupq_n_s32(by->high));
}

/* The values under the kernel at one pixel, row by row, each filled to words. */
static void gather(const int8_t *const *rows, int kernel_rows, int length, int at, int8_t *patch) {
    for (int ky = 0; ky < kernel_rows; ky++)
        for (int i = 0; i < length; i += 16) {
            mve_pred16_t some = first_of(length - i, 16);
            vstrbq_p_s8(patch, vldrbq_z_s8(rows[ky] + at + i, some), some);
            patch += length - i < 16 ? length - i : 16;
        }
}

void edgekd_convolve(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns, int outputs,
                     int32_t zero_point, void *scratch, int8_t *out) {
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, zero_point, layer->low, layer->high);
    int length = EDGEKD_WORDS(layer->kernel_columns * channels), all = layer->kernel_rows * length;
    int step = layer->stride_columns * channels, direct = layer->kernel_rows == 1;
    const uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)outputs);
    for (int x = 0; x < columns; x += PIXELS, out += PIXELS * outputs) {
        int pixels = columns - x < PIXELS ? columns - x : PIXELS;
        mve_pred16_t there = first_of(pixels, 4);
        const int8_t *patch[PIXELS], *weights = layer->weights;
        for (int p = 0; p < PIXELS; p++) {
            int at = (x + (p < pixels ? p : 0)) * step;
            patch[p] = direct ? rows[0] + at : (int8_t *)scratch + p * all;
            if (!direct) gather(rows, layer->kernel_rows, length, at, (int8_t *)scratch + p * all);
        }
        for (int o = 0; o < outputs; o++, weights += all) {
            int32_t a = layer->bias[o], b = a, c = a, d = a;
            for (int i = 0; i < all; i += 16) {
                mve_pred16_t some = first_of(all - i, 16);
                int8x16_t weight = vldrbq_z_s8(weights + i, some);
                a = vmladavaq_s8(a, weight, vldrbq_z_s8(patch[0] + i, some));
                b = vmladavaq_s8(b, weight, vldrbq_z_s8(patch[1] + i, some));
                c = vmladavaq_s8(c, weight, vldrbq_z_s8(patch[2] + i, some));
                d = vmladavaq_s8(d, weight, vldrbq_z_s8(patch[3] + i, some));
            }
            int32x4_t sums = vdupq_n_s32(a);
            sums = vsetq_lane_s32(b, sums, 1);
            sums = vsetq_lane_s32(c, sums, 2);
            sums = vsetq_lane_s32(d, sums, 3);
            sums = rounded_four(sums, vdupq_n_s32(layer->mantissas[o]), &by);
            vstrbq_scatter_offset_p_s32(out + o, places, sums, there);
        }
    }
}

void edgekd_convolve_depthwise(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                               int32_t zero_point, int8_t *out) {
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, zero_point, layer->low, layer->high);
    int step = layer->stride_columns * channels;
    for (int c = 0; c < channels; c += 4) {
        mve_pred16_t some = first_of(channels - c, 4);
        int32x4_t bias = vldrwq_z_s32(layer->bias + c, some), mantissas = vldrwq_z_s32(layer->mantissas + c, some);
        for (int x = 0; x < columns; x++) {
            const int8_t *weight = layer->weights + c;
            int32x4_t sums = bias;
            for (int ky = 0; ky < layer->kernel_rows; ky++) {
                const int8_t *value = rows[ky] + x * step + c;
                for (int kx = 0; kx < layer->kernel_columns; kx++, weight += channels, value += channels)
                    sums = vaddq_s32(sums, vmulq_s32(vldrbq_z_s32(weight, some), vldrbq_z_s32(value, some)));
            }
            vstrbq_p_s32(out + x * channels + c, rounded_four(sums, mantissas, &by), some);
        }
    }
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

static inline int32_t dual(uint32_t a, uint32_t b, int32_t sum) {
    __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}

/* As edgekd_rounded, for all 256 values and sums that are not shifted to the left. */
static inline int8_t saturated(int32_t sum, int32_t mantissa, const edgekd_rounding *by) {
    int32_t value;
    __asm__("smmla %0, %1, %2, %3" : "=r"(value) : "r"(sum), "r"(mantissa), "r"(by->offset));
    value >>= by->right;
    __asm__("ssat %0, #8, %0" : "+r"(value));
    return (int8_t)value;
}

/* The values under the kernel at two pixels, widened to 16 bits, four of each in turn. */
static void widen(const int8_t *const *rows, int kernel_rows, int length, int at, int next, uint32_t *wide) {
    for (int ky = 0; ky < kernel_rows; ky++) {
        const int8_t *first = rows[ky] + at, *second = rows[ky] + next;
        for (int i = 0; i < length; i += 4, wide += 4) {
            uint32_t a = word_at(first + i), b = word_at(second + i);
            wide[0] = even(a), wide[1] = odd(a), wide[2] = even(b), wide[3] = odd(b);
        }
    }
}

void edgekd_convolve(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns, int outputs,
                     int32_t zero_point, void *scratch, int8_t *out) {
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, zero_point, layer->low, layer->high);
    int plain = by.left == 0 && by.low == INT8_MIN && by.high == INT8_MAX;
    int length = EDGEKD_WORDS(layer->kernel_columns * channels), all = layer->kernel_rows * length;
    int step = layer->stride_columns * channels;
    for (int x = 0; x < columns; x += 2, out += 2 * outputs) {
        int both = x + 1 < columns;
        const int8_t *weights = layer->weights;
        int8_t *other = both ? out + outputs : out;
        widen(rows, layer->kernel_rows, length, x * step, (x + both) * step, scratch);
        for (int o = 0; o < outputs; o += 2) {
            int two = o + 1 < outputs;
            const int8_t *w = weights, *v = two ? w + all : w, *end = w + all;
            const uint32_t *wide = scratch;
            int32_t a = layer->bias[o], b = a, c = layer->bias[o + two], d = c;
            do {
                uint32_t w_word = word_at(w), v_word = word_at(v), w_even = even(w_word), v_even = even(v_word);
                uint32_t w_odd = odd(w_word), v_odd = odd(v_word);
                a = dual(w_even, wide[0], a), b = dual(w_even, wide[2], b);
                c = dual(v_even, wide[0], c), d = dual(v_even, wide[2], d);
                a = dual(w_odd, wide[1], a), b = dual(w_odd, wide[3], b);
                c = dual(v_odd, wide[1], c), d = dual(v_odd, wide[3], d);
                w += 4, v += 4, wide += 4;
            } while (w != end);
            if (plain) {
                other[o] = saturated(b, layer->mantissas[o], &by), out[o] = saturated(a, layer->mantissas[o], &by);
                if (two) {
                    other[o + 1] = saturated(d, layer->mantissas[o + 1], &by);
                    out[o + 1] = saturated(c, layer->mantissas[o + 1], &by);
                }
            } else {
                other[o] = edgekd_rounded(b, layer->mantissas[o], &by);
                out[o] = edgekd_rounded(a, layer->mantissas[o], &by);
                if (two) {
                    other[o + 1] = edgekd_rounded(d, layer->mantissas[o + 1], &by);
                    out[o + 1] = edgekd_rounded(c, layer->mantissas[o + 1], &by);
                }
            }
            weights += 2 * all;
        }
    }
}

/* Sums of four channels at one pixel. */
static inline void four_channels(const edgekd_layer *layer, const int8_t *const *rows, int at, int channels, int c,
                                 int32_t sums[4]) {
    const int8_t *weight = layer->weights + c;
    int32_t s0 = layer->bias[c], s1 = layer->bias[c + 1], s2 = layer->bias[c + 2], s3 = layer->bias[c + 3];
    for (int ky = 0; ky < layer->kernel_rows; ky++) {
        const int8_t *value = rows[ky] + at + c;
        for (int kx = layer->kernel_columns; kx > 0; kx--, weight += channels, value += channels) {
            uint32_t w = word_at(weight), v = word_at(value);
            uint32_t w_even = even(w), w_odd = odd(w), v_even = even(v), v_odd = odd(v);
            __asm__("smlabb %0, %1, %2, %0" : "+r"(s0) : "r"(w_even), "r"(v_even));
            __asm__("smlabb %0, %1, %2, %0" : "+r"(s1) : "r"(w_odd), "r"(v_odd));
            __asm__("smlatt %0, %1, %2, %0" : "+r"(s2) : "r"(w_even), "r"(v_even));
            __asm__("smlatt %0, %1, %2, %0" : "+r"(s3) : "r"(w_odd), "r"(v_odd));
        }
    }
    sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3;
}

void edgekd_convolve_depthwise(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                               int32_t zero_point, int8_t *out) {
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, zero_point, layer->low, layer->high);
    int plain = by.left == 0 && by.low == INT8_MIN && by.high == INT8_MAX, step = layer->stride_columns * channels;
    for (int x = 0; x < columns; x++, out += channels) {
        int c = 0;
        for (; c + 3 < channels; c += 4) {
            const int32_t *mantissas = layer->mantissas + c;
            int32_t sums[4];
            four_channels(layer, rows, x * step, channels, c, sums);
            for (int i = 0; i < 4; i++)
                out[c + i] = plain ? saturated(sums[i], mantissas[i], &by) : edgekd_rounded(sums[i], mantissas[i], &by);
        }
        for (; c < channels; c++) {
            const int8_t *weight = layer->weights + c;
            int32_t sum = layer->bias[c];
            for (int ky = 0; ky < layer->kernel_rows; ky++) {
                const int8_t *value = rows[ky] + x * step + c;
                for (int kx = 0; kx < layer->kernel_columns; kx++, weight += channels, value += channels)
                    sum += *weight * *value;
            }
            out[c] = edgekd_rounded(sum, layer->mantissas[c], &by);
        }
    }
}

#else

/* The values under the kernel at one pixel, row by row, each filled to words. */
static void gather(const int8_t *const *rows, int kernel_rows, int length, int at, int8_t *patch) {
    for (int ky = 0; ky < kernel_rows; ky++)
        for (int i = 0; i < length; i += 4, patch += 4) {
            uint32_t word = word_at(rows[ky] + at + i);
            memcpy(patch, &word, sizeof word);
        }
}

void edgekd_convolve(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns, int outputs,
                     int32_t zero_point, void *scratch, int8_t *out) {
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, zero_point, layer->low, layer->high);
    int length = EDGEKD_WORDS(layer->kernel_columns * channels), all = layer->kernel_rows * length;
    int step = layer->stride_columns * channels;
    int8_t *patches = scratch;
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
            other[o] = edgekd_rounded(second, layer->mantissas[o], &by);
            out[o] = edgekd_rounded(first, layer->mantissas[o], &by);
        }
    }
}

void edgekd_convolve_depthwise(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                               int32_t zero_point, int8_t *out) {
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, zero_point, layer->low, layer->high);
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
            out[c] = edgekd_rounded(sum, layer->mantissas[c], &by);
        }
    }
}

#endif
