/* Part of edgekd_kernels.c: sums of products of int8 values with DSP instructions, two at once.
 *
 * The loops are written out, for a compiler keeps half of their sums in memory. Each takes all registers: r0 holds what
 * it was given, to which r7 is saved first, for the compiler may have its frame there. Values are widened to pairs of 16
 * bits; those of pixels in turn, or once for a row those of weights that many pixels share. */
#ifndef EDGEKD_KERNELS_DSP_H
#define EDGEKD_KERNELS_DSP_H

#define SAVE "str r7, [r0]\n"
#define RESTORE "ldr r7, [r0]\n"

/* A sum, brought to the scale of the result and kept within 8 bits, of a layer that rounds_quickly. */
#define ROUND(sum, mantissa, offset)                            \
    "smmla " sum ", " sum ", " mantissa ", " offset "\n"       \
    "ssat " sum ", #8, " sum ", asr #1\n"

#define WIDEN(pixel)                            \
    "ldr %[even], [" pixel "], #4\n"           \
    "sxtb16 %[odd], %[even], ror #8\n"         \
    "sxtb16 %[even], %[even]\n"                \
    "strd %[even], %[odd], [%[wide]], #8\n"

/* The values in a row under the kernel at four pixels, widened: four of each pixel in two words, then of the next. */
static APART uint32_t *widen(const int8_t *a, int step, int length, uint32_t *wide) {
    const int8_t *b = a + step, *c = b + step, *d = c + step, *end = a + length;
    uint32_t even, odd;
    __asm__ volatile(
        "1:\n" WIDEN("%[a]") WIDEN("%[b]") WIDEN("%[c]") WIDEN("%[d]")
        "cmp %[a], %[end]\n"
        "bne 1b\n"
        : [a] "+&r"(a), [b] "+&r"(b), [c] "+&r"(c), [d] "+&r"(d), [wide] "+&r"(wide), [even] "=&r"(even),
          [odd] "=&r"(odd)
        : [end] "r"(end)
        : "cc", "memory");
    return wide;
}

/* Four weights of an output, and their products with the widened values of four pixels: 16 in 13 instructions. A sum
 * begins with `from`. */
#define SIXTEEN_PRODUCTS_FROM(a, b, c, d) \
    "ldr r3, [r1], #4\n"                 \
    "ldmia r2!, {r5, r6, r7, r8}\n"      \
    "sxtb16 r4, r3, ror #8\n"            \
    "sxtb16 r3, r3\n"                    \
    "smlad r9, r3, r5, " a "\n"          \
    "smlad r10, r3, r7, " b "\n"         \
    "smlad r9, r4, r6, r9\n"             \
    "smlad r10, r4, r8, r10\n"           \
    "ldmia r2!, {r5, r6, r7, r8}\n"      \
    "smlad r11, r3, r5, " c "\n"         \
    "smlad r12, r3, r7, " d "\n"         \
    "smlad r11, r4, r6, r11\n"           \
    "smlad r12, r4, r8, r12\n"
#define SIXTEEN_PRODUCTS SIXTEEN_PRODUCTS_FROM("r9", "r10", "r11", "r12")

typedef struct {
    uint32_t saved;
    const int8_t *weights;
    const int32_t *parameters;
    int32_t mantissa, offset;
    const uint32_t *wide;
    int32_t all;
    int8_t *out;
    int32_t outputs;
    const int8_t *end;
} four_pixels;

#define OF_FOUR(field) [field] "i"(offsetof(four_pixels, field))

/* All outputs at four pixels. */
static APART void convolve_four_pixels(four_pixels *given) {
    register four_pixels *at __asm__("r0") = given;
    __asm__ volatile(SAVE
        "ldr r1, [r0, %[weights]]\n"
        "1:\n"
        "ldr r5, [r0, %[parameters]]\n"
        "ldrd r12, r6, [r5], #8\n"
        "strd r5, r6, [r0, %[parameters]]\n" /* and mantissa */
        "ldrd r2, lr, [r0, %[wide]]\n" /* and all */
        "lsls r5, lr, #29\n" /* an odd number of words? */
        "add lr, r1, lr\n"
        SIXTEEN_PRODUCTS_FROM("r12", "r12", "r12", "r12")
        "bmi 2f\n" SIXTEEN_PRODUCTS
        "2:\n"
        "cmp r1, lr\n"
        "beq 4f\n"
        "3:\n" SIXTEEN_PRODUCTS SIXTEEN_PRODUCTS
        "cmp r1, lr\n"
        "bne 3b\n"
        "4:\n"
        "ldrd r3, r4, [r0, %[mantissa]]\n" /* and offset */
        ROUND("r9", "r3", "r4") ROUND("r10", "r3", "r4") ROUND("r11", "r3", "r4") ROUND("r12", "r3", "r4")
        "ldrd r5, r6, [r0, %[out]]\n" /* and outputs */
        "ldr r7, [r0, %[end]]\n"
        "add r8, r5, r6\n"
        "strb r9, [r5], #1\n"
        "strb r10, [r8]\n"
        "strb r11, [r8, r6]\n"
        "strb r12, [r8, r6, lsl #1]\n"
        "str r5, [r0, %[out]]\n"
        "cmp r5, r7\n"
        "bne 1b\n" RESTORE
        :
        : "r"(at), OF_FOUR(weights), OF_FOUR(parameters), OF_FOUR(wide), OF_FOUR(mantissa), OF_FOUR(out), OF_FOUR(end)
        : ALL_REGISTERS);
}

/* Where few values lie under the kernel, those of a pixel fill registers, and widened weights pass by: eight of one row,
 * or nine of three. So many words are kept of each output: what its sum begins with, pairs of weights, its mantissa. */
#define FEW_OUTPUTS 16 /* whose weights are widened at once */

typedef struct {
    uint32_t saved;
    const int8_t *weights;
    const int32_t *parameters, *parameters_end;
    const int8_t *rows[3]; /* of nine: the place is added */
    intptr_t place;        /* of eight: the pixel itself */
    int32_t step;
    uint32_t *wide, *wide_end;
    int32_t offset;
    int8_t *out;
    int32_t skipped; /* outputs of a pixel that are not of these */
    int8_t *end;
} few_values;

#define OF_FEW(field) [field] "i"(offsetof(few_values, field))
#define ALL_OF_FEW                                                                                              \
    OF_FEW(weights), OF_FEW(parameters), OF_FEW(parameters_end), OF_FEW(rows), OF_FEW(place), OF_FEW(wide),     \
        OF_FEW(wide_end), OF_FEW(offset), OF_FEW(skipped)

#define BEGIN_WEIGHTS                          \
    "ldrd r1, r2, [r0, %[weights]]\n"         \
    "ldr r3, [r0, %[parameters_end]]\n"       \
    "ldr r12, [r0, %[wide]]\n"                \
    "1:\n"
#define END_WEIGHTS                            \
    "cmp r2, r3\n"                            \
    "bne 1b\n"                                \
    "strd r1, r2, [r0, %[weights]]\n"         \
    "str r12, [r0, %[wide_end]]\n"            \
    "ldrd lr, r12, [r0, %[offset]]\n" /* and out */

#define BEGIN_OUTPUTS                          \
    "ldr r11, [r0, %[wide]]\n"                \
    "3:\n"
#define END_OUTPUTS                            \
    "ldr r6, [r0, %[wide_end]]\n"             \
    "cmp r11, r6\n"                           \
    "bne 3b\n"                                \
    "ldrd r5, r6, [r0, %[skipped]]\n" /* and end */ \
    "add r12, r5\n"                           \
    "cmp r12, r6\n"                           \
    "bne 2b\n"

#define EIGHT_PRODUCTS                         \
    "ldmia r11!, {r5, r6, r7, r8, r9, r10}\n" \
    "smlad r5, r1, r6, r5\n"                  \
    "smlad r5, r2, r7, r5\n"                  \
    "smlad r5, r3, r8, r5\n"                  \
    "smlad r5, r4, r9, r5\n" ROUND("r5", "r10", "lr") \
    "strb r5, [r12], #1\n"

static APART void convolve_eight(few_values *given) {
    register few_values *at __asm__("r0") = given;
    __asm__ volatile(SAVE BEGIN_WEIGHTS
        "ldr r6, [r1], #4\n"
        "ldr r8, [r1], #4\n"
        "ldrd r4, r9, [r2], #8\n"
        "sxtb16 r5, r6\n"
        "sxtb16 r6, r6, ror #8\n"
        "sxtb16 r7, r8\n"
        "sxtb16 r8, r8, ror #8\n"
        "stmia r12!, {r4, r5, r6, r7, r8, r9}\n" END_WEIGHTS
        "2:\n"
        "ldrd r5, r6, [r0, %[place]]\n" /* and step */
        "ldr r2, [r5]\n"
        "ldr r4, [r5, #4]\n"
        "add r5, r6\n"
        "str r5, [r0, %[place]]\n"
        "sxtb16 r1, r2\n"
        "sxtb16 r2, r2, ror #8\n"
        "sxtb16 r3, r4\n"
        "sxtb16 r4, r4, ror #8\n"
        BEGIN_OUTPUTS EIGHT_PRODUCTS EIGHT_PRODUCTS EIGHT_PRODUCTS EIGHT_PRODUCTS END_OUTPUTS RESTORE
        :
        : "r"(at), ALL_OF_FEW
        : ALL_REGISTERS);
}

#define NINE_PRODUCTS                          \
    "ldmia r11!, {r6, r7, r8, r9, r10}\n"     \
    "smlad r6, r1, r7, r6\n"                  \
    "smlad r6, r2, r8, r6\n"                  \
    "ldmia r11!, {r7, r8}\n"                  \
    "smlad r6, r3, r9, r6\n"                  \
    "smlad r6, r4, r10, r6\n"                 \
    "smlad r6, r5, r7, r6\n" ROUND("r6", "r8", "lr") \
    "strb r6, [r12], #1\n"

/* Three values of each of three words, as five pairs in registers from `to` on: the first and the third of each, the
 * second of two, and that of the last beside nothing that counts. */
#define FIVE_PAIRS(a, b, c, d, e)              \
    "sxtb16 " d ", " a ", ror #8\n"           \
    "sxtb16 " e ", " b ", ror #8\n"           \
    "sxtb16 " a ", " a "\n"                   \
    "sxtb16 " b ", " b "\n"                   \
    "pkhbt " d ", " d ", " e ", lsl #16\n"    \
    "sxtb16 " e ", " c ", ror #8\n"           \
    "sxtb16 " c ", " c "\n"

static APART void convolve_nine(few_values *given) {
    register few_values *at __asm__("r0") = given;
    __asm__ volatile(SAVE BEGIN_WEIGHTS
        "ldr r5, [r1], #4\n"
        "ldr r6, [r1], #4\n"
        "ldr r7, [r1], #4\n"
        "ldrd r4, r10, [r2], #8\n" FIVE_PAIRS("r5", "r6", "r7", "r8", "r9")
        "stmia r12!, {r4, r5, r6, r7, r8, r9, r10}\n" END_WEIGHTS
        "2:\n"
        "ldrd r5, r6, [r0, %[place]]\n" /* and step */
        "ldrd r7, r8, [r0, %[rows]]\n"
        "ldr r9, [r0, %[rows] + 8]\n"
        "add r6, r5\n"
        "str r6, [r0, %[place]]\n"
        "ldr r1, [r7, r5]\n"
        "ldr r2, [r8, r5]\n"
        "ldr r3, [r9, r5]\n" FIVE_PAIRS("r1", "r2", "r3", "r4", "r5")
        BEGIN_OUTPUTS NINE_PRODUCTS NINE_PRODUCTS NINE_PRODUCTS NINE_PRODUCTS END_OUTPUTS RESTORE
        :
        : "r"(at), ALL_OF_FEW
        : ALL_REGISTERS);
}

static int is_nine(const edgekd_layer *layer, int channels) {
    return layer->kernel_rows == 3 && layer->kernel_columns * channels < 4;
}

static int has_few(const edgekd_layer *layer, int channels, int columns, int outputs) {
    int eight = layer->kernel_rows == 1 && EDGEKD_WORDS(layer->kernel_columns * channels) == 8;
    return columns >= PIXELS && outputs % 4 == 0 && (eight || is_nine(layer, channels));
}

static void convolve_few(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns, int outputs,
                         int32_t zero_point, uint32_t *wide, int8_t *out) {
    int nine = is_nine(layer, channels);
    few_values given;
    given.weights = layer->weights, given.parameters = layer->parameters;
    if (nine) given.rows[0] = rows[0], given.rows[1] = rows[1], given.rows[2] = rows[2];
    given.step = layer->stride_columns * channels;
    given.wide = wide, given.offset = offset_of(zero_point);
    for (int first = 0; first < outputs; first += FEW_OUTPUTS) {
        int count = outputs - first < FEW_OUTPUTS ? outputs - first : FEW_OUTPUTS;
        given.parameters_end = given.parameters + 2 * count;
        given.place = nine ? 0 : (intptr_t)rows[0];
        given.out = out + first, given.end = given.out + columns * outputs, given.skipped = outputs - count;
        if (nine)
            convolve_nine(&given);
        else
            convolve_eight(&given);
    }
}

static int has_quick_convolution(const edgekd_layer *layer, int columns, int outputs) {
    (void)outputs;
    return rounds_quickly(layer) && columns >= PIXELS;
}

static void convolve_quickly(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns,
                             int outputs, int32_t zero_point, int8_t *scratch, int8_t *out) {
    int length = EDGEKD_WORDS(layer->kernel_columns * channels), all = layer->kernel_rows * length;
    int step = layer->stride_columns * channels;
    uint32_t *wide = (uint32_t *)(void *)scratch;
    if (has_few(layer, channels, columns, outputs)) {
        convolve_few(layer, rows, channels, columns, outputs, zero_point, wide, out);
        return;
    }
    for (int x = 0; x < columns; x += PIXELS) {
        int from = columns - x < PIXELS ? columns - PIXELS : x;
        int8_t *to = out + from * outputs;
        four_pixels given = {0,    layer->weights, layer->parameters, 0,           offset_of(zero_point),
                             wide, all,            to,                outputs, to + outputs};
        uint32_t *end = wide;
        for (int ky = 0; ky < layer->kernel_rows; ky++) end = widen(rows[ky] + from * step, step, length, end);
        convolve_four_pixels(&given);
    }
}

/* Of four channels and nine places under a kernel: what the sums begin with, mantissas, and the weights widened, of each
 * channel those of two places as a pair, and of the last place those of two channels. */
typedef struct {
    uint32_t saved;
    int32_t begins[4], mantissas[4];
    uint32_t pairs[4][4], last[2];
    int32_t offset, step;
    const int8_t *rows[3];
    int32_t channels;
    int8_t *out, *end;
    const int8_t *weights;
    const int32_t *parameters;
    int8_t *first; /* the results of a pixel, and where they end */
    const int8_t *first_end;
    int32_t all; /* results */
} four_channels;

#define OF_NINE(field) [field] "i"(offsetof(four_channels, field))

/* Two places of four channels, four words: a pair of each channel. */
#define PAIRS(x, y, others)                           \
    "pkhbt " others ", " x ", " y ", lsl #16\n"      \
    "pkhtb " y ", " y ", " x ", asr #16\n"           \
    "sxtb16 " x ", " others "\n"                     \
    "sxtb16 " others ", " others ", ror #8\n"

#define WIDEN_PAIR(x, y, number)                      \
    PAIRS(x, y, "r12")                               \
    "strd " x ", r12, [r0, %[pairs] + 16 * " number "]\n" \
    "sxtb16 " x ", " y "\n"                          \
    "sxtb16 " y ", " y ", ror #8\n"                  \
    "strd " x ", " y ", [r0, %[pairs] + 8 + 16 * " number "]\n"

#define EIGHT_TAPS(number)                            \
    "ldrd r12, lr, [r0, %[pairs] + 16 * " number "]\n" \
    PAIRS("r9", "r10", "r11")                        \
    "smlad r1, r9, r12, r1\n"                        \
    "smlad r2, r11, lr, r2\n"                        \
    "ldrd r12, lr, [r0, %[pairs] + 8 + 16 * " number "]\n" \
    "sxtb16 r9, r10\n"                               \
    "sxtb16 r10, r10, ror #8\n"                      \
    "smlad r3, r9, r12, r3\n"                        \
    "smlad r4, r10, lr, r4\n"

/* All channels at all pixels of a row, four channels after four. */
static APART void convolve_nine_places(four_channels *given) {
    register four_channels *at __asm__("r0") = given;
    __asm__ volatile(SAVE
        "1:\n"
        "ldrd r1, r2, [r0, %[weights]]\n" /* and parameters */
        "ldmia r2!, {r3, r4, r5, r6, r7, r8, r9, r10}\n"
        "strd r3, r5, [r0, %[begins]]\n"
        "strd r7, r9, [r0, %[begins] + 8]\n"
        "strd r4, r6, [r0, %[mantissas]]\n"
        "strd r8, r10, [r0, %[mantissas] + 8]\n"
        "ldr r3, [r1], #4\n"
        "ldr r4, [r1], #4\n"
        "ldr r5, [r1], #4\n"
        "ldr r6, [r1], #4\n"
        "ldr r7, [r1], #4\n"
        "ldr r8, [r1], #4\n"
        "ldr r9, [r1], #4\n"
        "ldr r10, [r1], #4\n"
        "ldr r11, [r1], #4\n"
        "strd r1, r2, [r0, %[weights]]\n"
        WIDEN_PAIR("r3", "r4", "0") WIDEN_PAIR("r6", "r7", "1") WIDEN_PAIR("r9", "r10", "2") WIDEN_PAIR("r5", "r8", "3")
        "sxtb16 r3, r11\n"
        "sxtb16 r4, r11, ror #8\n"
        "strd r3, r4, [r0, %[last]]\n"
        "ldrd r3, r4, [r0, %[first]]\n" /* and its end */
        "ldr r1, [r0, %[all]]\n"
        "ldrd r5, r6, [r0, %[rows]]\n"
        "ldrd r7, r8, [r0, %[rows] + 8]\n" /* and channels */
        "add r1, r3\n"
        "strd r3, r1, [r0, %[out]]\n" /* and end */
        "adds r3, #4\n"
        "str r3, [r0, %[first]]\n"
        "adds r1, r5, #4\n"
        "adds r2, r6, #4\n"
        "strd r1, r2, [r0, %[rows]]\n"
        "adds r1, r7, #4\n"
        "str r1, [r0, %[rows] + 8]\n"
        "2:\n"
        "ldrd r1, r2, [r0, %[begins]]\n"
        "ldrd r3, r4, [r0, %[begins] + 8]\n"
        "ldr r9, [r5]\n"
        "ldr r10, [r5, r8]\n" EIGHT_TAPS("0")
        "ldr r9, [r6]\n"
        "ldr r10, [r6, r8]\n" EIGHT_TAPS("1")
        "ldr r9, [r7]\n"
        "ldr r10, [r7, r8]\n" EIGHT_TAPS("2")
        "ldr r9, [r5, r8, lsl #1]\n"
        "ldr r10, [r6, r8, lsl #1]\n" EIGHT_TAPS("3")
        "ldr r9, [r7, r8, lsl #1]\n"
        "ldrd r12, lr, [r0, %[last]]\n"
        "sxtb16 r10, r9, ror #8\n"
        "sxtb16 r9, r9\n"
        "smlabb r1, r9, r12, r1\n"
        "smlabb r2, r10, lr, r2\n"
        "smlatt r3, r9, r12, r3\n"
        "smlatt r4, r10, lr, r4\n"
        "ldrd r11, r9, [r0, %[offset]]\n" /* and step */
        "ldrd r12, lr, [r0, %[mantissas]]\n"
        "add r5, r9\n"
        "add r6, r9\n"
        "add r7, r9\n" ROUND("r1", "r12", "r11") ROUND("r2", "lr", "r11")
        "ldrd r12, lr, [r0, %[mantissas] + 8]\n"
        "ldrd r9, r10, [r0, %[out]]\n" /* and end */
        ROUND("r3", "r12", "r11") ROUND("r4", "lr", "r11")
        "strb r1, [r9]\n"
        "strb r2, [r9, #1]\n"
        "strb r3, [r9, #2]\n"
        "strb r4, [r9, #3]\n"
        "add r9, r8\n"
        "str r9, [r0, %[out]]\n"
        "cmp r9, r10\n"
        "bne 2b\n"
        "ldrd r3, r4, [r0, %[first]]\n" /* and its end */
        "cmp r3, r4\n"
        "bne 1b\n" RESTORE
        :
        : "r"(at), OF_NINE(begins), OF_NINE(mantissas), OF_NINE(pairs), OF_NINE(last), OF_NINE(offset), OF_NINE(rows),
          OF_NINE(out), OF_NINE(weights), OF_NINE(first), OF_NINE(all)
        : ALL_REGISTERS);
}

static void depthwise_quickly(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                              int32_t zero_point, int8_t *out) {
    four_channels given;
    given.offset = offset_of(zero_point), given.step = layer->stride_columns * channels, given.channels = channels;
    for (int ky = 0; ky < 3; ky++) given.rows[ky] = rows[ky];
    given.weights = layer->weights, given.parameters = layer->parameters;
    given.first = out, given.first_end = out + channels, given.all = columns * channels;
    convolve_nine_places(&given);
}

#endif
