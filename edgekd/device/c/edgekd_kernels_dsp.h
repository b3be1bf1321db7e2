/* Part of edgekd_kernels.c: sums of products of int8 values with DSP instructions, two at once. */
#ifndef EDGEKD_KERNELS_DSP_H
#define EDGEKD_KERNELS_DSP_H

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
