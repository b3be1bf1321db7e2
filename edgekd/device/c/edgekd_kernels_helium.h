/* Part of edgekd_kernels.c: sums of products of int8 values with Helium, sixteen at once.
 *
 * Inner loops are written out: compilers keep half of this in memory. Where there is a choice, loads stand between
 * products, for a core that has begun the one begins the other.
 */
#ifndef EDGEKD_KERNELS_HELIUM_H
#define EDGEKD_KERNELS_HELIUM_H

#include <arm_mve.h>

#define VECTOR 16

/* A product that is doubled, of which the upper word is taken, and half a step and the zero point added, are one
 * instruction; a shift to the left that saturates leaves in the topmost byte what 8 bits can hold of the result. That is
 * what edgekd_rounded gives where all 256 values are allowed. */
typedef struct {
    int32_t offset, shift;
} quick_rounding;

static int rounds_quickly(const edgekd_layer *layer) {
    return layer->exponent >= 0 && layer->low == INT8_MIN && layer->high == INT8_MAX;
}

static quick_rounding quick_rounding_of(const edgekd_layer *layer, int32_t zero_point) {
    quick_rounding by;
    by.offset = (int32_t)((uint32_t)zero_point << (layer->exponent + 1)) + (1 << layer->exponent);
    by.shift = 23 - layer->exponent;
    return by;
}

#define ROUND(sums, mantissas)                           \
    "vqdmlash.s32 " sums ", " mantissas ", %[offset]\n" \
    "vqshl.s32 " sums ", %[shift]\n"

/* The weights of an output, of up to 16 or 32 values, times those of two pixels, in q0 and q2 (q1 and q3 the rest). */
#define SIXTEEN_AT_TWO(a, b, next)   \
    "vldrb.8 q4, [%[w]]\n" next     \
    "vmladav.s8 " a ", q4, q0\n"    \
    "vmladav.s8 " b ", q4, q2\n"

#define THIRTY_TWO_AT_TWO(a, b, next) \
    "vldrb.8 q4, [%[w]]\n"           \
    "vmladav.s8 " a ", q4, q0\n"     \
    "vldrb.8 q5, [%[w], #16]\n" next \
    "vmladav.s8 " b ", q4, q2\n"     \
    "vmladava.s8 " a ", q5, q1\n"    \
    "vmladava.s8 " b ", q5, q3\n"

/* Four outputs a turn, at both pixels. */
#define AT_TWO(products)                                                        \
    "dls lr, %[a0]\n"                                                          \
    "1:\n"                                                                     \
    products("%[a0]", "%[b0]", "add %[w], %[w], %[length], lsl #1\n")          \
    products("%[a2]", "%[b2]", "sub %[w], %[length]\n")                        \
    "vmov q6[2], q6[0], %[a0], %[a2]\n"                                        \
    "vmov q7[2], q7[0], %[b0], %[b2]\n"                                        \
    products("%[a0]", "%[b0]", "add %[w], %[w], %[length], lsl #1\n")          \
    products("%[a2]", "%[b2]", "add %[w], %[length]\n")                        \
    "vmov q6[3], q6[1], %[a0], %[a2]\n"                                        \
    "vmov q7[3], q7[1], %[b0], %[b2]\n"                                        \
    "vld20.32 {q4, q5}, [%[p]]\n"                                              \
    "vld21.32 {q4, q5}, [%[p]]!\n"                                             \
    "vadd.i32 q6, q6, q4\n"                                                    \
    "vadd.i32 q7, q7, q4\n"                                                    \
    ROUND("q6", "q5") ROUND("q7", "q5")                                        \
    "vshr.s32 q6, q6, #24\n"                                                   \
    "vstrb.32 q6, [%[out]], #4\n"                                              \
    "vshr.s32 q7, q7, #24\n"                                                   \
    "vstrb.32 q7, [%[other]], #4\n"                                            \
    "le lr, 1b\n"

/* All outputs at two pixels, of up to 32 values: whose rest beyond a vector is 0, whatever the weights behind it are. */
static APART void two_pixels(const edgekd_layer *layer, const int8_t *first, const int8_t *second, int length,
                             int outputs, const quick_rounding *by, int8_t *out, int8_t *other) {
    const int8_t *w = layer->weights;
    const int32_t *p = layer->parameters;
    int32_t a0 = outputs / 4, a2 = length % VECTOR ? length % VECTOR : VECTOR;
    if (length <= VECTOR)
        __asm__ volatile(
            "vctp.8 %[a2]\n"
            "vpstt\n"
            "vldrbt.8 q0, [%[b0]]\n"
            "vldrbt.8 q2, [%[b2]]\n" AT_TWO(SIXTEEN_AT_TWO)
            : [w] "+&r"(w), [p] "+&r"(p), [out] "+&r"(out), [other] "+&r"(other), [a0] "+&Te"(a0), [a2] "+&Te"(a2),
              [b0] "+&Te"(first), [b2] "+&Te"(second)
            : [length] "r"(length), [offset] "r"(by->offset), [shift] "r"(by->shift)
            : "lr", "q0", "q2", "q4", "q5", "q6", "q7", "memory");
    else
        __asm__ volatile(
            "vctp.8 %[a2]\n"
            "vldrb.8 q0, [%[b0]], #16\n"
            "vldrb.8 q2, [%[b2]], #16\n"
            "vpstt\n"
            "vldrbt.8 q1, [%[b0]]\n"
            "vldrbt.8 q3, [%[b2]]\n" AT_TWO(THIRTY_TWO_AT_TWO)
            : [w] "+&r"(w), [p] "+&r"(p), [out] "+&r"(out), [other] "+&r"(other), [a0] "+&Te"(a0), [a2] "+&Te"(a2),
              [b0] "+&Te"(first), [b2] "+&Te"(second)
            : [length] "r"(length), [offset] "r"(by->offset), [shift] "r"(by->shift)
            : "lr", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "memory");
}

/* The weights of an output, of up to 48 or 64 values, times those of a pixel. */
#define FORTY_EIGHT(sum)              \
    "vldrb.8 q4, [%[w]]\n"           \
    "vmladav.s8 " sum ", q4, q0\n"   \
    "vldrb.8 q5, [%[w], #16]\n"      \
    "vmladava.s8 " sum ", q5, q1\n"  \
    "vldrb.8 q4, [%[w], #32]\n"      \
    "vmladava.s8 " sum ", q4, q2\n"  \
    "add %[w], %[length]\n"

#define SIXTY_FOUR(sum)               \
    "vldrb.8 q4, [%[w]]\n"           \
    "vmladav.s8 " sum ", q4, q0\n"   \
    "vldrb.8 q5, [%[w], #16]\n"      \
    "vmladava.s8 " sum ", q5, q1\n"  \
    "vldrb.8 q4, [%[w], #32]\n"      \
    "vmladava.s8 " sum ", q4, q2\n"  \
    "vldrb.8 q5, [%[w], #48]\n"      \
    "add %[w], %[length]\n"          \
    "vmladava.s8 " sum ", q5, q3\n"

#define AT_ONE(products)                                                                \
    "dls lr, %[a0]\n"                                                                  \
    "1:\n" products("%[a0]") products("%[a1]") products("%[a2]") products("%[a3]")     \
    "vld20.32 {q4, q5}, [%[p]]\n"                                                      \
    "vld21.32 {q4, q5}, [%[p]]!\n"                                                     \
    "vmov q6[2], q6[0], %[a0], %[a2]\n"                                                \
    "vmov q6[3], q6[1], %[a1], %[a3]\n"                                                \
    "vadd.i32 q6, q6, q4\n" ROUND("q6", "q5")                                          \
    "vshr.s32 q6, q6, #24\n"                                                           \
    "vstrb.32 q6, [%[out]], #4\n"                                                      \
    "le lr, 1b\n"

/* All outputs at one pixel, of 33 to 64 values. */
static APART void one_pixel(const edgekd_layer *layer, const int8_t *values, int length, int outputs,
                            const quick_rounding *by, int8_t *out) {
    const int8_t *w = layer->weights;
    const int32_t *p = layer->parameters;
    int32_t a0 = outputs / 4, a1 = length % VECTOR ? length % VECTOR : VECTOR, a3;
    if (length <= 3 * VECTOR)
        __asm__ volatile(
            "vctp.8 %[a1]\n"
            "vldrb.8 q0, [%[a2]]\n"
            "vldrb.8 q1, [%[a2], #16]\n"
            "vpst\n"
            "vldrbt.8 q2, [%[a2], #32]\n" AT_ONE(FORTY_EIGHT)
            : [w] "+&r"(w), [p] "+&r"(p), [out] "+&r"(out), [a0] "+&Te"(a0), [a1] "+&Te"(a1), [a2] "+&Te"(values),
              [a3] "=&Te"(a3)
            : [length] "r"(length), [offset] "r"(by->offset), [shift] "r"(by->shift)
            : "lr", "q0", "q1", "q2", "q4", "q5", "q6", "memory");
    else
        __asm__ volatile(
            "vctp.8 %[a1]\n"
            "vldrb.8 q0, [%[a2]]\n"
            "vldrb.8 q1, [%[a2], #16]\n"
            "vldrb.8 q2, [%[a2], #32]\n"
            "vpst\n"
            "vldrbt.8 q3, [%[a2], #48]\n" AT_ONE(SIXTY_FOUR)
            : [w] "+&r"(w), [p] "+&r"(p), [out] "+&r"(out), [a0] "+&Te"(a0), [a1] "+&Te"(a1), [a2] "+&Te"(values),
              [a3] "=&Te"(a3)
            : [length] "r"(length), [offset] "r"(by->offset), [shift] "r"(by->shift)
            : "lr", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "memory");
}

/* All outputs at one pixel of any number of values, four outputs a turn: 64 products in ten instructions. */
static APART void long_pixel(const edgekd_layer *layer, const int8_t *values, int length, int outputs,
                             const quick_rounding *by, int8_t *out) {
    const int8_t *weights = layer->weights;
    const int32_t *p = layer->parameters;
    for (int left = outputs / 4; left; left--, weights += 4 * length) {
        const int8_t *w0 = weights, *w1 = w0 + length, *w2 = w1 + length, *w3 = w2 + length, *v = values;
        int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0;
        __asm__ volatile(
            "dlstp.8 lr, %[length]\n"
            "1:\n"
            "vldrb.8 q0, [%[v]], #16\n"
            "vldrb.8 q4, [%[w0]], #16\n"
            "vmladava.s8 %[a0], q4, q0\n"
            "vldrb.8 q5, [%[w1]], #16\n"
            "vmladava.s8 %[a1], q5, q0\n"
            "vldrb.8 q4, [%[w2]], #16\n"
            "vmladava.s8 %[a2], q4, q0\n"
            "vldrb.8 q5, [%[w3]], #16\n"
            "vmladava.s8 %[a3], q5, q0\n"
            "letp lr, 1b\n"
            : [v] "+r"(v), [w0] "+r"(w0), [w1] "+r"(w1), [w2] "+r"(w2), [w3] "+r"(w3), [a0] "+&Te"(a0), [a1] "+&Te"(a1),
              [a2] "+&Te"(a2), [a3] "+&Te"(a3)
            : [length] "r"(length)
            : "lr", "q0", "q4", "q5", "memory");
        __asm__ volatile(
            "vmov q6[2], q6[0], %[a0], %[a2]\n"
            "vmov q6[3], q6[1], %[a1], %[a3]\n"
            "vld20.32 {q4, q5}, [%[p]]\n"
            "vld21.32 {q4, q5}, [%[p]]!\n"
            "vadd.i32 q6, q6, q4\n" ROUND("q6", "q5")
            "vshr.s32 q6, q6, #24\n"
            "vstrb.32 q6, [%[out]], #4\n"
            : [p] "+&r"(p), [out] "+&r"(out)
            : [a0] "r"(a0), [a1] "r"(a1), [a2] "r"(a2), [a3] "r"(a3), [offset] "r"(by->offset), [shift] "r"(by->shift)
            : "q4", "q5", "q6", "memory");
    }
}

/* The values under the kernel at one pixel, row by row. */
static void gather_rows(const int8_t *const *rows, int kernel_rows, int length, int at, int8_t *patch) {
    for (int ky = 0; ky < kernel_rows; ky++) {
        const int8_t *from = rows[ky] + at;
        __asm__ volatile(
            "dlstp.8 lr, %[length]\n"
            "1:\n"
            "vldrb.8 q0, [%[from]], #16\n"
            "vstrb.8 q0, [%[patch]], #16\n"
            "letp lr, 1b\n"
            : [from] "+r"(from), [patch] "+r"(patch)
            : [length] "r"(length)
            : "lr", "q0", "memory");
        patch += length - (length + VECTOR - 1) / VECTOR * VECTOR;
    }
}

/* The same at four pixels, of up to four rows of a word each: a vector a pixel, filled with zeros. */
static void gather_words(const int8_t *const *rows, int kernel_rows, uint8x16_t places, int at, int8_t *patches) {
    uint32x4x4_t words;
    for (int ky = 0; ky < 4; ky++)
        words.val[ky] = ky < kernel_rows
                            ? vreinterpretq_u32_u8(vldrbq_gather_offset_u8((const uint8_t *)rows[ky] + at, places))
                            : vdupq_n_u32(0);
    vst4q_u32((uint32_t *)(void *)patches, words);
}

static int has_quick_convolution(const edgekd_layer *layer, int outputs) {
    return rounds_quickly(layer) && outputs % 4 == 0;
}

static void convolve_quickly(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns,
                             int outputs, int32_t zero_point, int8_t *patches, int8_t *out) {
    const quick_rounding by = quick_rounding_of(layer, zero_point);
    int words = EDGEKD_WORDS(layer->kernel_columns * channels), length = layer->kernel_rows * words;
    int step = layer->stride_columns * channels, each = length <= 2 * VECTOR ? 2 : 1;
    if (words == 4 && layer->kernel_rows <= 4 && layer->kernel_rows > 1 && step <= 4) { /* as where one channel enters */
        const uint8x16_t numbers = vidupq_n_u8(0, 1);
        const uint8x16_t places =
            vaddq_u8(vmulq_n_u8(vshrq_n_u8(numbers, 2), (uint8_t)step), vandq_u8(numbers, vdupq_n_u8(3)));
        for (int x = 0; x < columns; x += 2, out += 2 * outputs) {
            const int8_t *patch = patches + (x & 2) * VECTOR;
            int both = x + 1 < columns;
            if (!(x & 2)) gather_words(rows, layer->kernel_rows, places, x * step, patches);
            two_pixels(layer, patch, both ? patch + VECTOR : patch, length, outputs, &by, out,
                       both ? out + outputs : out);
        }
        return;
    }
    for (int x = 0; x < columns; x += each, out += each * outputs) {
        int both = each > 1 && x + 1 < columns;
        const int8_t *first = rows[0] + x * step, *second = both ? first + step : first;
        if (layer->kernel_rows > 1) {
            first = patches, second = both ? patches + length : first;
            gather_rows(rows, layer->kernel_rows, words, x * step, patches);
            if (both) gather_rows(rows, layer->kernel_rows, words, (x + 1) * step, patches + length);
        }
        if (each > 1)
            two_pixels(layer, first, second, length, outputs, &by, out, both ? out + outputs : out);
        else if (length <= 4 * VECTOR)
            one_pixel(layer, first, length, outputs, &by, out);
        else
            long_pixel(layer, first, length, outputs, &by, out);
    }
}

static int has_quick_depthwise(const edgekd_layer *layer, int channels) { return channels % 4 == 0 && layer->kernel_rows > 0; }

/* Four sums, brought to the scale of the result and kept within its range. */
static inline int32x4_t rounded_four(int32x4_t sums, int32x4_t mantissas, const edgekd_rounding *by) {
    int32x4_t high = vmulhq_s32(by->left ? vshlq_r_s32(sums, by->left) : sums, mantissas);
    int32x4_t values = vshlq_r_s32(vaddq_n_s32(high, by->offset), -by->right);
    return vminq_s32(vmaxq_s32(values, vdupq_n_s32(by->low)), vdupq_n_s32(by->high));
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

#endif
