#include "edgekd_model.h"

#if EDGEKD_FIXED_POINT
#include <string.h>

#define LARGEST_RADIX 16

/* Cores that have no product of 64 bits take two of 32 in its place: the same number. */
#if !defined(EDGEKD_NARROW) && defined(__ARM_ARCH_ISA_THUMB) && __ARM_ARCH_ISA_THUMB == 1
#define EDGEKD_NARROW 1
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

/* z[0] + i z[1], times w[0] + i w[1] over 2^15, each part rounded once; a magnitude below 2^30. */
static inline void turn(int32_t *z, int32_t re, int32_t im, int32_t w_r, int32_t w_i) {
#if EDGEKD_NARROW
    int32_t re_low = re & 0x7FFF, im_low = im & 0x7FFF;
    re >>= 15, im >>= 15;
    z[0] = re * w_r - im * w_i + ((re_low * w_r - im_low * w_i + 0x4000) >> 15);
    z[1] = re * w_i + im * w_r + ((re_low * w_i + im_low * w_r + 0x4000) >> 15);
#else
    z[0] = (int32_t)(((int64_t)re * w_r - (int64_t)im * w_i + 0x4000) >> 15);
    z[1] = (int32_t)(((int64_t)re * w_i + (int64_t)im * w_r + 0x4000) >> 15);
#endif
}

/* Samples of the frame, times the window, where the transform wants them. Returns the bits that their magnitudes have. */
static int load(const edgekd_fixed_log_mel *front_end, const int16_t *samples, int ring, int start, int before, int after,
                int32_t *spectrum) {
    const uint16_t *window = front_end->window, *order = front_end->order;
    int length = front_end->window_length, last = length - 1 - after;
    uint32_t all = 0;
    if (length < 2 * front_end->points) memset(spectrum, 0, 2u * front_end->points * sizeof *spectrum);
    if (before == 0 && after == 0) {
        const int16_t *from = samples + start, *end = samples + ring;
        for (int left = length; left > 0; left -= 2, order++) {
            int32_t *to = spectrum + 2 * *order;
            int32_t value = *from++ * (int32_t)*window++;
            if (from == end) from = samples;
            all |= (uint32_t)(value ^ (value >> 31));
            to[0] = value;
            if (left == 1) break;
            value = *from++ * (int32_t)*window++;
            if (from == end) from = samples;
            all |= (uint32_t)(value ^ (value >> 31));
            to[1] = value;
        }
        return length_of(all);
    }
    for (int n = 0; n < length; n++) {
        int place = n < before ? 2 * before - n : n > last ? 2 * last - n : n;
        int32_t value;
        place += start; /* one sample beyond the frame's other end may be meant */
        if (place >= ring) place -= ring;
        if (place < 0) place += ring;
        value = samples[place] * (int32_t)window[n];
        all |= (uint32_t)(value ^ (value >> 31));
        spectrum[2 * order[n >> 1] + (n & 1)] = value;
    }
    return length_of(all);
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
static void quarters(int32_t *z, int points, int length) {
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

/* Times the factors of a stage: those of the first number of each block are 1, and not among them. */
static const int16_t *twist(int32_t *z, int points, int radix, int length, const int16_t *w) {
    int step = 2 * length, block = radix * step;
    int32_t *end = z + 2 * points;
    for (int j = 1; j < length; j++)
        for (int q = 1; q < radix; q++, w += 2) {
            int32_t w_r = w[0], w_i = w[1];
            for (int32_t *a = z + 2 * j + q * step; a < end; a += block) turn(a, a[0], a[1], w_r, w_i);
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
    const int16_t *w = front_end->rotations;
    int points = front_end->points;
    int32_t *a = z + 2, *b = z + 2 * (points - 1);
    int32_t first = 2 * (z[0] + z[1]), last = 2 * (z[0] - z[1]);
    for (; a <= b; a += 2, b -= 2, w += 2) {
        int32_t even_r = a[0] + b[0], even_i = a[1] - b[1], turned[2];
        turn(turned, a[1] + b[1], b[0] - a[0], w[0], w[1]);
        square(b, even_r - turned[0], even_i - turned[1]);
        square(a, even_r + turned[0], even_i + turned[1]);
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

/* A number of 64 bits as one of at most `most` and how many bits of it were left out. */
static inline uint32_t high_bits(uint64_t x, int left_out) {
    return left_out >= 32 ? (uint32_t)(x >> 32) >> (left_out - 32) : (uint32_t)(x >> left_out);
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

/* What the two filters hear that share the bins from one edge to the next, in units of 2^left_out: the rise of one, in
 * which weights grow by 1 a bin, and the fall of the other. */
typedef struct {
    uint32_t rise, fall;
    int left_out;
} slopes;

static slopes between_edges(const uint32_t *power, uint32_t count, uint32_t before, uint32_t behind) {
    uint64_t sum = 0, falling = 0;
    slopes found;
    uint32_t all, part, most;
    for (const uint32_t *end = power + 2 * count; power < end; power += 2) {
        falling += sum;
        sum += ((uint64_t)power[1] << 32) | power[0];
    }
    found.left_out = length_of_64(sum) + length_of(count) - 32;
    if (found.left_out < 0) found.left_out = 0;
    all = high_bits(sum, found.left_out);
    part = high_bits(falling, found.left_out);
    most = count ? (count - 1) * all : 0;
    found.rise = (most > part ? most - part : 0) + portion(all, before);
    found.fall = part + portion(all, behind);
    return found;
}

/* Logarithms of what the filters hear of powers. */
static void of_powers(const edgekd_fixed_log_mel *front_end, int mels, const int32_t *spectrum, int exponent,
                      int32_t *row) {
    const uint32_t *power = (const uint32_t *)spectrum + 2 * front_end->first[0];
    const uint16_t *count = front_end->count;
    slopes here = between_edges(power, count[0], front_end->rising[0], front_end->falling[0]), next;
    for (int mel = 0, step = 0, each = 0; mel < mels; mel++, here = next) {
        uint32_t rise = portion(here.rise, front_end->up[mel]), fall;
        int left_out = here.left_out;
        int32_t level = front_end->least;
        power += 2 * count[mel];
        next = between_edges(power, count[mel + 1], front_end->rising[mel + 1], front_end->falling[mel + 1]);
        fall = portion(next.fall, front_end->down[mel]);
        if (next.left_out > left_out) {
            int less = next.left_out - left_out;
            rise = less < 32 ? rise >> less : 0;
            left_out = next.left_out;
        } else {
            int less = left_out - next.left_out;
            fall = less < 32 ? fall >> less : 0;
        }
        rise += fall;
        if (rise) {
            int32_t heard = logarithm(front_end->logarithms, rise);
            heard += (left_out + 2 * exponent - front_end->shift[mel]) * 65536;
            if (heard > level) level = heard;
        }
        row[step] += level;
        if (++each == front_end->bins_per_step) each = 0, step++;
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
