/* Part of edgekd_kernels.c: sums of products of int8 values with Helium, sixteen at once.
 *
 * Inner loops are written out: compilers keep half of this in memory. Where there is a choice, loads stand between
 * products, for a core that has begun the one begins the other.
 */
#ifndef EDGEKD_KERNELS_HELIUM_H
#define EDGEKD_KERNELS_HELIUM_H

#include <arm_mve.h>
#include <stddef.h>

#define VECTOR 16

/* Functions that need nearly all registers: called as they are written, whatever the rest is compiled for. */
#if defined(__clang__)
#define WRITTEN_OUT __attribute__((noinline))
#else
#define WRITTEN_OUT __attribute__((noipa, optimize("O2", "omit-frame-pointer")))
#endif

/* A product that is doubled, its upper word, and half a step and the zero point added to that: one instruction. A shift
 * to the left that saturates then leaves in the topmost byte what 8 bits can hold of the result. That is what
 * edgekd_rounded gives where all 256 values are allowed. */
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

#define ROUND(sums, mantissas, offset, shift)            \
    "vqdmlash.s32 " sums ", " mantissas ", " offset "\n" \
    "vqshl.s32 " sums ", " shift "\n"

/* What is left to do of a row: pixels whose values lie `apart`, four outputs at a time. Values are filled with zeros to
 * vectors; then what lies behind the weights of an output, though it is read, counts for nothing. */
typedef struct {
    const int8_t *values;
    int8_t *out;
    int32_t apart, outputs, columns, length;
    const int8_t *weights;
    const int32_t *parameters;
    int32_t rest, quads; /* of a pixel's values in the last vector; of outputs */
    int32_t offset, shift;
    uint32_t places[4]; /* of an output at four pixels */
    const int8_t *rows[4]; /* where values are to be gathered first: from where in each row of a word, and to where */
    int8_t *patches;
    uint8_t words[VECTOR]; /* where four pixels' words lie in a row */
} pixels;

/* The code below has these places in numbers. */
typedef char pixels_are_in_order[offsetof(pixels, places) == 48 && offsetof(pixels, words) == 84 ? 1 : -1];

/* The weights of an output, of up to 16 values, times those of four pixels. */
#define OUTPUT_AT_FOUR(sums, weights)          \
    weights                                    \
    "vmladav.s8 r2, q4, q0\n"                  \
    "vmladav.s8 r8, q4, q2\n"                  \
    "vmladav.s8 r4, q4, q1\n"                  \
    "vmladav.s8 r10, q4, q3\n"                 \
    "vmov " sums "[2], " sums "[0], r2, r8\n"  \
    "vmov " sums "[3], " sums "[1], r4, r10\n" \
    "ldrd r2, r4, [r5], #8\n"                  \
    "vadd.i32 " sums ", " sums ", r2\n"        \
    "vqdmulh.s32 " sums ", " sums ", r4\n"     \
    "vqadd.s32 " sums ", " sums ", r9\n"       \
    "vqshl.s32 " sums ", r11\n"

/* Values that lie in a row; r8 and r1 become where those of the next four pixels and their outputs lie. */
#define VALUES_AT_FOUR    \
    "add r2, r8, r10\n"   \
    "add r3, r2, r10\n"   \
    "add r4, r3, r10\n"   \
    "vpstttt\n"           \
    "vldrbt.8 q0, [r8]\n" \
    "vldrbt.8 q1, [r2]\n" \
    "vldrbt.8 q2, [r3]\n" \
    "vldrbt.8 q3, [r4]\n" \
    "add r8, r4, r10\n"

/* Values of up to four rows, a word of each: four pixels' words at once, and a vector for each pixel. */
#define WORDS_AT_FOUR                   \
    "add r4, r12, #84\n"                \
    "vldrb.8 q0, [r4]\n"                \
    "ldrd r2, r3, [r12, #64]\n"         \
    "vldrb.u8 q4, [r2, q0]\n"           \
    "vldrb.u8 q5, [r3, q0]\n"           \
    "add r2, r2, r10, lsl #2\n"         \
    "add r3, r3, r10, lsl #2\n"         \
    "strd r2, r3, [r12, #64]\n"         \
    "ldrd r2, r3, [r12, #72]\n"         \
    "vldrb.u8 q6, [r2, q0]\n"           \
    "vldrb.u8 q7, [r3, q0]\n"           \
    "add r2, r2, r10, lsl #2\n"         \
    "add r3, r3, r10, lsl #2\n"         \
    "strd r2, r3, [r12, #72]\n"         \
    "ldr r8, [r12, #80]\n"              \
    "vst40.32 {q4, q5, q6, q7}, [r8]\n" \
    "vst41.32 {q4, q5, q6, q7}, [r8]\n" \
    "vst42.32 {q4, q5, q6, q7}, [r8]\n" \
    "vst43.32 {q4, q5, q6, q7}, [r8]\n" \
    "vpstttt\n"                         \
    "vldrbt.8 q0, [r8]\n"               \
    "vldrbt.8 q1, [r8, #16]\n"          \
    "vldrbt.8 q2, [r8, #32]\n"          \
    "vldrbt.8 q3, [r8, #48]\n"

/* All outputs at pixels of up to 16 values, four at once; leaves what is less than four. A lane is a pixel; the topmost
 * bytes of four outputs become a word of each. Registers are those that loads and sums may use, and r7, which debuggers
 * want, stays as it is. (Of two lanes that a VMOV names, its first register goes to the second one.) */
#define BY_FOURS(values, weights)                                                                           \
    __asm__ volatile(                                                                                       \
        "ldr r6, [r12, #20]\n"                                                                              \
        "ldrd r9, r11, [r12, #40]\n" /* offset and shift */                                                 \
        "2:\n"                                                                                              \
        "ldrd r8, r0, [r12]\n"      /* values and out */                                                    \
        "ldrd r10, r1, [r12, #8]\n" /* apart and outputs */                                                 \
        "ldrd r4, r2, [r12, #32]\n" /* rest and quads */                                                    \
        "add r1, r0, r1, lsl #2\n"                                                                          \
        "vctp.8 r4\n"                                                                                       \
        "dls lr, r2\n" values                                                                               \
        "strd r8, r1, [r12]\n"                                                                              \
        "ldrd r3, r5, [r12, #24]\n" /* weights and parameters */                                            \
        "1:\n" OUTPUT_AT_FOUR("q5", weights) OUTPUT_AT_FOUR("q6", weights)                                  \
        OUTPUT_AT_FOUR("q7", weights) OUTPUT_AT_FOUR("q4", weights)                                         \
        "vsri.32 q7, q5, #16\n"                                                                             \
        "vsri.32 q4, q6, #16\n"                                                                             \
        "vldrw.32 q5, [r12, #48]\n"                                                                         \
        "vsri.16 q4, q7, #8\n"                                                                              \
        "vstrw.32 q4, [r0, q5]\n"                                                                           \
        "add r0, #4\n"                                                                                      \
        "le lr, 1b\n"                                                                                       \
        "ldr r2, [r12, #16]\n"                                                                              \
        "sub r2, #4\n"                                                                                      \
        "str r2, [r12, #16]\n"                                                                              \
        "cmp r2, #4\n"                                                                                      \
        "bge 2b\n"                                                                                          \
        : "+r"(work)                                                                                        \
        :                                                                                                   \
        : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "lr", "q0", "q1", "q2", "q3", \
          "q4", "q5", "q6", "q7", "cc", "memory")

#define KNOWN(length) "vldrb.8 q4, [r3], #" length "\n"
#define UNKNOWN "vldrb.8 q4, [r3]\n" "add r3, r6\n"

static WRITTEN_OUT void convolve_by_fours(pixels *row) {
    register pixels *work __asm__("r12") = row;
    if (work->length == 8)
        BY_FOURS(VALUES_AT_FOUR, KNOWN("8"));
    else
        BY_FOURS(VALUES_AT_FOUR, UNKNOWN);
}

static WRITTEN_OUT void convolve_words_by_fours(pixels *row) {
    register pixels *work __asm__("r12") = row;
    if (work->length == 12)
        BY_FOURS(WORDS_AT_FOUR, KNOWN("12"));
    else
        BY_FOURS(WORDS_AT_FOUR, UNKNOWN);
}

/* The weights of an output, of up to 16 or 32 values, times those of two pixels, in q0 and q2 (q1 and q3 the rest). */
#define SIXTEEN_AT_TWO(a, b, next) \
    "vldrb.8 q4, [r3]\n" next      \
    "vmladav.s8 " a ", q4, q0\n"   \
    "vmladav.s8 " b ", q4, q2\n"

#define THIRTY_TWO_AT_TWO(a, b, next) \
    "vldrb.8 q4, [r3]\n"              \
    "vmladav.s8 " a ", q4, q0\n"      \
    "vldrb.8 q5, [r3, #16]\n" next    \
    "vmladav.s8 " b ", q4, q2\n"      \
    "vmladava.s8 " a ", q5, q1\n"     \
    "vmladava.s8 " b ", q5, q3\n"

/* The same where it is known how long weights are: no instruction of its own goes on to the next. */
#define KNOWN_AT_TWO(a, b, next)    \
    "vldrb.8 q5, [r3, #16]\n"       \
    "vldrb.8 q4, [r3], #" next "\n" \
    "vmladav.s8 " a ", q4, q0\n"    \
    "vmladav.s8 " b ", q4, q2\n"    \
    "vmladava.s8 " a ", q5, q1\n"   \
    "vmladava.s8 " b ", q5, q3\n"

/* All outputs at pixels of up to 32 values, two at once (of an odd number the last one twice). A lane is an output. */
#define BY_TWOS(values, products, ahead, back, next)                                                        \
    __asm__ volatile(                                                                                       \
        "ldr r6, [r12, #20]\n"                                                                              \
        "ldrd r9, r11, [r12, #40]\n" /* offset and shift */                                                 \
        "2:\n"                                                                                              \
        "ldrd r8, r0, [r12]\n"     /* values and out */                                                     \
        "ldrd r10, r1, [r12, #8]\n" /* apart and outputs */                                                 \
        "ldr r2, [r12, #16]\n"                                                                              \
        "add r4, r8, r10, lsl #1\n"                                                                         \
        "add r5, r0, r1, lsl #1\n"                                                                          \
        "strd r4, r5, [r12]\n"                                                                              \
        "subs r2, #2\n"                                                                                     \
        "str r2, [r12, #16]\n"                                                                              \
        "itt mi\n"                                                                                          \
        "movmi r10, #0\n"                                                                                   \
        "movmi r1, #0\n"                                                                                    \
        "add r10, r8\n"                                                                                     \
        "add r1, r0\n"                                                                                      \
        "ldrd r3, r5, [r12, #24]\n" /* weights and parameters */                                            \
        "ldrd r4, r2, [r12, #32]\n" /* rest and quads */                                                    \
        "vctp.8 r4\n" values                                                                                \
        "dls lr, r2\n"                                                                                      \
        "1:\n"                                                                                              \
        products("r2", "r8", ahead)                                                                         \
        products("r4", "r10", back)                                                                         \
        "vmov q6[2], q6[0], r2, r4\n"                                                                       \
        "vmov q7[2], q7[0], r8, r10\n"                                                                      \
        products("r2", "r8", ahead)                                                                         \
        products("r4", "r10", next)                                                                         \
        "vmov q6[3], q6[1], r2, r4\n"                                                                       \
        "vmov q7[3], q7[1], r8, r10\n"                                                                      \
        "vld20.32 {q4, q5}, [r5]\n"                                                                         \
        "vld21.32 {q4, q5}, [r5]!\n"                                                                        \
        "vadd.i32 q6, q6, q4\n"                                                                             \
        "vadd.i32 q7, q7, q4\n"                                                                             \
        ROUND("q6", "q5", "r9", "r11") ROUND("q7", "q5", "r9", "r11")                                       \
        "vshr.s32 q6, q6, #24\n"                                                                            \
        "vstrb.32 q6, [r0], #4\n"                                                                           \
        "vshr.s32 q7, q7, #24\n"                                                                            \
        "vstrb.32 q7, [r1], #4\n"                                                                           \
        "le lr, 1b\n"                                                                                       \
        "ldr r2, [r12, #16]\n"                                                                              \
        "cmp r2, #0\n"                                                                                      \
        "bgt 2b\n"                                                                                          \
        : "+r"(work)                                                                                        \
        :                                                                                                   \
        : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "lr", "q0", "q1", "q2", "q3", \
          "q4", "q5", "q6", "q7", "cc", "memory")

#define SIXTEEN_OF_TWO    \
    "vpstt\n"             \
    "vldrbt.8 q0, [r8]\n" \
    "vldrbt.8 q2, [r10]\n"

#define THIRTY_TWO_OF_TWO      \
    "vldrb.8 q0, [r8], #16\n"  \
    "vldrb.8 q2, [r10], #16\n" \
    "vpstt\n"                  \
    "vldrbt.8 q1, [r8]\n"      \
    "vldrbt.8 q3, [r10]\n"

#define AHEAD "add r3, r3, r6, lsl #1\n"
#define BACK "sub r3, r6\n"
#define NEXT "add r3, r6\n"

static WRITTEN_OUT void convolve_by_twos(pixels *row) {
    register pixels *work __asm__("r12") = row;
    if (work->length <= VECTOR)
        BY_TWOS(SIXTEEN_OF_TWO, SIXTEEN_AT_TWO, AHEAD, BACK, NEXT);
    else if (work->length == 24)
        BY_TWOS(THIRTY_TWO_OF_TWO, KNOWN_AT_TWO, "48", "-24", "24");
    else if (work->length == 32)
        BY_TWOS(THIRTY_TWO_OF_TWO, KNOWN_AT_TWO, "64", "-32", "32");
    else
        BY_TWOS(THIRTY_TWO_OF_TWO, THIRTY_TWO_AT_TWO, AHEAD, BACK, NEXT);
}

/* The weights of an output, of up to 48 or 64 values, times those of a pixel. */
#define FORTY_EIGHT(sum)            \
    "vldrb.8 q4, [%[w]]\n"          \
    "vmladav.s8 " sum ", q4, q0\n"  \
    "vldrb.8 q5, [%[w], #16]\n"     \
    "vmladava.s8 " sum ", q5, q1\n" \
    "vldrb.8 q4, [%[w], #32]\n"     \
    "vmladava.s8 " sum ", q4, q2\n" \
    "add %[w], %[length]\n"

#define SIXTY_FOUR(sum)             \
    "vldrb.8 q4, [%[w]]\n"          \
    "vmladav.s8 " sum ", q4, q0\n"  \
    "vldrb.8 q5, [%[w], #16]\n"     \
    "vmladava.s8 " sum ", q5, q1\n" \
    "vldrb.8 q4, [%[w], #32]\n"     \
    "vmladava.s8 " sum ", q4, q2\n" \
    "vldrb.8 q5, [%[w], #48]\n"     \
    "add %[w], %[length]\n"         \
    "vmladava.s8 " sum ", q5, q3\n"

#define FOUR_ROUNDED                           \
    "vld20.32 {q4, q5}, [%[p]]\n"              \
    "vld21.32 {q4, q5}, [%[p]]!\n"             \
    "vmov q6[2], q6[0], %[a0], %[a2]\n"        \
    "vmov q6[3], q6[1], %[a1], %[a3]\n"        \
    "vadd.i32 q6, q6, q4\n"                    \
    ROUND("q6", "q5", "%[offset]", "%[shift]") \
    "vshr.s32 q6, q6, #24\n"                   \
    "vstrb.32 q6, [%[out]], #4\n"

#define AT_ONE(products)                                                           \
    "dls lr, %[a0]\n"                                                              \
    "1:\n" products("%[a0]") products("%[a1]") products("%[a2]") products("%[a3]") \
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

static int has_quick_convolution(const edgekd_layer *layer, int columns, int outputs) {
    (void)columns;
    return rounds_quickly(layer) && outputs % 4 == 0;
}

static void convolve_few(pixels *work) {
    if (work->columns >= 4 && work->length <= VECTOR) convolve_by_fours(work);
    if (work->columns > 0) convolve_by_twos(work);
}

typedef void convolve_pixels(pixels *);

/* Where values under the kernel lie in several rows. */
static APART void convolve_patches(const edgekd_layer *layer, const int8_t *const *rows, int words, int8_t *patches,
                                   pixels *work, convolve_pixels *convolve_gathered) {
    int step = work->apart, columns = work->columns, kernel_rows = layer->kernel_rows;
    if (words == 4 && kernel_rows <= 4 && step <= 4 && columns % 4 == 0) { /* as of one channel */
        const uint8x16_t numbers = vidupq_n_u8(0, 1);
        const uint8x16_t pixel = vshrq_n_u8(numbers, 2), within = vandq_u8(numbers, vdupq_n_u8(3));
        vst1q_u8(work->words, vaddq_u8(vmulq_n_u8(pixel, (uint8_t)step), within));
        for (int ky = 0; ky < 4; ky++) work->rows[ky] = rows[ky < kernel_rows ? ky : 0];
        work->patches = patches;
        convolve_words_by_fours(work);
        return;
    }
    work->apart = work->length;
    for (int x = 0; x < columns; x += 2) {
        work->values = patches;
        work->columns = columns - x < 2 ? 1 : 2;
        for (int i = 0; i < work->columns; i++)
            gather_rows(rows, kernel_rows, words, (x + i) * step, patches + i * work->length);
        convolve_gathered(work);
    }
}

static void convolve_quickly(const edgekd_layer *layer, const int8_t *const *rows, int channels, int columns,
                             int outputs, int32_t zero_point, int8_t *patches, int8_t *out) {
    const quick_rounding by = quick_rounding_of(layer, zero_point);
    int words = EDGEKD_WORDS(layer->kernel_columns * channels), length = layer->kernel_rows * words;
    convolve_pixels *const convolve_them = length <= 2 * VECTOR   ? convolve_few
                                           : length <= 4 * VECTOR ? convolve_by_ones
                                                                  : convolve_in_turns;
    pixels work;
    work.values = rows[0], work.out = out, work.apart = layer->stride_columns * channels, work.outputs = outputs;
    work.columns = columns, work.length = length, work.weights = layer->weights, work.parameters = layer->parameters;
    work.rest = (length - 1) % VECTOR + 1, work.quads = outputs / 4, work.offset = by.offset, work.shift = by.shift;
    vst1q_u32(work.places, vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)outputs));
    if (layer->kernel_rows == 1)
        convolve_them(&work);
    else
        convolve_patches(layer, rows, words, patches, &work, convolve_them);
}

/* One place under the kernel at two pixels, in q6 and q7; weights in q4. */
#define TAP(next, from_a, a, from_b, b)      \
    "vldrb.s16 q4, [r0], #" next "\n" from_a \
    "vldrb.s16 q5, [" a "]\n"                \
    "vmul.i16 q6, q5, q4\n" from_b           \
    "vldrb.s16 q5, [" b "]\n"                \
    "vmul.i16 q7, q5, q4\n"

/* One more: two products have a sum of 16 bits. */
#define ADD_TAP(from_a, a, from_b, b) \
    "vldrb.s16 q4, [r0], #8\n" from_a \
    "vldrb.s16 q5, [" a "]\n"         \
    "vmul.i16 q5, q5, q4\n"           \
    "vadd.i16 q6, q6, q5\n" from_b    \
    "vldrb.s16 q5, [" b "]\n"         \
    "vmul.i16 q5, q5, q4\n"           \
    "vadd.i16 q7, q7, q5\n"

#define WIDEN               \
    "vmovlb.s16 q4, q6\n"   \
    "vadd.i32 q0, q0, q4\n" \
    "vmovlt.s16 q5, q6\n"   \
    "vadd.i32 q1, q1, q5\n" \
    "vmovlb.s16 q4, q7\n"   \
    "vadd.i32 q2, q2, q4\n" \
    "vmovlt.s16 q5, q7\n"   \
    "vadd.i32 q3, q3, q5\n"

/* Where the first, second and third column of a row lie. */
#define LEFT(row) "", row, "add r4, " row ", r9\n", "r4"
#define MIDDLE(row) "add r4, " row ", r8\n", "r4", "add r4, r9\n", "r4"
#define RIGHT(row) "add r4, " row ", r8, lsl #1\n", "r4", "add r4, r9\n", "r4"
#define EXPANDED(macro, ...) macro(__VA_ARGS__)

/* Eight channels of three rows; the order is that of the registers from r0 on, but for r7. */
typedef struct {
    const int8_t *weights, *rows[3];
    int32_t pairs; /* of pixels */
    int8_t *out;
    const int32_t *parameters;
    int32_t channels, step, offset, shift, some;
} taps;

/* Two pixels a turn. Sums of channels with even numbers are in q0 and q2, of odd ones in q1 and q3. */
static WRITTEN_OUT void nine_taps(const taps *row) {
    register const taps *work __asm__("r12") = row;
    __asm__ volatile(
        "ldm r12, {r0-r6, r8-r11}\n"
        "dls lr, r4\n"
        "ldr r4, [r12, #44]\n"
        "vctp.16 r4\n"
        "1:\n"
        EXPANDED(TAP, "8", LEFT("r1")) EXPANDED(ADD_TAP, MIDDLE("r1"))
        "vmovlb.s16 q0, q6\n"
        "vmovlt.s16 q1, q6\n"
        "vmovlb.s16 q2, q7\n"
        "vmovlt.s16 q3, q7\n"
        EXPANDED(TAP, "8", RIGHT("r1")) EXPANDED(ADD_TAP, LEFT("r2")) WIDEN
        EXPANDED(TAP, "8", MIDDLE("r2")) EXPANDED(ADD_TAP, RIGHT("r2")) WIDEN
        EXPANDED(TAP, "8", LEFT("r3")) EXPANDED(ADD_TAP, MIDDLE("r3")) WIDEN
        EXPANDED(TAP, "-64", RIGHT("r3")) WIDEN
        "vld40.32 {q4, q5, q6, q7}, [r6]\n" /* beginnings and mantissas of even ones, of odd ones */
        "vld41.32 {q4, q5, q6, q7}, [r6]\n"
        "vld42.32 {q4, q5, q6, q7}, [r6]\n"
        "vld43.32 {q4, q5, q6, q7}, [r6]\n"
        "vadd.i32 q0, q0, q4\n" ROUND("q0", "q5", "r10", "r11")
        "vadd.i32 q1, q1, q6\n" ROUND("q1", "q7", "r10", "r11")
        "vadd.i32 q2, q2, q4\n" ROUND("q2", "q5", "r10", "r11")
        "vadd.i32 q3, q3, q6\n" ROUND("q3", "q7", "r10", "r11")
        "vsri.32 q1, q0, #16\n"
        "vsri.32 q3, q2, #16\n"
        "vshr.s16 q1, q1, #8\n"
        "vshr.s16 q3, q3, #8\n"
        "mov r4, r5\n"
        "vpst\n"
        "vstrbt.16 q1, [r4]\n"
        "add r4, r8\n"
        "vpst\n"
        "vstrbt.16 q3, [r4]\n"
        "add r5, r4, r8\n"
        "add r1, r1, r9, lsl #1\n"
        "add r2, r2, r9, lsl #1\n"
        "add r3, r3, r9, lsl #1\n"
        "le lr, 1b\n"
        : "+r"(work)
        :
        : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "lr", "q0", "q1", "q2", "q3", "q4", "q5",
          "q6", "q7", "memory");
}

static void nine_taps_a_row(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                            int32_t zero_point, int8_t *out) {
    const quick_rounding by = quick_rounding_of(layer, zero_point);
    int32_t eights[20], filled[16]; /* weights of eight channels at once, where they lie by fours */
    int step = layer->stride_columns * channels;
    taps work = {(const int8_t *)eights, {0}, 0, out, layer->parameters, channels, step, by.offset, by.shift, 8};
    for (int c = 0; c < channels; c += 8, out += 8) {
        const int8_t *four = layer->weights + 9 * c, *others = four + 36;
        if (channels - c < 8) {
            work.some = 4;
            others = four;
            memset(filled, 0, sizeof filled);
            memcpy(filled, work.parameters, sizeof filled / 2);
            work.parameters = filled;
        }
        for (int i = 0; i < 32; i += 16) {
            int32x4x2_t words;
            words.val[0] = vreinterpretq_s32_s8(vldrbq_s8(four + i));
            words.val[1] = vreinterpretq_s32_s8(vldrbq_s8(others + i));
            vst2q_s32(eights + i / 2, words);
        }
        memcpy(eights + 16, four + 32, 4);
        memcpy(eights + 17, others + 32, 4);
        work.pairs = columns / 2;
        work.out = out;
        for (int ky = 0; ky < 3; ky++) work.rows[ky] = rows[ky] + c;
        nine_taps(&work);
        if (columns & 1) { /* the last one, with the one before it again */
            work.pairs = 1;
            work.out = out + (columns - 2) * channels;
            for (int ky = 0; ky < 3; ky++) work.rows[ky] = rows[ky] + c + (columns - 2) * step;
            nine_taps(&work);
        }
        work.parameters += 16;
    }
}

static int has_quick_depthwise(const edgekd_layer *layer, int channels) {
    (void)layer;
    return channels % 4 == 0;
}

/* Four sums, brought to the scale of the result and kept within its range. */
static inline int32x4_t rounded_four(int32x4_t sums, int32x4_t mantissas, const edgekd_rounding *by) {
    int32x4_t high = vmulhq_s32(by->left ? vshlq_r_s32(sums, by->left) : sums, mantissas);
    int32x4_t values = vshlq_r_s32(vaddq_n_s32(high, by->offset), -by->right);
    return vminq_s32(vmaxq_s32(values, vdupq_n_s32(by->low)), vdupq_n_s32(by->high));
}

/* Kernels of any size, four channels at once. */
static void depthwise_by_fours(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                               int32_t zero_point, int8_t *out) {
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, zero_point, layer->low, layer->high);
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
            vstrbq_s32(out + x * channels + c, rounded_four(sums, parameters.val[1], &by));
        }
    }
}

static void depthwise_quickly(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels,
                              int32_t zero_point, int8_t *out) {
    int nine = layer->kernel_rows == 3 && layer->kernel_columns == 3 && columns > 1 && rounds_quickly(layer);
    (nine ? nine_taps_a_row : depthwise_by_fours)(layer, rows, columns, channels, zero_point, out);
}

static void max_pool(const edgekd_layer *layer, const int8_t *const *rows, int columns, int channels, int8_t *out) {
    for (int x = 0, at = 0; x < columns; x++, at += layer->stride_columns * channels, out += channels) {
        for (int c = 0; c < channels; c += VECTOR) {
            const mve_pred16_t some = vctp8q((uint32_t)(channels - c));
            int8x16_t largest = vdupq_n_s8(INT8_MIN);
            for (int ky = 0; ky < layer->kernel_rows; ky++) {
                const int8_t *value = rows[ky] + at + c;
                for (int kx = layer->kernel_columns; kx > 0; kx--, value += channels)
                    largest = vmaxq_s8(largest, vldrbq_z_s8(value, some));
            }
            vstrbq_p_s8(out + c, largest, some);
        }
    }
}

static void add_values(const int8_t *value, int channels, int columns, uint32_t *sums) {
    for (int left = channels; left > 0; left -= 4, value += 4, sums += 4) {
        const mve_pred16_t some = vctp32q((uint32_t)left);
        int32x4_t sum = vaddq_n_s32(vldrwq_z_s32((const int32_t *)sums, some), 128 * columns);
        const int8_t *column = value;
        for (int x = columns; x > 0; x--, column += channels) sum = vaddq_s32(sum, vldrbq_z_s32(column, some));
        vstrwq_p_s32((int32_t *)sums, sum, some);
    }
}

static void add_told(const edgekd_layer *layer, const int8_t *value, int channels, uint32_t *sums) {
    const int bins = layer->bins, apart = layer->shared ? 0 : 256 * bins;
    const uint16_t *table = layer->table + 128 * bins;
    for (const int8_t *end = value + channels; value != end; value++, table += apart, sums += bins) {
        const uint16_t *told = table + *value * bins;
        uint32_t *sum = sums;
        __asm__ volatile(
            "dlstp.32 lr, %[bins]\n"
            "1:\n"
            "vldrh.u32 q0, [%[told]], #8\n"
            "vldrw.32 q1, [%[sum]]\n"
            "vadd.i32 q0, q0, q1\n"
            "vstrw.32 q0, [%[sum]], #16\n"
            "letp lr, 1b\n"
            : [told] "+l"(told), [sum] "+r"(sum)
            : [bins] "r"(bins)
            : "lr", "q0", "q1", "memory");
    }
}

#endif
