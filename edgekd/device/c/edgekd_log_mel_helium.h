/* Part of edgekd_log_mel.c: the same sums and products with Helium, two complex numbers or four real ones at once.
 *
 * Every number is computed from the same operands in the same order, so all bits are those of the code without vectors
 * but for two things that no log-mel shows: the sign of zeros, and that Helium takes numbers below 2^-126 for zero,
 * where the least power that counts is 1e-10 (of magnitudes, to which 0.001 is added, 1e-11).
 *
 * Inner loops are written out: no compiler may fuse a product with a sum there, and GCC makes no loops of one
 * instruction. A product of complex numbers is two instructions and a sum, a turn by a quarter is part of a sum.
 */
#ifndef EDGEKD_LOG_MEL_HELIUM_H
#define EDGEKD_LOG_MEL_HELIUM_H

#include <arm_mve.h>
#include <stddef.h>

static const uint16_t in_pairs[] = {0, 0, 2, 2};    /* bytes: one of 16 bits for both parts of a complex number */
static const uint32_t parts[] = {0, 1, 0, 1};       /* the lowest bits of their places */

/* `count` samples that lie side by side, and begin with an even one of the frame. */
static void load_run(const edgekd_log_mel *front_end, const int16_t *samples, int n, int count, float *spectrum) {
    const float *window = front_end->window + n;
    const uint16_t *order = front_end->order + (n >> 1);
    if (count <= 0) return;
    __asm__ volatile(
        "vldrh.u32 q6, [%[pairs]]\n"
        "vldrw.u32 q7, [%[parts]]\n"
        "dlstp.32 lr, %[count]\n"
        "1:\n"
        "vldrh.s32 q0, [%[samples]], #8\n"
        "vldrh.u32 q2, [%[order], q6]\n"
        "vcvt.f32.s32 q0, q0\n"
        "vldrw.u32 q1, [%[window]], #16\n"
        "vsli.32 q7, q2, #1\n"
        "vmul.f32 q0, q0, q1\n"
        "add %[order], #4\n"
        "vstrw.32 q0, [%[spectrum], q7, uxtw #2]\n"
        "letp lr, 1b\n"
        : [samples] "+l"(samples), [window] "+r"(window), [order] "+l"(order)
        : [pairs] "l"(in_pairs), [parts] "r"(parts), [count] "r"(count), [spectrum] "r"(spectrum)
        : "lr", "q0", "q1", "q2", "q6", "q7", "memory");
}

/* Where a first stage of radix 4 finds its numbers: in each quarter of a frame. */
typedef struct {
    const int16_t *samples[4];
    const float *window[4];
    const uint16_t *order;
    float *spectrum;
    uint32_t pairs[4], parts[4]; /* bytes: of one place for both parts of a number, and of the parts */
} quarters_at_work;

/* The code below has these places in numbers. */
typedef char quarters_are_in_order[offsetof(quarters_at_work, pairs) == 40 ? 1 : -1];

/* The first stage of so many pairs of blocks, from samples. */
static void load_quarters(quarters_at_work *quarters, int count) {
    register quarters_at_work *work __asm__("r12") = quarters;
    register int pairs __asm__("r0") = count;
    __asm__ volatile(
        "wls lr, r0, 2f\n"
        "ldrd r0, r1, [r12]\n"
        "ldrd r2, r3, [r12, #8]\n"
        "ldrd r4, r5, [r12, #16]\n"
        "ldrd r6, r8, [r12, #24]\n"
        "ldrd r9, r10, [r12, #32]\n"
        "vldrw.u32 q6, [r12, #40]\n"
        "vldrw.u32 q7, [r12, #56]\n"
        "1:\n"
        "vldrh.s32 q0, [r0], #8\n"
        "vldrh.s32 q1, [r1], #8\n"
        "vcvt.f32.s32 q0, q0\n"
        "vldrw.u32 q4, [r4], #16\n"
        "vcvt.f32.s32 q1, q1\n"
        "vldrh.s32 q2, [r2], #8\n"
        "vmul.f32 q0, q0, q4\n"
        "vldrw.u32 q4, [r5], #16\n"
        "vcvt.f32.s32 q2, q2\n"
        "vldrh.s32 q3, [r3], #8\n"
        "vmul.f32 q1, q1, q4\n"
        "vldrw.u32 q4, [r6], #16\n"
        "vcvt.f32.s32 q3, q3\n"
        "vldrw.u32 q5, [r8], #16\n"
        "vmul.f32 q2, q2, q4\n"
        "vmul.f32 q3, q3, q5\n"
        "vadd.f32 q4, q0, q2\n"
        "vsub.f32 q0, q0, q2\n"
        "vadd.f32 q2, q1, q3\n"
        "vsub.f32 q1, q1, q3\n"
        "vadd.f32 q3, q4, q2\n"
        "vsub.f32 q4, q4, q2\n"
        "vcadd.f32 q2, q0, q1, #270\n"
        "vcadd.f32 q5, q0, q1, #90\n"
        "vldrh.u32 q0, [r9, q6]\n"
        "add r9, #4\n"
        "vsli.32 q7, q0, #3\n"
        "vadd.i32 q0, q7, r10\n"
        "vstrw.32 q3, [q0]\n"
        "vstrw.32 q2, [q0, #8]\n"
        "vstrw.32 q4, [q0, #16]\n"
        "vstrw.32 q5, [q0, #24]\n"
        "le lr, 1b\n"
        "strd r0, r1, [r12]\n"
        "strd r2, r3, [r12, #8]\n"
        "strd r4, r5, [r12, #16]\n"
        "strd r6, r8, [r12, #24]\n"
        "str r9, [r12, #32]\n"
        "2:\n"
        : "+r"(work), "+r"(pairs)
        :
        : "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "lr", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7",
          "memory");
}

/* A frame that fills the transform, with its first stage. One quarter at most goes on at the other end of the ring. */
static void load_all_quarters(const edgekd_log_mel *front_end, const int16_t *samples, int ring, int start,
                              float *spectrum) {
    quarters_at_work work = {.pairs = {0, 0, 2, 2}, .parts = {0, 4, 0, 4}};
    int length = front_end->points / 2, left = length / 4, back = ring - start;
    work.order = front_end->order, work.spectrum = spectrum;
    for (int i = 0; i < 4; i++) {
        work.samples[i] = samples + start + i * length - (i * length < back ? 0 : ring);
        work.window[i] = front_end->window + i * length;
    }
    if (back < 4 * length) {
        const int16_t **split = &work.samples[back / length];
        int16_t across[4];
        int before = back % length;
        load_quarters(&work, before / 4);
        left -= before / 4, before %= 4;
        if (before) {
            const int16_t *from = *split;
            for (int i = 0; i < 4; i++) across[i] = i < before ? from[i] : samples[i - before];
            *split = across;
            load_quarters(&work, 1);
            *split = samples + 4 - before, left--;
        } else if (back % length) {
            *split = samples;
        }
    }
    load_quarters(&work, left);
}

/* Returns how many stages are done with it. */
static int load_in_vectors(const edgekd_log_mel *front_end, const int16_t *samples, int ring, int start,
                           float *spectrum) {
    int length = front_end->window_length, n = ring - start;
    if (length == 2 * front_end->points && length % 16 == 0 && front_end->radices[0] == 4) {
        load_all_quarters(front_end, samples, ring, start, spectrum);
        return 1;
    }
    if (n > length) n = length;
    load_run(front_end, samples + start, 0, n, spectrum);
    if (n < length && n & 1) { /* the other part of a pair */
        spectrum[2 * front_end->order[n >> 1] + 1] = front_end->window[n] * (float)samples[0];
        samples++, n++;
    }
    load_run(front_end, samples, n, length - n, spectrum);
    return 0;
}

static int quarters_in_vectors(float *z, int points) {
    const uint32_t first = (uint32_t)(uintptr_t)z - 64;
    const uint32_t addresses[] = {first, first + 4, first + 32, first + 36}; /* of two blocks */
    if (points & 7) return 0;
    __asm__ volatile(
        "vldrw.u32 q7, [%[addresses]]\n"
        "dls lr, %[count]\n"
        "1:\n"
        "vldrw.u32 q0, [q7, #64]!\n"
        "vldrw.u32 q2, [q7, #16]\n"
        "vadd.f32 q4, q0, q2\n"
        "vldrw.u32 q1, [q7, #8]\n"
        "vsub.f32 q5, q0, q2\n"
        "vldrw.u32 q3, [q7, #24]\n"
        "vadd.f32 q6, q1, q3\n"
        "vsub.f32 q1, q1, q3\n"
        "vadd.f32 q0, q4, q6\n"
        "vstrw.32 q0, [q7]\n"
        "vsub.f32 q2, q4, q6\n"
        "vstrw.32 q2, [q7, #16]\n"
        "vcadd.f32 q3, q5, q1, #270\n"
        "vstrw.32 q3, [q7, #8]\n"
        "vcadd.f32 q4, q5, q1, #90\n"
        "vstrw.32 q4, [q7, #24]\n"
        "le lr, 1b\n"
        :
        : [addresses] "r"(addresses), [count] "r"(points / 8)
        : "lr", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "memory");
    return 1;
}

static int radix_4_in_vectors(float *z, int points, int length, const float *twiddles) {
    const uint32_t first = (uint32_t)(uintptr_t)twiddles - 48;
    const uint32_t addresses[] = {first, first + 4, first + 24, first + 28};
    int step = 2 * length;
    if (length & 1) return 0;
    for (float *a = z, *end = z + 2 * points; a < end; a += 3 * step) {
        float *b = a + step, *c = b + step, *d = c + step;
        __asm__ volatile(
            "vldrw.u32 q7, [%[addresses]]\n"
            "dls lr, %[count]\n"
            "1:\n"
            "vldrw.u32 q0, [%[b]]\n"
            "vldrw.u32 q3, [q7, #48]!\n"
            "vcmul.f32 q1, q0, q3, #0\n"
            "vldrw.u32 q4, [%[c]]\n"
            "vcmul.f32 q2, q0, q3, #90\n"
            "vldrw.u32 q6, [q7, #8]\n"
            "vadd.f32 q1, q1, q2\n" /* b */
            "vcmul.f32 q2, q4, q6, #0\n"
            "vldrw.u32 q0, [%[d]]\n"
            "vcmul.f32 q5, q4, q6, #90\n"
            "vldrw.u32 q6, [q7, #16]\n"
            "vadd.f32 q2, q2, q5\n" /* c */
            "vcmul.f32 q3, q0, q6, #0\n"
            "vldrw.u32 q5, [%[a]]\n"
            "vcmul.f32 q4, q0, q6, #90\n"
            "vadd.f32 q3, q3, q4\n" /* d */
            "vadd.f32 q0, q5, q2\n"
            "vsub.f32 q5, q5, q2\n"
            "vadd.f32 q4, q1, q3\n"
            "vsub.f32 q1, q1, q3\n"
            "vadd.f32 q2, q0, q4\n"
            "vstrw.32 q2, [%[a]], #16\n"
            "vsub.f32 q0, q0, q4\n"
            "vstrw.32 q0, [%[c]], #16\n"
            "vcadd.f32 q2, q5, q1, #270\n"
            "vstrw.32 q2, [%[b]], #16\n"
            "vcadd.f32 q3, q5, q1, #90\n"
            "vstrw.32 q3, [%[d]], #16\n"
            "le lr, 1b\n"
            : [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d)
            : [addresses] "r"(addresses), [count] "r"(length / 2)
            : "lr", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "memory");
    }
    return 1;
}

static float32x4_t turned(float32x4_t number, float32x4_t by) {
    return vaddq_f32(vcmulq_f32(number, by), vcmulq_rot90_f32(number, by));
}

static int radix_2_in_vectors(float *z, int points, int length, const float *twiddles) {
    int step = 2 * length;
    if (length & 1) return 0;
    for (float *a = z, *end = z + 2 * points; a < end; a += step) {
        float *b = a + step;
        const float *w = twiddles;
        __asm__ volatile(
            "dls lr, %[count]\n"
            "1:\n"
            "vldrw.u32 q0, [%[b]]\n"
            "vldrw.u32 q1, [%[w]], #16\n"
            "vcmul.f32 q2, q0, q1, #0\n"
            "vldrw.u32 q4, [%[a]]\n"
            "vcmul.f32 q3, q0, q1, #90\n"
            "vadd.f32 q2, q2, q3\n"
            "vadd.f32 q0, q4, q2\n"
            "vstrw.32 q0, [%[a]], #16\n"
            "vsub.f32 q4, q4, q2\n"
            "vstrw.32 q4, [%[b]], #16\n"
            "le lr, 1b\n"
            : [a] "+r"(a), [b] "+r"(b), [w] "+r"(w)
            : [count] "r"(length / 2)
            : "lr", "q0", "q1", "q2", "q3", "q4", "memory");
    }
    return 1;
}

static APART int radix_any_in_vectors(float *z, int points, int radix, int length, const float *roots) {
    const uint32_t apart = 8 * (uint32_t)(radix - 1);
    const uint32_t of_twiddles[] = {0, 4, apart, apart + 4};
    const uint32x4_t next = vld1q_u32(of_twiddles);
    float32x4_t taken[LARGEST_RADIX];
    int step = 2 * length, half = radix / 2;
    if (length & 1) return 0;
    for (float *block = z; block < z + 2 * points; block += radix * step) {
        const float *w = roots + 2 * radix;
        for (float *a = block; a < block + step; a += 4, w += 4 * (radix - 1)) {
            float32x4_t all = vld1q_f32(a);
            taken[0] = all;
            for (int q = 1; q <= half; q++) {
                const float *by = w - 2;
                float32x4_t one = turned(vld1q_f32(a + q * step), vldrwq_gather_offset_f32(by + 2 * q, next));
                float32x4_t other = turned(vld1q_f32(a + (radix - q) * step),
                                           vldrwq_gather_offset_f32(by + 2 * (radix - q), next));
                taken[q] = vaddq_f32(one, other), taken[radix - q] = vsubq_f32(one, other);
                all = vaddq_f32(all, taken[q]);
            }
            vst1q_f32(a, all);
            for (int k = 1; k <= half; k++) {
                float32x4_t sum = taken[0], turns = vdupq_n_f32(0.0f);
                const float32x4_t *one = taken + 1, *other = taken + radix - 1;
                for (int q = 1, root = k; q <= half; q++) {
                    sum = vaddq_f32(sum, vmulq_n_f32(*one++, roots[2 * root]));
                    turns = vaddq_f32(turns, vmulq_n_f32(*other--, roots[2 * root + 1]));
                    root += k;
                    if (root >= radix) root -= radix;
                }
                vst1q_f32(a + k * step, vcaddq_rot90_f32(sum, turns));
                vst1q_f32(a + (radix - k) * step, vcaddq_rot270_f32(sum, turns));
            }
        }
    }
    return 1;
}

/* Powers of some bins from 1 on and of their mirrors, four and four. Returns the first bin that is left. */
static int powers_in_vectors(const edgekd_log_mel *front_end, float *z) {
    int points = front_end->points, fours = (points - 1) / 8;
    const float *w = front_end->rotations + 2;
    const uint32_t last = (uint32_t)(uintptr_t)(z + 2 * points) + 24;
    const uint32_t mirrors[] = {last, last - 8, last - 16, last - 24};
    z += 2;
    if (fours > 0)
        __asm__ volatile(
            "vldrw.u32 q7, [%[mirrors]]\n"
            "dls lr, %[fours]\n"
            "1:\n"
            "vldrw.u32 q2, [q7, #-32]!\n"
            "vld20.32 {q0, q1}, [%[z]]\n"
            "vldrw.u32 q3, [q7, #4]\n"
            "vld21.32 {q0, q1}, [%[z]]\n"
            "vadd.f32 q4, q0, q2\n" /* even */
            "vsub.f32 q2, q2, q0\n" /* odd, imaginary */
            "vsub.f32 q5, q1, q3\n"
            "vadd.f32 q3, q1, q3\n"
            "vld20.32 {q0, q1}, [%[w]]\n"
            "vld21.32 {q0, q1}, [%[w]]!\n"
            "vmul.f32 q6, q3, q0\n"
            "vmul.f32 q0, q2, q0\n"
            "vmul.f32 q3, q3, q1\n"
            "vmul.f32 q2, q2, q1\n"
            "vadd.f32 q0, q3, q0\n" /* turned, imaginary */
            "vsub.f32 q6, q6, q2\n"
            "vadd.f32 q2, q5, q0\n" /* here */
            "vadd.f32 q1, q4, q6\n"
            "vsub.f32 q5, q5, q0\n" /* there */
            "vsub.f32 q4, q4, q6\n"
            "vmul.f32 q0, q2, q2\n"
            "vmul.f32 q1, q1, q1\n"
            "vmul.f32 q5, q5, q5\n"
            "vmul.f32 q4, q4, q4\n"
            "vadd.f32 q1, q1, q0\n"
            "vadd.f32 q4, q4, q5\n"
            "vst20.32 {q1, q2}, [%[z]]\n" /* what lies between powers does not matter */
            "vst21.32 {q1, q2}, [%[z]]!\n"
            "vstrw.32 q4, [q7]\n"
            "le lr, 1b\n"
            : [z] "+r"(z), [w] "+r"(w)
            : [mirrors] "r"(mirrors), [fours] "r"(fours)
            : "lr", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "memory");
    return 1 + 4 * fours;
}

/* Roots of some powers from the first on. Returns the first that is left. */
static int roots_in_vectors(float *z, int count) {
    const uint32_t first = (uint32_t)(uintptr_t)z - 32;
    const uint32_t addresses[] = {first, first + 8, first + 16, first + 24};
    if (count >= 4)
        __asm__ volatile(
            "vldrw.u32 q7, [%[addresses]]\n"
            "dls lr, %[fours]\n"
            "1:\n"
            "vldrw.u32 q0, [q7, #32]!\n"
            "vsqrt.f32 s0, s0\n"
            "vsqrt.f32 s1, s1\n"
            "vsqrt.f32 s2, s2\n"
            "vsqrt.f32 s3, s3\n"
            "vstrw.32 q0, [q7]\n"
            "le lr, 1b\n"
            :
            : [addresses] "r"(addresses), [fours] "r"(count / 4)
            : "lr", "q0", "q7", "memory");
    return count & ~3;
}

/* What four filters hear, each in the order of its bins. Returns where the next filter lies. */
static const float *heard_by_four(const edgekd_log_mel *front_end, int mel, const float *filter, const float *spectrum,
                                  float32x4_t *heard) {
    const uint16_t *first = front_end->first + mel, *count = front_end->count + mel;
    uint32_t most = 0, carried = 0, last = 0;
    register float32x4_t sums __asm__("q2");
    __asm__ volatile(
        "vldrh.u32 q5, [%[count]]\n"
        "vldrh.u32 q3, [%[first]]\n"
        "vmov q4, q5\n"
        "vmaxv.u32 %[most], q5\n"
        "vshlc q4, %[last], #32\n" /* counts before each: c0, c0 + c1, c0 + c1 + c2 */
        "vmov.i32 q2, #0\n"
        "vmov q0, q4\n"
        "vshl.i32 q3, q3, #3\n"
        "vshlc q0, %[carried], #32\n"
        "vadd.i32 q3, q3, %[spectrum]\n"
        "vadd.i32 q4, q4, q0\n"
        "mov %[carried], #0\n"
        "vshlc q0, %[carried], #32\n"
        "vadd.i32 q4, q4, q0\n"
        "vshl.i32 q4, q4, #2\n"
        "vadd.i32 q4, q4, %[filter]\n"
        "vmov.32 %[carried], q4[3]\n"
        "add %[filter], %[carried], %[last], lsl #2\n"
        "mov %[carried], #0\n"
        "wls lr, %[most], 2f\n"
        "1:\n"
        "vptttt.s32 gt, q5, %[carried]\n"
        "vldrwt.u32 q0, [q3, #8]!\n"
        "vldrwt.u32 q1, [q4, #4]!\n"
        "vmult.f32 q0, q0, q1\n"
        "vaddt.f32 q2, q2, q0\n"
        "add %[carried], #1\n"
        "le lr, 1b\n"
        "2:\n"
        : "=w"(sums), [most] "+r"(most), [carried] "+r"(carried), [last] "+r"(last), [filter] "+r"(filter)
        : [count] "l"(count), [first] "l"(first), [spectrum] "r"(spectrum - 2)
        : "lr", "q0", "q1", "q3", "q4", "q5", "cc", "memory");
    *heard = sums;
    return filter;
}

static float32x4_t quotients(float32x4_t dividends, float32x4_t divisors) {
    register float32x4_t a __asm__("q0") = dividends;
    register float32x4_t b __asm__("q1") = divisors;
    __asm__("vdiv.f32 s0, s0, s4\n"
            "vdiv.f32 s1, s1, s5\n"
            "vdiv.f32 s2, s2, s6\n"
            "vdiv.f32 s3, s3, s7\n"
            : "+w"(a)
            : "w"(b));
    return a;
}

/* As binary_logarithm. */
static float32x4_t binary_logarithms(float32x4_t x) {
    int32x4_t bits = vreinterpretq_s32_f32(x);
    int32x4_t exponents = vshrq_n_s32(vsubq_n_s32(bits, 0x3F3504F3), 23);
    float32x4_t s, square, sum;
    x = vreinterpretq_f32_s32(vsubq_s32(bits, vshlq_n_s32(exponents, 23)));
    s = quotients(vsubq_n_f32(x, 1.0f), vaddq_n_f32(x, 1.0f));
    square = vmulq_f32(s, s);
    sum = vaddq_n_f32(vmulq_n_f32(square, LOGARITHM_7), LOGARITHM_5);
    sum = vaddq_n_f32(vmulq_f32(square, sum), LOGARITHM_3);
    sum = vaddq_n_f32(vmulq_f32(square, sum), LOGARITHM_1);
    return vaddq_f32(vcvtq_f32_s32(exponents), vmulq_f32(s, sum));
}

/* The logarithms of what four filters hear. Returns where the next filter lies. */
static const float *levels_of_four(const edgekd_log_mel *front_end, int mel, const float *filter, const float *spectrum,
                                   float32x4_t *levels) {
    float32x4_t heard;
    filter = heard_by_four(front_end, mel, filter, spectrum, &heard);
    if (front_end->of_magnitudes)
        heard = vaddq_n_f32(heard, front_end->least);
    else
        heard = vmaxnmq_f32(heard, vdupq_n_f32(front_end->least));
    *levels = binary_logarithms(heard);
    return filter;
}

/* Values of a row, as long as four filters end with one. Returns the first filter that is left. */
static int row_in_vectors(const edgekd_log_mel *front_end, const float *spectrum, const float **filter, float *row) {
    const float *factor = front_end->factor, *offset = front_end->offset, *before = *filter - 1;
    int each = 0, averaged = front_end->bins_per_step, end = front_end->mels / (4 * averaged) * (4 * averaged);
    float sum = 0.0f, single[4];
    float32x4_t levels;
    for (int mel = 0; mel < end; mel += 4) {
        before = levels_of_four(front_end, mel, before, spectrum, &levels);
        if (averaged == 1) {
            vst1q_f32(row + mel, vaddq_f32(vmulq_f32(vld1q_f32(factor + mel), levels), vld1q_f32(offset + mel)));
            continue;
        }
        vst1q_f32(single, levels);
        for (int i = 0; i < 4; i++) {
            sum += single[i];
            if (++each < averaged) continue;
            *row++ = *factor++ * sum + *offset++;
            sum = 0.0f, each = 0;
        }
    }
    *filter = before + 1;
    return end;
}

#endif
