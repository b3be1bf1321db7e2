#include "edgekd_core.h"
#include "edgekd_model.h"

#if EDGEKD_FIXED_POINT
#include <string.h>

#define LARGEST_RADIX 16

/* Cores that have no product of 64 bits take two of 32 in its place: the same number. */
#ifndef EDGEKD_NARROW
#define EDGEKD_NARROW EDGEKD_SMALL_CORE
#endif
#if EDGEKD_SMALL_CORE && defined(__GNUC__)
#define THUMB_1 1
#endif

static int length_of(uint32_t x) {
#ifdef __GNUC__
    return x ? 32 - __builtin_clz(x) : 0;
#else
    int bits = 0;
    for (; x; x >>= 1) bits++;
    return bits;
#endif
}

/* value * w / 2^15, rounded; |value| < 2^30, |w| <= 2^15. */
static inline int32_t share(int32_t value, int32_t w) {
#if EDGEKD_NARROW
    return (value >> 15) * w + (((value & 0x7FFF) * w + 0x4000) >> 15);
#else
    return (int32_t)(((int64_t)value * w + 0x4000) >> 15);
#endif
}

/* Numbers z[0] + i z[1], each `stride` bytes beyond the one before it and less than `bytes` beyond the first, times
 * w[0] + i w[1] over 2^15, each part rounded once; magnitudes below 2^30. From one to the next w goes on by `w_stride`
 * bytes. */
#if THUMB_1
/* r1, r2: the number; r3, r4: its lower 15 bits; r6, r7: w. A shift leaves the bit to be rounded by in the carry. */
__attribute__((naked, noinline)) static void turns(int32_t *z, int bytes, int stride, const int16_t *w, int w_stride) {
    (void)z, (void)bytes, (void)stride, (void)w, (void)w_stride;
    __asm__(".syntax unified\n"
            "push {r4-r7, lr}\nmov r4, r8\nmov r5, r9\nmov r6, r10\nmov r7, r11\npush {r4-r7}\n"
            "ldr r4, [sp, #36]\nadds r1, r1, r0\nmov r8, r1\nmov r9, r2\nmov r10, r3\nmov r11, r4\n"
            "1: mov r5, r10\nmovs r7, #0\n"
            "ldrsh r6, [r5, r7]\nmovs r7, #2\nldrsh r7, [r5, r7]\nadd r5, r11\nmov r10, r5\nldr r1, [r0]\n"
            "ldr r2, [r0, #4]\nlsls r3, r1, #17\nlsrs r3, r3, #17\nasrs r1, r1, #15\nlsls r4, r2, #17\n"
            "lsrs r4, r4, #17\nasrs r2, r2, #15\nmovs r5, r7\nmuls r5, r4, r5\nmuls r4, r6, r4\nmov r12, r5\n"
            "movs r5, r7\nmuls r5, r3, r5\nmuls r3, r6, r3\nadds r4, r4, r5\nmov r5, r12\nsubs r3, r3, r5\n"
            "movs r5, r7\nmuls r5, r1, r5\nmuls r1, r6, r1\nasrs r4, r4, #15\nadcs r4, r4, r5\nmovs r5, r7\n"
            "muls r5, r2, r5\nsubs r1, r1, r5\nmuls r2, r6, r2\nadds r2, r2, r4\nasrs r3, r3, #15\n"
            "adcs r1, r1, r3\nstr r1, [r0]\nstr r2, [r0, #4]\nadd r0, r9\ncmp r0, r8\nbcc 1b\npop {r4-r7}\n"
            "mov r8, r4\nmov r9, r5\nmov r10, r6\nmov r11, r7\npop {r4-r7, pc}");
}
#else
static void turns(int32_t *z, int bytes, int stride, const int16_t *w, int w_stride) {
    for (int at = 0, turn = 0; at < bytes / 4; at += stride / 4, turn += w_stride / 2) {
        int32_t re = z[at], im = z[at + 1], w_r = w[turn], w_i = w[turn + 1];
#if EDGEKD_NARROW
        int32_t low_r = re & 0x7FFF, low_i = im & 0x7FFF;
        re >>= 15, im >>= 15;
        z[at] = re * w_r - im * w_i + ((low_r * w_r - low_i * w_i + 0x4000) >> 15);
        z[at + 1] = re * w_i + im * w_r + ((low_r * w_i + low_i * w_r + 0x4000) >> 15);
#else
        z[at] = (int32_t)(((int64_t)re * w_r - (int64_t)im * w_i + 0x4000) >> 15);
        z[at + 1] = (int32_t)(((int64_t)re * w_i + (int64_t)im * w_r + 0x4000) >> 15);
#endif
    }
}
#endif

/* A sample times the window, to where the transform wants it. Returns what bits its magnitude has. */
static inline uint32_t weigh(int16_t sample, uint16_t window, int32_t *to) {
    int32_t value = *to = sample * (int32_t)window;
    return (uint32_t)(value ^ (value >> 31));
}

/* Samples `n` to `end` of the frame, that lie in a row from `from` on. */
APART static uint32_t weigh_all(const edgekd_fixed_log_mel *front_end, const int16_t *from, int n, int end,
                                int32_t *z) {
    const uint16_t *window = front_end->window + n, *order = front_end->order + n / 2, *last = window + (end - n);
    uint32_t bits = 0;
    if (n & 1 && n < end) bits = weigh(*from++, *window++, z + 2 * *order++ + 1);
    for (last--; window < last; from += 2, window += 2) {
        int32_t *to = z + 2 * *order++;
        bits |= weigh(from[0], window[0], to) | weigh(from[1], window[1], to + 1);
    }
    if (window == last) bits |= weigh(*from, *window, z + 2 * *order);
    return bits;
}

/* Samples of the frame, times the window, where the transform wants them. Returns how many bits the largest has. */
static int load(const edgekd_fixed_log_mel *front_end, const int16_t *samples, int ring, int start, int before,
                int after, int32_t *z) {
    int length = front_end->window_length, last = length - 1 - after;
    uint32_t bits = 0;
    if (length < 2 * front_end->points) memset(z, 0, 2u * front_end->points * sizeof *z);
    if (before == 0 && after == 0) {
        int run = ring - start < length ? ring - start : length;
        bits = weigh_all(front_end, samples + start, 0, run, z);
        return length_of(bits | weigh_all(front_end, samples, run, length, z));
    }
    for (int n = 0; n < length; n++) {
        int16_t sample = samples[edgekd_place(n, before, last, start, ring)];
        bits |= weigh(sample, front_end->window[n], z + 2 * front_end->order[n >> 1] + (n & 1));
    }
    return length_of(bits);
}

/* Over 2^exponent, rounded. */
static void scale(int32_t *z, int points, int exponent) {
    int32_t *end = z + 2 * points;
    if (exponent > 0)
        for (int32_t half = 1 << (exponent - 1); z < end; z++) *z = (*z + half) >> exponent;
    else
        for (int32_t by = 1 << -exponent; z < end; z++) *z *= by;
}

/* All butterflies of radix 4 of a stage, without factors. */
#if THUMB_1
/* r0 to r3: the first of four numbers, and by how many bytes the others are beyond it; r10: where the block's first
 * quarter ends; r11: where all end. Real parts first, then imaginary ones. */
__attribute__((naked, noinline)) static void quarters(int32_t *z, int points, int length) {
    (void)z, (void)points, (void)length;
    __asm__(".syntax unified\n"
            "push {r4-r7, lr}\nmov r4, r8\nmov r5, r9\nmov r6, r10\nmov r7, r11\npush {r4-r7}\n"
            "lsls r1, r1, #3\nadds r1, r1, r0\nmov r11, r1\nlsls r1, r2, #3\nlsls r2, r2, #4\n"
            "adds r3, r1, r2\n1: adds r4, r0, r1\nmov r10, r4\n2: ldr r4, [r0]\nldr r5, [r0, r2]\n"
            "adds r6, r4, r5\nsubs r4, r4, r5\nldr r5, [r0, r1]\nldr r7, [r0, r3]\nadds r7, r7, r5\n"
            "lsls r5, r5, #1\nsubs r5, r7, r5\nadds r6, r6, r7\nstr r6, [r0]\nlsls r7, r7, #1\n"
            "subs r6, r6, r7\nstr r6, [r0, r2]\nmov r8, r4\nmov r9, r5\nadds r0, #4\nldr r4, [r0]\n"
            "ldr r5, [r0, r2]\nadds r6, r4, r5\nsubs r4, r4, r5\nldr r5, [r0, r1]\nldr r7, [r0, r3]\n"
            "adds r7, r7, r5\nlsls r5, r5, #1\nsubs r5, r5, r7\nadds r6, r6, r7\nstr r6, [r0]\n"
            "lsls r7, r7, #1\nsubs r6, r6, r7\nstr r6, [r0, r2]\nmov r6, r9\nadds r7, r4, r6\n"
            "str r7, [r0, r1]\nsubs r7, r4, r6\nstr r7, [r0, r3]\nsubs r0, #4\nmov r6, r8\n"
            "adds r7, r6, r5\nstr r7, [r0, r1]\nsubs r7, r6, r5\nstr r7, [r0, r3]\nadds r0, #8\n"
            "cmp r0, r10\nbne 2b\nadds r0, r0, r3\ncmp r0, r11\nbne 1b\npop {r4-r7}\nmov r8, r4\n"
            "mov r9, r5\nmov r10, r6\nmov r11, r7\npop {r4-r7, pc}");
}
#else
APART static void quarters(int32_t *z, int points, int length) {
    int32_t *end = z + 2 * points;
    int step = 2 * length;
    for (; z < end; z += 3 * step)
        for (int32_t *last = z + step; z < last; z += 2) {
            int32_t *b = z + step, *c = b + step, *d = c + step;
            int32_t sum = z[0] + c[0], difference = z[0] - c[0], other = b[0] + d[0], turned = d[0] - b[0];
            int32_t sum_i = z[1] + c[1], difference_i = z[1] - c[1], other_i = b[1] + d[1], turned_i = b[1] - d[1];
            z[0] = sum + other, c[0] = sum - other;
            b[1] = difference_i + turned, d[1] = difference_i - turned;
            z[1] = sum_i + other_i, c[1] = sum_i - other_i;
            b[0] = difference + turned_i, d[0] = difference - turned_i;
        }
}
#endif

static void halves(int32_t *z, int points, int length) {
    int32_t *end = z + 2 * points;
    int step = 2 * length;
    for (; z < end; z += step)
        for (int32_t *last = z + step; z < last; z++) {
            int32_t a = z[0], b = z[step];
            z[0] = a + b, z[step] = a - b;
        }
}

/* Butterflies of an odd radix: terms q and radix - q go together. */
static void odd(int32_t *z, int points, int radix, int length, const int16_t *roots) {
    int32_t sums[LARGEST_RADIX], differences[LARGEST_RADIX];
    int step = 2 * length, half = radix / 2;
    for (int32_t *end = z + 2 * points; z < end; z += (radix - 1) * step)
        for (int32_t *block = z + step; z < block; z += 2) {
            int32_t first = z[0], first_i = z[1], all = first, all_i = first_i;
            for (int q = 1; q <= half; q++) {
                const int32_t *a = z + q * step, *b = z + (radix - q) * step;
                all += sums[2 * q] = a[0] + b[0], all_i += sums[2 * q + 1] = a[1] + b[1];
                differences[2 * q] = a[0] - b[0], differences[2 * q + 1] = a[1] - b[1];
            }
            z[0] = all, z[1] = all_i;
            for (int k = 1; k <= half; k++) {
                int32_t re = first, im = first_i, turned = 0, turned_i = 0;
                for (int q = 1, at = k; q <= half; q++) {
                    int32_t cosine = roots[2 * at], sine = roots[2 * at + 1];
                    re += share(sums[2 * q], cosine), im += share(sums[2 * q + 1], cosine);
                    turned += share(differences[2 * q], sine), turned_i += share(differences[2 * q + 1], sine);
                    at += k;
                    if (at >= radix) at -= radix;
                }
                z[k * step] = re - turned_i, z[k * step + 1] = im + turned;
                z[(radix - k) * step] = re + turned_i, z[(radix - k) * step + 1] = im - turned;
            }
        }
}

/* Times the factors of a stage: those of the first number of each block are 1, and not among them. Along the blocks, or
 * across them where they are more than a block has numbers. */
static const int16_t *twist(int32_t *z, int points, int radix, int length, const int16_t *w) {
    int words = 2 * points, block = 2 * radix * length, others = length - 1;
    for (int q = 1; others && q < radix; q++, w += 2 * others) {
        int first = 2 * (q * length + 1);
        if (words / block < others)
            for (; first < words; first += block) turns(z + first, 8 * others, 8, w, 4);
        else
            for (int j = 0; j < others; j++, first += 2) turns(z + first, 4 * (words - first), 4 * block, w + 2 * j, 0);
    }
    return w;
}

static void transform(const edgekd_fixed_log_mel *front_end, int32_t *z) {
    const int16_t *twiddles = front_end->twiddles;
    int points = front_end->points;
    for (int stage = 0, length = 1; stage < front_end->stages; stage++) {
        int radix = front_end->radices[stage];
        const int16_t *roots = twiddles;
        if (radix != 4 && radix != 2) twiddles += 2 * radix;
        twiddles = twist(z, points, radix, length, twiddles);
        if (radix == 4)
            quarters(z, points, length);
        else if (radix == 2)
            halves(z, points, length);
        else
            odd(z, points, radix, length, roots);
        length *= radix;
    }
}

/* The square of a magnitude below 2^30, in two words. */
static inline void square(int32_t *into, int32_t re, int32_t im) {
    uint32_t *words = (uint32_t *)into;
#if EDGEKD_NARROW
    int32_t re_low = re & 0x7FFF, im_low = im & 0x7FFF, middle;
    uint32_t high, low;
    re >>= 15, im >>= 15;
    high = (uint32_t)(re * re) + (uint32_t)(im * im);
    middle = re * re_low + im * im_low;
    low = (uint32_t)(re_low * re_low) + (uint32_t)(im_low * im_low);
    uint64_t power = ((uint64_t)high << 30) + (uint64_t)((int64_t)middle * 65536) + low;
#else
    uint64_t power = (uint64_t)((int64_t)re * re) + (uint64_t)((int64_t)im * im);
#endif
    words[0] = (uint32_t)power, words[1] = (uint32_t)(power >> 32);
}

/* Powers of twice the real samples' spectrum, of bin k in z[2 k] and z[2 k + 1], from the transform of its halves. */
static void powers(const edgekd_fixed_log_mel *front_end, int32_t *z) {
    int points = front_end->points;
    int32_t first = 2 * (z[0] + z[1]), last = 2 * (z[0] - z[1]), *a, *b;
    for (a = z + 2, b = z + 2 * (points - 1); a < b; a += 2, b -= 2) { /* of even samples in b, of odd ones in a */
        int32_t re = a[0], im = a[1];
        a[0] = im + b[1], a[1] = b[0] - re;
        b[0] += re, b[1] = im - b[1];
    }
    turns(z + 2, (int)(a - (z + 2)) * 4, 8, front_end->rotations, 4);
    if (a == b) square(a, 2 * a[0], 2 * a[1]); /* turned by -i, and its own other half */
    while (a > z + 2) {
        int32_t re, im;
        a -= 2, b += 2, re = a[0], im = a[1];
        square(a, b[0] + re, b[1] + im), square(b, b[0] - re, b[1] - im);
    }
    square(z, first, 0);
    square(z + 2 * points, last, 0);
}

/* The binary logarithm of a positive number, in units of 2^-16. */
static int32_t logarithm(const uint16_t *table, uint32_t x) {
    int bits = length_of(x);
    const uint16_t *near = table + ((x <<= 32 - bits) >> 25) - 64;
    return (bits - 1) * 65536 + near[0] + (int32_t)(((uint32_t)(near[1] - near[0]) * ((x >> 9) & 0xFFFF)) >> 16);
}

/* x / 2^left_out, of which 32 bits are left. */
static inline uint32_t high_bits(uint64_t x, int left_out) {
    uint32_t high = (uint32_t)(x >> 32);
    if (left_out >= 32) return high >> (left_out - 32);
    return left_out ? high << (32 - left_out) | (uint32_t)x >> left_out : (uint32_t)x;
}

static inline int length_of_64(uint64_t x) {
    uint32_t high = (uint32_t)(x >> 32);
    return high ? 32 + length_of(high) : length_of((uint32_t)x);
}

/* value * by / 2^16. */
static inline uint32_t portion(uint32_t value, uint32_t by) {
#if EDGEKD_NARROW
    return (value >> 16) * by + (((value & 0xFFFF) * by) >> 16);
#else
    return (uint32_t)(((uint64_t)value * by) >> 16);
#endif
}

/* Logarithms of what the filters hear of powers: between two edges one rises, by weights that grow by 1 a bin, and the
 * one before it falls. */
APART static void of_powers(const edgekd_fixed_log_mel *front_end, int mels, const int32_t *spectrum, int exponent,
                            int32_t *row) {
    const uint32_t *power = (const uint32_t *)spectrum + 2 * front_end->first[0];
    int edge_bits = front_end->count_bits - 32, each = 0, before = 0;
    uint32_t heard = 0; /* by the filter that rose between the two edges before, in units of 2^before */
    for (int edge = 0; edge <= mels; edge++) {
        uint64_t sum = 0, falling = 0;
        uint32_t count = front_end->count[edge], all, part, most;
        int left_out;
        for (const uint32_t *end = power + 2 * count; power < end; power += 2) {
            falling += sum;
            sum += ((uint64_t)power[1] << 32) | power[0];
        }
        left_out = length_of_64(sum) + edge_bits;
        if (left_out < 0) left_out = 0;
        all = high_bits(sum, left_out);
        part = high_bits(falling, left_out);
        if (edge) {
            uint32_t fall = portion(part + portion(all, front_end->falling[edge]), front_end->down[edge - 1]);
            int32_t level = front_end->least;
            int less = left_out - before;
            if (less >= 0)
                heard = less < 32 ? heard >> less : 0;
            else
                fall = less > -32 ? fall >> -less : 0;
            heard += fall;
            if (heard) {
                int32_t found = logarithm(front_end->logarithms, heard);
                found += ((less >= 0 ? left_out : before) + 2 * exponent - front_end->shift[edge - 1]) * 65536;
                if (found > level) level = found;
            }
            *row += level;
            if (++each == front_end->bins_per_step) each = 0, row++;
        }
        most = count ? (count - 1) * all : 0;
        heard = (most > part ? most - part : 0) + portion(all, front_end->rising[edge]);
        if (edge < mels) heard = portion(heard, front_end->up[edge]);
        before = left_out;
    }
}

/* The square root of a number in two words, by a table. */
static uint32_t root(const uint16_t *table, const uint32_t *words) {
    uint64_t x = ((uint64_t)words[1] << 32) | words[0];
    int bits = length_of_64(x), half = (bits + (bits & 1)) / 2 - 16;
    uint32_t m, between;
    const uint16_t *near;
    if (!bits) return 0;
    m = half < 0 ? words[0] << (-2 * half) : high_bits(x, 2 * half);
    near = table + (m >> 25) - 32;
    between = near[0] + (((uint32_t)(near[1] - near[0]) * ((m >> 9) & 0xFFFF)) >> 16);
    return half >= 0 ? between << half : (between + (1u << (-half - 1))) >> -half;
}

/* Logarithms of what the filters hear of magnitudes, plus the least. */
static void of_magnitudes(const edgekd_fixed_log_mel *front_end, int mels, int32_t *spectrum, int exponent,
                          int32_t *row) {
    uint32_t *magnitude = (uint32_t *)spectrum;
    const uint16_t *filter = front_end->filters;
    int shift = front_end->least_exponent - exponent, less = 0;
    uint32_t least;
    if (shift > 14) less = shift - 14, shift = 14;
    if (shift < -15) shift = -15; /* the least has 16 bits: something is left of it */
    least = shift >= 0 ? (uint32_t)front_end->least << shift : (uint32_t)front_end->least >> -shift;
    for (int k = 0; k <= front_end->points; k++) magnitude[k] = root(front_end->roots, magnitude + 2 * k);
    for (int mel = 0, step = 0, each = 0; mel < mels; mel++) {
        const uint32_t *from = magnitude + front_end->first[mel];
        uint32_t heard = 0;
        for (const uint16_t *end = filter + front_end->count[mel]; filter < end;) heard += portion(*from++, *filter++);
        heard = (less < 32 ? heard >> less : 0) + least;
        if (!heard) heard = 1; /* weights that add up to more than 1 have it wrap: 0 has no logarithm */
        row[step] += logarithm(front_end->logarithms, heard) + (less + exponent) * 65536;
        if (++each == front_end->bins_per_step) each = 0, step++;
    }
}

void edgekd_fixed_log_mel_row(const edgekd_fixed_log_mel *front_end, const int16_t *samples, int ring, int start,
                              int before, int after, int32_t *spectrum, int32_t *row) {
    int steps = front_end->mels / front_end->bins_per_step, mels = steps * front_end->bins_per_step;
    int exponent = load(front_end, samples, ring, start, before, after, spectrum) - front_end->bits;
    scale(spectrum, front_end->points, exponent);
    transform(front_end, spectrum);
    powers(front_end, spectrum);
    memset(row, 0, (unsigned)steps * sizeof *row);
    if (front_end->of_magnitudes)
        of_magnitudes(front_end, mels, spectrum, exponent, row);
    else
        of_powers(front_end, mels, spectrum, exponent, row);
    for (int step = 0; step < steps; step++)
        row[step] = share(row[step], front_end->factor[step]) + front_end->offset[step];
}
#endif
