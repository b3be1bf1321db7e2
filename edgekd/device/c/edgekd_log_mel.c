#include "edgekd_exact.h"

#include "edgekd_core.h"
#include "edgekd_model.h"

#if !EDGEKD_FIXED_POINT
#include <math.h>
#include <string.h>

#define LARGEST_RADIX 16

/* The binary logarithm of a positive normal number, to 1e-7: with x = m 2^e, m between 1/sqrt 2 and sqrt 2, and
 * s = (m - 1) / (m + 1), it is e + 2 / ln 2 (s + s^3 / 3 + s^5 / 5 + s^7 / 7 + ...). */
#define LOGARITHM_1 2.88539008f
#define LOGARITHM_3 0.961796694f
#define LOGARITHM_5 0.577078016f
#define LOGARITHM_7 0.412198583f

/* Whether vectors did it: they do where numbers fill them. Or how many stages, bins and filters they did. */
#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2)
#include "edgekd_log_mel_helium.h"
#else
#define load_in_vectors(front_end, samples, ring, start, spectrum) (-1)
#define quarters_in_vectors(z, points) 0
#define radix_4_in_vectors(z, points, length, twiddles) 0
#define radix_2_in_vectors(z, points, length, twiddles) 0
#define radix_any_in_vectors(z, points, radix, length, twiddles) 0
#define powers_in_vectors(front_end, z) 1
#define roots_in_vectors(z, count) 0
#define row_in_vectors(front_end, spectrum, filter, row) 0
#endif

/* Samples of the frame, times the window, where the transform wants them. Returns how many stages are done with it. */
static int load(const edgekd_log_mel *front_end, const int16_t *samples, int ring, int start, int before, int after,
                float *spectrum) {
    const float *window = front_end->window;
    int length = front_end->window_length, last = length - 1 - after;
    if (length < 2 * front_end->points) memset(spectrum, 0, 2 * front_end->points * sizeof *spectrum);
    if (before == 0 && after == 0) {
        int stages = load_in_vectors(front_end, samples, ring, start, spectrum);
        const int16_t *from = samples + start, *end = samples + ring;
        if (stages >= 0) return stages;
        for (int n = 0; n < length; n++) {
            spectrum[2 * front_end->order[n >> 1] + (n & 1)] = window[n] * (float)*from++;
            if (from == end) from = samples;
        }
        return 0;
    }
    for (int n = 0; n < length; n++) {
        int16_t sample = samples[edgekd_place(n, before, last, start, ring)];
        spectrum[2 * front_end->order[n >> 1] + (n & 1)] = window[n] * (float)sample;
    }
    return 0;
}

/* The first stage, whose twiddle factors are 1. */
static void quarters(float *z, int points) {
    for (float *end = z + 2 * points; z < end; z += 8) {
        float sum_r = z[0] + z[4], sum_i = z[1] + z[5], difference_r = z[0] - z[4], difference_i = z[1] - z[5];
        float other_r = z[2] + z[6], other_i = z[3] + z[7], turned_r = z[3] - z[7], turned_i = z[6] - z[2];
        z[0] = sum_r + other_r, z[1] = sum_i + other_i;
        z[2] = difference_r + turned_r, z[3] = difference_i + turned_i;
        z[4] = sum_r - other_r, z[5] = sum_i - other_i;
        z[6] = difference_r - turned_r, z[7] = difference_i - turned_i;
    }
}

static void radix_4(float *z, int points, int length, const float *twiddles) {
    int step = 2 * length;
    for (float *block = z; block < z + 2 * points; block += 4 * step) {
        const float *w = twiddles;
        for (float *a = block; a < block + step; a += 2, w += 6) {
            float *b = a + step, *c = b + step, *d = c + step;
            float b_r = b[0] * w[0] - b[1] * w[1], b_i = b[0] * w[1] + b[1] * w[0];
            float c_r = c[0] * w[2] - c[1] * w[3], c_i = c[0] * w[3] + c[1] * w[2];
            float d_r = d[0] * w[4] - d[1] * w[5], d_i = d[0] * w[5] + d[1] * w[4];
            float sum_r = a[0] + c_r, sum_i = a[1] + c_i, difference_r = a[0] - c_r, difference_i = a[1] - c_i;
            float other_r = b_r + d_r, other_i = b_i + d_i, turned_r = b_i - d_i, turned_i = d_r - b_r;
            a[0] = sum_r + other_r, a[1] = sum_i + other_i;
            b[0] = difference_r + turned_r, b[1] = difference_i + turned_i;
            c[0] = sum_r - other_r, c[1] = sum_i - other_i;
            d[0] = difference_r - turned_r, d[1] = difference_i - turned_i;
        }
    }
}

static void radix_2(float *z, int points, int length, const float *twiddles) {
    int step = 2 * length;
    for (float *block = z; block < z + 2 * points; block += 2 * step) {
        const float *w = twiddles;
        for (float *a = block; a < block + step; a += 2, w += 2) {
            float *b = a + step;
            float b_r = b[0] * w[0] - b[1] * w[1], b_i = b[0] * w[1] + b[1] * w[0];
            b[0] = a[0] - b_r, b[1] = a[1] - b_i;
            a[0] += b_r, a[1] += b_i;
        }
    }
}

/* An odd one. Two numbers as far from the first as from the last meet roots that differ in sign alone. */
static APART void radix_any(float *z, int points, int radix, int length, const float *roots) {
    float taken[2 * LARGEST_RADIX];
    int step = 2 * length, half = radix / 2;
    for (float *block = z; block < z + 2 * points; block += radix * step) {
        const float *w = roots + 2 * radix;
        for (float *a = block; a < block + step; a += 2, w += 2 * (radix - 1)) {
            taken[0] = a[0], taken[1] = a[1];
            for (int q = 1; q < radix; q++) {
                const float *from = a + q * step, *by = w + 2 * (q - 1);
                taken[2 * q] = from[0] * by[0] - from[1] * by[1];
                taken[2 * q + 1] = from[0] * by[1] + from[1] * by[0];
            }
            for (int q = 1; q <= half; q++) {
                float *one = taken + 2 * q, *other = taken + 2 * (radix - q);
                float sum_r = one[0] + other[0], sum_i = one[1] + other[1];
                other[0] = one[0] - other[0], other[1] = one[1] - other[1];
                one[0] = sum_r, one[1] = sum_i;
                a[0] += sum_r, a[1] += sum_i;
            }
            for (int k = 1; k <= half; k++) {
                float sum_r = taken[0], sum_i = taken[1], turned_r = 0.0f, turned_i = 0.0f;
                const float *one = taken + 2, *other = taken + 2 * (radix - 1);
                for (int q = 1, root = k; q <= half; q++, one += 2, other -= 2) {
                    float cosine = roots[2 * root], sine = roots[2 * root + 1];
                    sum_r += one[0] * cosine, sum_i += one[1] * cosine;
                    turned_r += other[0] * sine, turned_i += other[1] * sine;
                    root += k;
                    if (root >= radix) root -= radix;
                }
                a[k * step] = sum_r - turned_i, a[k * step + 1] = sum_i + turned_r;
                a[(radix - k) * step] = sum_r + turned_i, a[(radix - k) * step + 1] = sum_i - turned_r;
            }
        }
    }
}

/* What is left of a transform of which so many stages are done: 0, or the first one, of radix 4. */
static void transform(const edgekd_log_mel *front_end, float *z, int done) {
    const float *twiddles = front_end->twiddles + (done ? 6 : 0);
    int points = front_end->points;
    for (int stage = done, length = done ? 4 : 1; stage < front_end->stages; stage++) {
        int radix = front_end->radices[stage];
        if (radix == 4 && length == 1) {
            if (!quarters_in_vectors(z, points)) quarters(z, points);
        } else if (radix == 4) {
            if (!radix_4_in_vectors(z, points, length, twiddles)) radix_4(z, points, length, twiddles);
        } else if (radix == 2) {
            if (!radix_2_in_vectors(z, points, length, twiddles)) radix_2(z, points, length, twiddles);
        } else if (!radix_any_in_vectors(z, points, radix, length, twiddles)) {
            radix_any(z, points, radix, length, twiddles);
        }
        twiddles += 2 * (radix - 1) * length + (radix == 4 || radix == 2 ? 0 : 2 * radix);
        length *= radix;
    }
}

/* Powers of the real samples' spectrum, of bin k in z[2 k], from the transform of its halves. The window is halved. */
static void powers(const edgekd_log_mel *front_end, float *z) {
    int points = front_end->points, k = powers_in_vectors(front_end, z);
    const float *w = front_end->rotations + 2 * k;
    float first = z[0] + z[1], last = z[0] - z[1];
    for (; k <= points / 2; k++, w += 2) {
        float *a = z + 2 * k, *b = z + 2 * (points - k);
        float even_r = a[0] + b[0], even_i = a[1] - b[1], odd_r = a[1] + b[1], odd_i = b[0] - a[0];
        float turned_r = odd_r * w[0] - odd_i * w[1], turned_i = odd_r * w[1] + odd_i * w[0];
        float here_r = even_r + turned_r, here_i = even_i + turned_i;
        float there_r = even_r - turned_r, there_i = even_i - turned_i;
        b[0] = there_r * there_r + there_i * there_i;
        a[0] = here_r * here_r + here_i * here_i;
    }
    z[0] = 4.0f * (first * first);
    z[2 * points] = 4.0f * (last * last);
}

static float binary_logarithm(float x) {
    uint32_t bits;
    int32_t exponent;
    float s, square;
    memcpy(&bits, &x, sizeof bits);
    exponent = (int32_t)(bits - 0x3F3504F3u) >> 23;
    bits -= (uint32_t)exponent << 23;
    memcpy(&x, &bits, sizeof x);
    s = (x - 1.0f) / (x + 1.0f);
    square = s * s;
    return (float)exponent + s * (LOGARITHM_1 + square * (LOGARITHM_3 + square * (LOGARITHM_5 + square * LOGARITHM_7)));
}

void edgekd_log_mel_row(const edgekd_log_mel *front_end, const int16_t *samples, int ring, int start, int before,
                        int after, float *spectrum, float *row) {
    const float *filter = front_end->filters;
    float sum = 0.0f;
    int mel, step, each = 0;
    transform(front_end, spectrum, load(front_end, samples, ring, start, before, after, spectrum));
    powers(front_end, spectrum);
    if (front_end->of_magnitudes)
        for (int k = roots_in_vectors(spectrum, front_end->points + 1); k <= front_end->points; k++)
            spectrum[2 * k] = sqrtf(spectrum[2 * k]);
    mel = row_in_vectors(front_end, spectrum, &filter, row);
    for (step = mel / front_end->bins_per_step; mel < front_end->mels; mel++) {
        const float *power = spectrum + 2 * front_end->first[mel], *end = filter + front_end->count[mel];
        float heard = 0.0f;
        for (; filter < end; power += 2) heard += *filter++ * *power;
        if (front_end->of_magnitudes)
            heard += front_end->least;
        else if (!(heard > front_end->least))
            heard = front_end->least;
        sum += binary_logarithm(heard);
        if (++each < front_end->bins_per_step) continue;
        row[step] = front_end->factor[step] * sum + front_end->offset[step];
        step++, each = 0, sum = 0.0f;
    }
}
#endif
