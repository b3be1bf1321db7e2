/* Part of edgekd_kernels.c: sums of products of int8 values on cores with the first Thumb instructions only, as the
 * Cortex-M0+: eight registers for most of them, and products of 32 bits.
 *
 * The loops are written out, for a compiler keeps half of their sums in memory. They take all registers; r7 is saved to
 * what they were given, for the compiler may have its frame there. */
#ifndef EDGEKD_KERNELS_THUMB_H
#define EDGEKD_KERNELS_THUMB_H

#define SAVE ".syntax unified\n str r7, [r0]\n"
#define RESTORE "ldr r7, [r0]\n"

/* A sum in r0, brought to the scale of the result and kept within 8 bits, to r1, of a layer that rounds_quickly. The upper
 * word of its product with the mantissa, whose halves are in r5 (the upper one) and r6, is put together from products of
 * halves. r7: what was given. */
#define ROUND                \
    "uxth r1, r0\n"         \
    "asrs r0, r0, #16\n"    \
    "movs r2, r1\n"         \
    "muls r2, r6, r2\n"     \
    "movs r3, r0\n"         \
    "muls r3, r6, r3\n"     \
    "lsrs r2, r2, #16\n"    \
    "adds r2, r2, r3\n"     \
    "muls r1, r5, r1\n"     \
    "uxth r3, r2\n"         \
    "adds r1, r1, r3\n"     \
    "muls r0, r5, r0\n"     \
    "asrs r2, r2, #16\n"    \
    "asrs r1, r1, #16\n"    \
    "adds r0, r0, r2\n"     \
    "ldr r2, [r7, %[offset]]\n" \
    "adds r0, r0, r1\n"     \
    "adds r0, r0, r2\n"     \
    "asrs r0, r0, #1\n"     \
    "sxtb r1, r0\n"         \
    "cmp r1, r0\n"          \
    "beq 9f\n"              \
    "asrs r0, r0, #31\n"    \
    "movs r1, #127\n"       \
    "eors r1, r0\n"         \
    "9:\n"

typedef struct {
    uint32_t saved;
    const int8_t *weights;
    const uint32_t *pairs;
    int32_t all;
    const int32_t *parameters, *end;
    int32_t offset;
    int8_t *out;
    int32_t apart; /* the results of the two pixels */
} two_pixels;

#define OF_TWO(field) [field] "i"(offsetof(two_pixels, field))

/* Two weights, and their products with the values of two pixels: those of the first are in the lower half, and what they
 * have borrowed of the upper one is carried back to the sum of the second, in r0. All is summed up in r9. */
#define FOUR_PRODUCTS        \
    "ldmia r1!, {r5, r6}\n" \
    "ldrsb r4, [r2, r3]\n"  \
    "muls r5, r4, r5\n"     \
    "ldrsb r4, [r7, r3]\n"  \
    "muls r6, r4, r6\n"     \
    "adds r5, r5, r6\n"     \
    "add r9, r5\n"          \
    "asrs r5, r5, #16\n"    \
    "adcs r0, r5\n"         \
    "adds r3, r3, #2\n"

/* All outputs at two pixels, whose values lie in pairs. */
static APART void convolve_two_pixels(two_pixels *given) {
    register two_pixels *at __asm__("r0") = given;
    __asm__ volatile(SAVE
        "mov r8, r0\n"
        "1:\n"
        "ldr r2, [r0, %[weights]]\n"
        "ldr r1, [r0, %[pairs]]\n"
        "ldr r3, [r0, %[all]]\n"
        "adds r2, r2, r3\n"
        "str r2, [r0, %[weights]]\n"
        "ldr r4, [r0, %[parameters]]\n"
        "ldr r4, [r4]\n"
        "mov r9, r4\n"
        "movs r0, #0\n"
        "adds r7, r2, #1\n"
        "rsbs r3, r3, #0\n"
        "2:\n" FOUR_PRODUCTS FOUR_PRODUCTS
        "bne 2b\n"
        "lsls r4, r0, #16\n"
        "mov r5, r9\n"
        "subs r5, r5, r4\n" /* the first, which begins with the bias, as the second does now */
        "mov r9, r5\n"
        "mov r7, r8\n"
        "ldr r4, [r7, %[parameters]]\n"
        "ldmia r4!, {r5, r6}\n"
        "adds r0, r0, r5\n"
        "str r4, [r7, %[parameters]]\n"
        "asrs r5, r6, #16\n"
        "uxth r6, r6\n" ROUND
        "ldr r4, [r7, %[out]]\n"
        "ldr r2, [r7, %[apart]]\n"
        "strb r1, [r4, r2]\n"
        "mov r0, r9\n" ROUND
        "strb r1, [r4]\n"
        "adds r4, r4, #1\n"
        "str r4, [r7, %[out]]\n"
        "ldr r4, [r7, %[parameters]]\n"
        "ldr r5, [r7, %[end]]\n"
        "mov r0, r8\n"
        "cmp r4, r5\n"
        "bne 1b\n" RESTORE
        :
        : "r"(at), OF_TWO(weights), OF_TWO(pairs), OF_TWO(all), OF_TWO(parameters), OF_TWO(end), OF_TWO(offset),
          OF_TWO(out), OF_TWO(apart)
        : ALL_REGISTERS);
}

static int has_quick_convolution(const edgekd_layer *layer, int columns, int outputs) {
    return columns > 0 && outputs > 0 && rounds_quickly(layer);
}

static void convolve_quickly(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns,
                             int outputs, int32_t zero_point, void *scratch, int8_t *out) {
    int length = EDGEKD_WORDS(layer->kernel_columns * channels), step = layer->stride_columns * channels;
    two_pixels given;
    given.pairs = (uint32_t *)scratch, given.all = layer->kernel_rows * length;
    given.end = layer->parameters + 2 * outputs, given.offset = offset_of(zero_point);
    for (int x = 0; x < columns; x += 2) {
        int both = x + 1 < columns;
        pair(rows, layer->kernel_rows, length, x * step, both * step, (uint32_t *)scratch);
        given.weights = layer->weights, given.parameters = layer->parameters;
        given.out = out + x * outputs, given.apart = both * outputs;
        convolve_two_pixels(&given);
    }
}

typedef struct {
    uint32_t saved;
    const int8_t *weights;
    const int8_t *rows[3];
    const int32_t *parameters, *end;
    int32_t channels, offset;
    int8_t *out;
} one_pixel;

#define OF_ONE(field) [field] "i"(offsetof(one_pixel, field))

/* Four channels at one place under a kernel. */
#define FOUR_CHANNELS        \
    "ldrsb r4, [r1, r0]\n"  \
    "ldrsb r5, [r2, r0]\n"  \
    "muls r4, r5, r4\n"     \
    "add r8, r4\n"          \
    "ldrsb r4, [r1, r3]\n"  \
    "ldrsb r5, [r2, r3]\n"  \
    "muls r4, r5, r4\n"     \
    "add r9, r4\n"          \
    "ldrsb r4, [r1, r6]\n"  \
    "ldrsb r5, [r2, r6]\n"  \
    "muls r4, r5, r4\n"     \
    "add r10, r4\n"         \
    "ldrsb r4, [r1, r7]\n"  \
    "ldrsb r5, [r2, r7]\n"  \
    "muls r4, r5, r4\n"     \
    "add r11, r4\n"         \
    "adds r1, r1, #4\n"     \
    "add r2, r12\n"

#define OF_ROW(row)                               \
    "mov r4, lr\n"                               \
    "ldr r2, [r4, %[rows] + 4 * " row "]\n"      \
    FOUR_CHANNELS FOUR_CHANNELS FOUR_CHANNELS

#define ROUND_CHANNEL(sum, number)                \
    "ldr r5, [r4, #4 + 8 * " number "]\n"        \
    "uxth r6, r5\n"                              \
    "asrs r5, r5, #16\n"                         \
    "mov r0, " sum "\n" ROUND                    \
    "ldr r2, [r7, %[out]]\n"                     \
    "strb r1, [r2, #" number "]\n"

#define NEXT_OF_ROW(row)                          \
    "ldr r1, [r7, %[rows] + 4 * " row "]\n"      \
    "adds r1, r1, #4\n"                          \
    "str r1, [r7, %[rows] + 4 * " row "]\n"

/* All channels at one pixel, of three rows and columns. */
static APART void convolve_nine_places(one_pixel *given) {
    register one_pixel *at __asm__("r0") = given;
    __asm__ volatile(SAVE
        "mov lr, r0\n"
        "ldr r1, [r0, %[channels]]\n"
        "mov r12, r1\n"
        "1:\n"
        "mov r4, lr\n"
        "ldr r1, [r4, %[weights]]\n"
        "ldr r4, [r4, %[parameters]]\n"
        "ldr r5, [r4]\n"
        "mov r8, r5\n"
        "ldr r5, [r4, #8]\n"
        "mov r9, r5\n"
        "ldr r5, [r4, #16]\n"
        "mov r10, r5\n"
        "ldr r5, [r4, #24]\n"
        "mov r11, r5\n"
        "movs r0, #0\n"
        "movs r3, #1\n"
        "movs r6, #2\n"
        "movs r7, #3\n" OF_ROW("0") OF_ROW("1") OF_ROW("2")
        "mov r7, lr\n"
        "str r1, [r7, %[weights]]\n" NEXT_OF_ROW("0") NEXT_OF_ROW("1") NEXT_OF_ROW("2")
        "ldr r4, [r7, %[parameters]]\n"
        ROUND_CHANNEL("r8", "0") ROUND_CHANNEL("r9", "1") ROUND_CHANNEL("r10", "2") ROUND_CHANNEL("r11", "3")
        "adds r2, r2, #4\n"
        "str r2, [r7, %[out]]\n"
        "adds r4, r4, #32\n"
        "str r4, [r7, %[parameters]]\n"
        "ldr r5, [r7, %[end]]\n"
        "cmp r4, r5\n"
        "beq 2f\n"
        "b 1b\n"
        "2:\n"
        "mov r0, lr\n" RESTORE
        :
        : "r"(at), OF_ONE(weights), OF_ONE(rows), OF_ONE(parameters), OF_ONE(end), OF_ONE(channels), OF_ONE(offset),
          OF_ONE(out)
        : ALL_REGISTERS);
}

static void depthwise_quickly(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                              int32_t zero_point, int8_t *out) {
    int step = layer->stride_columns * channels;
    one_pixel given;
    given.end = layer->parameters + 2 * channels;
    given.channels = channels, given.offset = offset_of(zero_point), given.out = out;
    for (int x = 0, at = 0; x < columns; x++, at += step) {
        given.rows[0] = rows[0] + at, given.rows[1] = rows[1] + at, given.rows[2] = rows[2] + at;
        given.weights = layer->weights, given.parameters = layer->parameters;
        convolve_nine_places(&given);
    }
}

#endif
