/* Part of edgekd_kernels.c: sums of products of int8 values with Helium, sixteen at once.
 *
 * Inner loops are written out: compilers keep half of this in memory. Where there is a choice, loads stand between
 * products, for a core that has begun the one begins the other.
 */
#ifndef EDGEKD_KERNELS_HELIUM_H
#define EDGEKD_KERNELS_HELIUM_H

#include <arm_mve.h>

#define VECTOR 16

/* Functions that need nearly all registers: called as they are written, whatever the rest is compiled for. */
#if defined(__clang__)
#define WRITTEN_OUT __attribute__((noinline))
#else
#define WRITTEN_OUT __attribute__((noipa, optimize("O2", "omit-frame-pointer")))
#endif

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

#define ROUND(sums, mantissas, offset, shift)             \
    "vqdmlash.s32 " sums ", " mantissas ", " offset "\n" \
    "vqshl.s32 " sums ", " shift "\n"

/* The weights of an output, of up to 16 or 32 values, times those of two pixels, in q0 and q2 (q1 and q3 the rest). */
#define SIXTEEN_AT_TWO(a, b, next)   \
    "vldrb.8 q4, [r3]\n" next     \
    "vmladav.s8 " a ", q4, q0\n"    \
    "vmladav.s8 " b ", q4, q2\n"

#define THIRTY_TWO_AT_TWO(a, b, next) \
    "vldrb.8 q4, [r3]\n"           \
    "vmladav.s8 " a ", q4, q0\n"     \
    "vldrb.8 q5, [r3, #16]\n" next \
    "vmladav.s8 " b ", q4, q2\n"     \
    "vmladava.s8 " a ", q5, q1\n"    \
    "vmladava.s8 " b ", q5, q3\n"

/* What is left to do of a row: pixels whose values lie `apart`, four outputs at a time. The order is that of the code. Values are
 * filled with zeros to vectors; then the weights behind an output's count for nothing. */
typedef struct {
    const int8_t *values;
    int8_t *out;
    int32_t apart, outputs, columns, length;
    const int8_t *weights;
    const int32_t *parameters;
    int32_t rest, quads; /* of a pixel's values in the last vector; of outputs */
    int32_t offset, shift;
    uint32_t places[4]; /* of an output at four pixels */
} pixels;

/* The weights of an output, of up to 16 values, times those of four pixels. */
#define OUTPUT_AT_FOUR(sums)           \
    "vldrb.8 q4, [r3]\n"              \
    "add r3, r6\n"                    \
    "vmladav.s8 r2, q4, q0\n"         \
    "vmladav.s8 r8, q4, q2\n"         \
    "vmladav.s8 r4, q4, q1\n"         \
    "vmladav.s8 r10, q4, q3\n"        \
    "vmov " sums "[2], " sums "[0], r2, r8\n"  \
    "vmov " sums "[3], " sums "[1], r4, r10\n" \
    "ldrd r2, r4, [r5], #8\n"         \
    "vadd.i32 " sums ", " sums ", r2\n"    \
    "vqdmulh.s32 " sums ", " sums ", r4\n" \
    "vqadd.s32 " sums ", " sums ", r9\n"   \
    "vqshl.s32 " sums ", r11\n"

/* All outputs at pixels of up to 16 values, four at once; leaves what is less than four. Registers are those that loads
 * and sums may use, and r7, which debuggers want, stays as it is. */
static WRITTEN_OUT void convolve_by_fours(pixels *row) {
    register pixels *work __asm__("r12") = row;
    __asm__ volatile(
        "ldr r6, [r12, #20]\n"
        "ldrd r9, r11, [r12, #40]\n" /* offset and shift */
        "2:\n"
        "ldrd r8, r0, [r12]\n"      /* values and out */
        "ldrd r10, r1, [r12, #8]\n" /* apart and outputs */
        "ldrd r4, r2, [r12, #32]\n" /* rest and quads */
        "vctp.8 r4\n"
        "dls lr, r2\n"
        "add r2, r8, r10\n"
        "add r3, r2, r10\n"
        "add r4, r3, r10\n"
        "vpstttt\n"
        "vldrbt.8 q0, [r8]\n"
        "vldrbt.8 q1, [r2]\n"
        "vldrbt.8 q2, [r3]\n"
        "vldrbt.8 q3, [r4]\n"
        "add r8, r4, r10\n"
        "add r1, r0, r1, lsl #2\n"
        "strd r8, r1, [r12]\n"
        "ldrd r3, r5, [r12, #24]\n" /* weights and parameters */
        "1:\n" OUTPUT_AT_FOUR("q5") OUTPUT_AT_FOUR("q6") OUTPUT_AT_FOUR("q7") OUTPUT_AT_FOUR("q4")
        "vsri.32 q7, q5, #16\n"
        "vsri.32 q4, q6, #16\n"
        "vldrw.32 q5, [r12, #48]\n"
        "vsri.16 q4, q7, #8\n"
        "vstrw.32 q4, [r0, q5]\n"
        "add r0, #4\n"
        "le lr, 1b\n"
        "ldr r2, [r12, #16]\n"
        "sub r2, #4\n"
        "str r2, [r12, #16]\n"
        "cmp r2, #4\n"
        "bge 2b\n"
        : "+r"(work)
        :
        : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "lr", "q0", "q1", "q2", "q3", "q4", "q5",
          "q6", "q7", "cc", "memory");
}

/* All outputs at pixels of up to 32 values, two at once (of an odd number the last one twice). */
#define BY_TWOS(values, products)                                       \
    __asm__ volatile(                                                  \
        "ldr r6, [r12, #20]\n"                                         \
        "ldrd r9, r11, [r12, #40]\n" /* offset and shift */            \
        "2:\n"                                                         \
        "ldrd r8, r0, [r12]\n"     /* values and out */                \
        "ldrd r10, r1, [r12, #8]\n" /* apart and outputs */            \
        "ldr r2, [r12, #16]\n"                                         \
        "add r4, r8, r10, lsl #1\n"                                    \
        "add r5, r0, r1, lsl #1\n"                                     \
        "strd r4, r5, [r12]\n"                                         \
        "subs r2, #2\n"                                                \
        "str r2, [r12, #16]\n"                                         \
        "itt mi\n"                                                     \
        "movmi r10, #0\n"                                              \
        "movmi r1, #0\n"                                               \
        "add r10, r8\n"                                                \
        "add r1, r0\n"                                                 \
        "ldrd r3, r5, [r12, #24]\n" /* weights and parameters */       \
        "ldrd r4, r2, [r12, #32]\n" /* rest and quads */               \
        "vctp.8 r4\n" values                                           \
        "dls lr, r2\n"                                                 \
        "1:\n"                                                         \
        products("r2", "r8", "add r3, r3, r6, lsl #1\n")               \
        products("r4", "r10", "sub r3, r6\n")                          \
        "vmov q6[2], q6[0], r2, r4\n"                                  \
        "vmov q7[2], q7[0], r8, r10\n"                                 \
        products("r2", "r8", "add r3, r3, r6, lsl #1\n")               \
        products("r4", "r10", "add r3, r6\n")                          \
        "vmov q6[3], q6[1], r2, r4\n"                                  \
        "vmov q7[3], q7[1], r8, r10\n"                                 \
        "vld20.32 {q4, q5}, [r5]\n"                                    \
        "vld21.32 {q4, q5}, [r5]!\n"                                   \
        "vadd.i32 q6, q6, q4\n"                                        \
        "vadd.i32 q7, q7, q4\n"                                        \
        ROUND("q6", "q5", "r9", "r11") ROUND("q7", "q5", "r9", "r11")  \
        "vshr.s32 q6, q6, #24\n"                                       \
        "vstrb.32 q6, [r0], #4\n"                                      \
        "vshr.s32 q7, q7, #24\n"                                       \
        "vstrb.32 q7, [r1], #4\n"                                      \
        "le lr, 1b\n"                                                  \
        "ldr r2, [r12, #16]\n"                                         \
        "cmp r2, #0\n"                                                 \
        "bgt 2b\n"                                                     \
        : "+r"(work)                                                   \
        :                                                              \
        : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "lr", "q0", "q1", "q2", "q3", \
          "q4", "q5", "q6", "q7", "cc", "memory")

static WRITTEN_OUT void convolve_by_twos(pixels *row) {
    register pixels *work __asm__("r12") = row;
    if (work->length <= VECTOR)
        BY_TWOS(
            "vpstt\n"
            "vldrbt.8 q0, [r8]\n"
            "vldrbt.8 q2, [r10]\n",
            SIXTEEN_AT_TWO);
    else
        BY_TWOS(
            "vldrb.8 q0, [r8], #16\n"
            "vldrb.8 q2, [r10], #16\n"
            "vpstt\n"
            "vldrbt.8 q1, [r8]\n"
            "vldrbt.8 q3, [r10]\n",
            THIRTY_TWO_AT_TWO);
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

#define FOUR_ROUNDED                        \
    "vld20.32 {q4, q5}, [%[p]]\n"          \
    "vld21.32 {q4, q5}, [%[p]]!\n"         \
    "vmov q6[2], q6[0], %[a0], %[a2]\n"    \
    "vmov q6[3], q6[1], %[a1], %[a3]\n"    \
    "vadd.i32 q6, q6, q4\n"                \
    ROUND("q6", "q5", "%[offset]", "%[shift]")                       \
    "vshr.s32 q6, q6, #24\n"               \
    "vstrb.32 q6, [%[out]], #4\n"

#define AT_ONE(products)                                                               \
    "dls lr, %[a0]\n"                                                                 \
    "1:\n" products("%[a0]") products("%[a1]") products("%[a2]") products("%[a3]")    \
    FOUR_ROUNDED "le lr, 1b\n"

/* All outputs at pixels of 33 to 64 values. */
static WRITTEN_OUT void convolve_by_ones(pixels *work) {
    const int32_t length = work->length, offset = work->offset, shift = work->shift;
    for (; work->columns > 0; work->columns--, work->values += work->apart, work->out += work->outputs) {
        const int8_t *w = work->weights, *v = work->values;
        const int32_t *p = work->parameters;
        int8_t *here = work->out;
        int32_t a0 = work->quads, a1 = work->rest, a3;
        if (length <= 3 * VECTOR)
            __asm__ volatile(
                "vctp.8 %[a1]\n"
                "vldrb.8 q0, [%[a2]]\n"
                "vldrb.8 q1, [%[a2], #16]\n"
                "vpst\n"
                "vldrbt.8 q2, [%[a2], #32]\n" AT_ONE(FORTY_EIGHT)
                : [w] "+&r"(w), [p] "+&r"(p), [out] "+&l"(here), [a0] "+&Te"(a0), [a1] "+&Te"(a1), [a2] "+&Te"(v),
                  [a3] "=&Te"(a3)
                : [length] "r"(length), [offset] "r"(offset), [shift] "r"(shift)
                : "lr", "q0", "q1", "q2", "q4", "q5", "q6", "memory");
        else
            __asm__ volatile(
                "vctp.8 %[a1]\n"
                "vldrb.8 q0, [%[a2]]\n"
                "vldrb.8 q1, [%[a2], #16]\n"
                "vldrb.8 q2, [%[a2], #32]\n"
                "vpst\n"
                "vldrbt.8 q3, [%[a2], #48]\n" AT_ONE(SIXTY_FOUR)
                : [w] "+&r"(w), [p] "+&r"(p), [out] "+&l"(here), [a0] "+&Te"(a0), [a1] "+&Te"(a1), [a2] "+&Te"(v),
                  [a3] "=&Te"(a3)
                : [length] "r"(length), [offset] "r"(offset), [shift] "r"(shift)
                : "lr", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "memory");
    }
}

/* All outputs at pixels of any number of values, four outputs a turn: 64 products in ten instructions. */
static WRITTEN_OUT void convolve_in_turns(pixels *work) {
    const int32_t length = work->length, offset = work->offset, shift = work->shift;
    for (; work->columns > 0; work->columns--, work->values += work->apart) {
        const int8_t *weights = work->weights;
        const int32_t *p = work->parameters;
        for (int left = work->quads; left; left--, weights += 4 * length) {
            const int8_t *w0 = weights, *w1 = w0 + length, *w2 = w1 + length, *w3 = w2 + length, *v = work->values;
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
                : [v] "+r"(v), [w0] "+r"(w0), [w1] "+r"(w1), [w2] "+r"(w2), [w3] "+r"(w3), [a0] "+Te"(a0),
                  [a1] "+Te"(a1), [a2] "+Te"(a2), [a3] "+Te"(a3)
                : [length] "r"(length)
                : "lr", "q0", "q4", "q5", "memory");
            __asm__ volatile(FOUR_ROUNDED
                             : [p] "+&r"(p), [out] "+&l"(work->out)
                             : [a0] "r"(a0), [a1] "r"(a1), [a2] "r"(a2), [a3] "r"(a3), [offset] "r"(offset),
                               [shift] "r"(shift)
                             : "q4", "q5", "q6", "memory");
        }
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

/* The same at four pixels, of up to four rows of a word each: a vector a pixel. */
static inline void gather_words(const int8_t *const *rows, int kernel_rows, uint8x16_t places, int at, int8_t *patches) {
    const uint8_t *first = (const uint8_t *)rows[0] + at; /* or anything in place of a row that there is not */
    uint32x4x4_t words;
    words.val[0] = vreinterpretq_u32_u8(vldrbq_gather_offset_u8(first, places));
    words.val[1] = vreinterpretq_u32_u8(vldrbq_gather_offset_u8((const uint8_t *)rows[1] + at, places));
    words.val[2] = vreinterpretq_u32_u8(
        vldrbq_gather_offset_u8(kernel_rows > 2 ? (const uint8_t *)rows[2] + at : first, places));
    words.val[3] = vreinterpretq_u32_u8(
        vldrbq_gather_offset_u8(kernel_rows > 3 ? (const uint8_t *)rows[3] + at : first, places));
    vst4q_u32((uint32_t *)(void *)patches, words);
}

static int has_quick_convolution(const edgekd_layer *layer, int outputs) {
    return rounds_quickly(layer) && outputs % 4 == 0;
}

static void convolve_few(pixels *work) {
    if (work->columns >= 4 && work->length <= VECTOR) convolve_by_fours(work);
    if (work->columns > 0) convolve_by_twos(work);
}

static void convolve_quickly(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns,
                             int outputs, int32_t zero_point, int8_t *patches, int8_t *out) {
    const quick_rounding by = quick_rounding_of(layer, zero_point);
    int words = EDGEKD_WORDS(layer->kernel_columns * channels), length = layer->kernel_rows * words;
    int step = layer->stride_columns * channels;
    pixels work = {rows[0], out, step, outputs, columns, length, layer->weights, layer->parameters,
                   (length - 1) % VECTOR + 1, outputs / 4, by.offset, by.shift,
                   {0, outputs, 2 * outputs, 3 * outputs}};
    void (*const convolve_pixels)(pixels *) = length <= 2 * VECTOR   ? convolve_few
                                              : length <= 4 * VECTOR ? convolve_by_ones
                                                                     : convolve_in_turns;
    if (layer->kernel_rows == 1) {
        convolve_pixels(&work);
    } else if (words == 4 && layer->kernel_rows <= 4 && step <= 4) { /* as where one channel enters */
        const uint8x16_t numbers = vidupq_n_u8(0, 1);
        const uint8x16_t places =
            vaddq_u8(vmulq_n_u8(vshrq_n_u8(numbers, 2), (uint8_t)step), vandq_u8(numbers, vdupq_n_u8(3)));
        work.apart = VECTOR;
        for (int x = 0; x < columns; x += 4) {
            gather_words(rows, layer->kernel_rows, places, x * step, patches);
            work.values = patches;
            work.columns = columns - x < 4 ? columns - x : 4;
            convolve_few(&work);
        }
    } else {
        work.apart = length;
        for (int x = 0; x < columns; x += 2) {
            work.values = patches;
            work.columns = columns - x < 2 ? 1 : 2;
            for (int i = 0; i < work.columns; i++)
                gather_rows(rows, layer->kernel_rows, words, (x + i) * step, patches + i * length);
            convolve_pixels(&work);
        }
    }
}

/* One place under the kernel at two pixels, in q6 and q7; weights in q4. */
#define TAP(next, from_a, a, from_b, b)        \
    "vldrb.s16 q4, [%[w]], #" next "\n" from_a \
    "vldrb.s16 q5, [" a "]\n"                 \
    "vmul.i16 q6, q5, q4\n" from_b            \
    "vldrb.s16 q5, [" b "]\n"                 \
    "vmul.i16 q7, q5, q4\n"

/* One more: two products have a sum of 16 bits. */
#define ADD_TAP(from_a, a, from_b, b)       \
    "vldrb.s16 q4, [%[w]], #8\n" from_a    \
    "vldrb.s16 q5, [" a "]\n"              \
    "vmul.i16 q5, q5, q4\n"                \
    "vadd.i16 q6, q6, q5\n" from_b         \
    "vldrb.s16 q5, [" b "]\n"              \
    "vmul.i16 q5, q5, q4\n"                \
    "vadd.i16 q7, q7, q5\n"

#define WIDEN                     \
    "vmovlb.s16 q4, q6\n"        \
    "vadd.i32 q0, q0, q4\n"      \
    "vmovlt.s16 q5, q6\n"        \
    "vadd.i32 q1, q1, q5\n"      \
    "vmovlb.s16 q4, q7\n"        \
    "vadd.i32 q2, q2, q4\n"      \
    "vmovlt.s16 q5, q7\n"        \
    "vadd.i32 q3, q3, q5\n"

/* Where the first, second and third column of a row lie. */
#define LEFT(row) "", row, "add %[t], " row ", %[step]\n", "%[t]"
#define MIDDLE(row) "add %[t], " row ", %[channels]\n", "%[t]", "add %[t], %[step]\n", "%[t]"
#define RIGHT(row) "add %[t], " row ", %[channels], lsl #1\n", "%[t]", "add %[t], %[step]\n", "%[t]"
#define EXPANDED(macro, ...) macro(__VA_ARGS__)

/* Eight channels of three rows and columns, two pixels a turn. Sums of channels with even numbers are in q0 and q2, of
 * odd ones in q1 and q3. */
static WRITTEN_OUT void nine_taps(const int8_t *weights, const int8_t *const *rows, int at, const int32_t *parameters,
                            int channels, int step, int pairs, int some, const quick_rounding *by, int8_t *out) {
    /* what values are loaded by has to be in one of the first eight registers */
    register const int8_t *w __asm__("r0") = weights, *top __asm__("r1") = rows[0] + at;
    register const int8_t *middle __asm__("r2") = rows[1] + at, *bottom __asm__("r3") = rows[2] + at;
    register int32_t t __asm__("r4") = pairs;
    __asm__ volatile(
        "dls lr, %[t]\n"
        "ldr %[t], %[some]\n"
        "vctp.16 %[t]\n"
        "1:\n"
        EXPANDED(TAP, "8", LEFT("%[top]")) EXPANDED(ADD_TAP, MIDDLE("%[top]"))
        "vmovlb.s16 q0, q6\n"
        "vmovlt.s16 q1, q6\n"
        "vmovlb.s16 q2, q7\n"
        "vmovlt.s16 q3, q7\n"
        EXPANDED(TAP, "8", RIGHT("%[top]")) EXPANDED(ADD_TAP, LEFT("%[middle]")) WIDEN
        EXPANDED(TAP, "8", MIDDLE("%[middle]")) EXPANDED(ADD_TAP, RIGHT("%[middle]")) WIDEN
        EXPANDED(TAP, "8", LEFT("%[bottom]")) EXPANDED(ADD_TAP, MIDDLE("%[bottom]")) WIDEN
        EXPANDED(TAP, "-64", RIGHT("%[bottom]")) WIDEN
        "vld40.32 {q4, q5, q6, q7}, [%[p]]\n" /* beginnings and mantissas of even ones, of odd ones */
        "vld41.32 {q4, q5, q6, q7}, [%[p]]\n"
        "vld42.32 {q4, q5, q6, q7}, [%[p]]\n"
        "vld43.32 {q4, q5, q6, q7}, [%[p]]\n"
        "vadd.i32 q0, q0, q4\n" ROUND("q0", "q5", "%[offset]", "%[shift]")
        "vadd.i32 q1, q1, q6\n" ROUND("q1", "q7", "%[offset]", "%[shift]")
        "vadd.i32 q2, q2, q4\n" ROUND("q2", "q5", "%[offset]", "%[shift]")
        "vadd.i32 q3, q3, q6\n" ROUND("q3", "q7", "%[offset]", "%[shift]")
        "vsri.32 q1, q0, #16\n"
        "vsri.32 q3, q2, #16\n"
        "vshr.s16 q1, q1, #8\n"
        "vshr.s16 q3, q3, #8\n"
        "mov %[t], %[out]\n"
        "vpst\n"
        "vstrbt.16 q1, [%[t]]\n"
        "add %[t], %[channels]\n"
        "vpst\n"
        "vstrbt.16 q3, [%[t]]\n"
        "add %[out], %[t], %[channels]\n"
        "add %[top], %[top], %[step], lsl #1\n"
        "add %[middle], %[middle], %[step], lsl #1\n"
        "add %[bottom], %[bottom], %[step], lsl #1\n"
        "le lr, 1b\n"
        : [w] "+r"(w), [top] "+r"(top), [middle] "+r"(middle), [bottom] "+r"(bottom), [out] "+&r"(out), [t] "+r"(t)
        : [p] "r"(parameters), [channels] "r"(channels), [step] "r"(step), [some] "m"(some),
          [offset] "r"(by->offset), [shift] "r"(by->shift)
        : "lr", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "memory");
}

static void nine_taps_a_row(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                            int32_t zero_point, int8_t *out) {
    const quick_rounding by = quick_rounding_of(layer, zero_point);
    int step = layer->stride_columns * channels;
    for (int c = 0; c < channels; c += 8) {
        int32_t eights[20], filled[16]; /* weights of eight channels at once, where they lie by fours */
        const int32_t *parameters = layer->parameters + 2 * c;
        const int8_t *four = layer->weights + 9 * c, *others = four;
        int some = 8;
        if (channels - c < 8) {
            some = 4;
            memset(filled, 0, sizeof filled);
            memcpy(filled, parameters, sizeof filled / 2);
            parameters = filled;
        } else {
            others += 36;
        }
        for (int i = 0; i < 32; i += 16) {
            int32x4x2_t words = {{vreinterpretq_s32_s8(vldrbq_s8(four + i)), vreinterpretq_s32_s8(vldrbq_s8(others + i))}};
            vst2q_s32(eights + i / 2, words);
        }
        memcpy(eights + 16, four + 32, 4);
        memcpy(eights + 17, others + 32, 4);
        for (int x = 0, pairs = columns / 2; x < columns; x += 2 * pairs, pairs = 1) {
            int from = columns - x < 2 ? columns - 2 : x, at = c + from * step;
            nine_taps((const int8_t *)eights, rows, at, parameters, channels, step, pairs, some, &by,
                      out + c + from * channels);
        }
    }
}

static int has_quick_depthwise(int channels) { return channels % 4 == 0; }

/* Four sums, brought to the scale of the result and kept within its range. */
static inline int32x4_t rounded_four(int32x4_t sums, int32x4_t mantissas, const edgekd_rounding *by) {
    int32x4_t high = vmulhq_s32(by->left ? vshlq_r_s32(sums, by->left) : sums, mantissas);
    int32x4_t values = vshlq_r_s32(vaddq_n_s32(high, by->offset), -by->right);
    return vminq_s32(vmaxq_s32(values, vdupq_n_s32(by->low)), vdupq_n_s32(by->high));
}

static void depthwise_quickly(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                              const edgekd_rounding *by, int32_t zero_point, int8_t *out) {
    int step = layer->stride_columns * channels, taps = 4 * layer->kernel_rows * layer->kernel_columns;
    const int8_t *weights = layer->weights;
    if (layer->kernel_rows == 3 && layer->kernel_columns == 3 && columns > 1 && rounds_quickly(layer)) {
        nine_taps_a_row(layer, rows, columns, channels, zero_point, out);
        return;
    }
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
