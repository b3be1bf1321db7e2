#include "edgekd_kernels.h"

#include <string.h>

#if EDGEKD_PLAIN /* for comparison */
#elif defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
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

static int saturates(const edgekd_rounding *by) {
    return by->left == 0 && by->low == INT8_MIN && by->high == INT8_MAX;
}

/* The values under the kernel at one of four pixels, widened to 16 bits; the four lie in turn, two words of each. */
static void widen(const int8_t *const *rows, int kernel_rows, int length, int at, uint32_t *wide) {
    const int8_t *const *end_of_rows = rows + kernel_rows;
    if (length == 4) { /* as where one channel enters */
        for (; rows != end_of_rows; rows++, wide += 2 * PIXELS) {
            uint32_t word = word_at(*rows + at);
            wide[0] = even(word), wide[1] = odd(word);
        }
        return;
    }
    for (int ky = 0; ky < kernel_rows; ky++) {
        const int8_t *from = rows[ky] + at, *end = from + length;
        for (; from != end; from += 4, wide += 2 * PIXELS) {
            uint32_t word = word_at(from);
            wide[0] = even(word), wide[1] = odd(word);
        }
    }
}

/* Four weights of an output, and their products with the widened values of four pixels: 16 in 15 instructions. */
#define SIXTEEN_PRODUCTS                         \
    "ldr %[even], [%[w]], #4\n"                 \
    "sxtb16 %[odd], %[even], ror #8\n"          \
    "sxtb16 %[even], %[even]\n"                 \
    "ldrd %[x], %[y], [%[v]], #8\n"             \
    "smlad %[a], %[even], %[x], %[a]\n"         \
    "smlad %[a], %[odd], %[y], %[a]\n"          \
    "ldrd %[x], %[y], [%[v]], #8\n"             \
    "smlad %[b], %[even], %[x], %[b]\n"         \
    "smlad %[b], %[odd], %[y], %[b]\n"          \
    "ldrd %[x], %[y], [%[v]], #8\n"             \
    "smlad %[c], %[even], %[x], %[c]\n"         \
    "smlad %[c], %[odd], %[y], %[c]\n"          \
    "ldrd %[x], %[y], [%[v]], #8\n"             \
    "smlad %[d], %[even], %[x], %[d]\n"         \
    "smlad %[d], %[odd], %[y], %[d]\n"

/* A sum, brought to the scale of the result and kept within 8 bits. */
#define ROUND(sum)                               \
    "smmla " sum ", " sum ", %[even], %[odd]\n" \
    "asr " sum ", " sum ", %[x]\n"              \
    "ssat " sum ", #8, " sum "\n"

/* All outputs at four pixels. Written out, for a compiler keeps half of this in memory: sums begin as the parameters
 * say, take 16 products a turn, and are rounded as edgekd_rounded does where all 256 values are allowed. */
static APART void four_pixels(const edgekd_layer *layer, const uint32_t *wide, int all, int outputs,
                                                  const edgekd_rounding *by, int8_t *out) {
    const struct {
        const uint32_t *wide;
        int32_t all, offset, right, outputs;
        const int8_t *end;
    } given = {wide, all, by->offset, by->right, outputs, out + outputs};
    const int8_t *w = layer->weights;
    const int32_t *p = layer->parameters;
    const uint32_t *v;
    int32_t a, b, c, d;
    uint32_t even, odd, x, y, end;
    __asm__ volatile(
        "1:\n"
        "ldr %[a], [%[p]], #8\n"
        "ldrd %[v], %[end], %[wide]\n" /* and all */
        "mov %[b], %[a]\n"
        "mov %[c], %[a]\n"
        "mov %[d], %[a]\n"
        "lsls %[x], %[end], #29\n" /* an odd number of words? */
        "add %[end], %[w], %[end]\n"
        "bpl 2f\n" SIXTEEN_PRODUCTS
        "cmp %[w], %[end]\n"
        "beq 3f\n"
        "2:\n" SIXTEEN_PRODUCTS SIXTEEN_PRODUCTS
        "cmp %[w], %[end]\n"
        "bne 2b\n"
        "3:\n"
        "ldr %[even], [%[p], #-4]\n"
        "ldrd %[odd], %[x], %[offset]\n" /* and right */
        ROUND("%[a]") ROUND("%[b]") ROUND("%[c]") ROUND("%[d]")
        "ldrd %[v], %[end], %[outputs]\n" /* and the end */
        "add %[y], %[o], %[v]\n"
        "strb %[a], [%[o]], #1\n"
        "strb %[b], [%[y]]\n"
        "strb %[c], [%[y], %[v]]\n"
        "strb %[d], [%[y], %[v], lsl #1]\n"
        "cmp %[o], %[end]\n"
        "bne 1b\n"
        : [w] "+&r"(w), [p] "+&r"(p), [o] "+&r"(out), [v] "=&r"(v), [a] "=&r"(a), [b] "=&r"(b), [c] "=&r"(c),
          [d] "=&r"(d), [even] "=&r"(even), [odd] "=&r"(odd), [x] "=&r"(x), [y] "=&r"(y), [end] "=&r"(end)
        : [wide] "m"(given.wide), [offset] "m"(given.offset), [outputs] "m"(given.outputs)
        : "cc", "memory");
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
        four_pixels(layer, wide, all, outputs, by, out + from * outputs);
    }
}

/* One place under the kernel: four channels at `value`, times their four weights. */
#define TAP(value)                               \
    "ldr %[even], [%[w]], #4\n"                 \
    "ldr %[x], [" value "]\n"                   \
    "sxtb16 %[odd], %[even], ror #8\n"          \
    "sxtb16 %[even], %[even]\n"                 \
    "sxtb16 %[y], %[x], ror #8\n"               \
    "sxtb16 %[x], %[x]\n"                       \
    "smlabb %[a], %[even], %[x], %[a]\n"        \
    "smlatt %[c], %[even], %[x], %[c]\n"        \
    "smlabb %[b], %[odd], %[y], %[b]\n"         \
    "smlatt %[d], %[odd], %[y], %[d]\n"

#define TAPS(row) TAP(row) TAP(row ", %[channels]") TAP(row ", %[channels], lsl #1") "adds " row ", #4\n"

#define ROUND_CHANNEL(sum, place)                \
    "ldr %[even], [%[y], #" place "]\n"         \
    ROUND(sum)

/* All channels at one pixel, of three rows and columns; written out for the same reason. */
static APART void nine_taps(const edgekd_layer *layer, const int8_t *top, const int8_t *middle,
                                                const int8_t *bottom, int channels, const edgekd_rounding *by,
                                                int8_t *out) {
    struct {
        const int32_t *parameters;
        int8_t *out, *const end;
        const int32_t offset, right;
    } given = {layer->parameters, out, out + channels, by->offset, by->right};
    const int8_t *w = layer->weights;
    int32_t a, b, c, d;
    uint32_t even, odd, x, y;
    __asm__ volatile(
        "1:\n"
        "ldr %[y], %[parameters]\n"
        "ldr %[a], [%[y]]\n"
        "ldr %[b], [%[y], #8]\n"
        "ldr %[c], [%[y], #16]\n"
        "ldr %[d], [%[y], #24]\n"
        TAPS("%[top]") TAPS("%[middle]") TAPS("%[bottom]")
        "ldr %[y], %[parameters]\n"
        "ldrd %[odd], %[x], %[offset]\n" /* and right */
        ROUND_CHANNEL("%[a]", "4") ROUND_CHANNEL("%[b]", "12") ROUND_CHANNEL("%[c]", "20") ROUND_CHANNEL("%[d]", "28")
        "adds %[y], #32\n"
        "str %[y], %[parameters]\n"
        "ldrd %[x], %[y], %[out]\n" /* and the end */
        "strb %[b], [%[x], #1]\n"
        "strb %[c], [%[x], #2]\n"
        "strb %[d], [%[x], #3]\n"
        "strb %[a], [%[x]], #4\n"
        "str %[x], %[out]\n"
        "cmp %[x], %[y]\n"
        "bne 1b\n"
        : [w] "+&r"(w), [top] "+&l"(top), [middle] "+&l"(middle), [bottom] "+&l"(bottom), [a] "=&r"(a), [b] "=&r"(b),
          [c] "=&r"(c), [d] "=&r"(d), [even] "=&r"(even), [odd] "=&r"(odd), [x] "=&r"(x), [y] "=&l"(y),
          [parameters] "+m"(given.parameters), [out] "+m"(given.out)
        : [channels] "r"(channels), [offset] "m"(given.offset)
        : "cc", "memory");
}

static int has_quick_depthwise(const edgekd_layer *layer, int channels, const edgekd_rounding *by) {
    return saturates(by) && channels % 4 == 0 && layer->kernel_rows == 3 && layer->kernel_columns == 3;
}

static void depthwise_quickly(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                              const edgekd_rounding *by, int8_t *out) {
    int step = layer->stride_columns * channels;
    for (int x = 0, at = 0; x < columns; x++, at += step, out += channels)
        nine_taps(layer, rows[0] + at, rows[1] + at, rows[2] + at, channels, by, out);
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
