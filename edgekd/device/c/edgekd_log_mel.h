/* The logarithm of mel-filtered spectra of 16-bit samples, frame by frame, in single precision.
 *
 * The spectrum of 2 M real samples is a transform of M complex numbers, by stages of radix 4, 2, or any other small one
 * (Cooley and Tukey), in place: samples enter in the order that the stages ask for, times a window that has the gain of
 * the classifier in it. Only sums, products and quotients are taken, so all processors that round as IEEE 754 says give
 * the same bits, as long as the compiler fuses none (-ffp-contract=off).
 */
#ifndef EDGEKD_LOG_MEL_H
#define EDGEKD_LOG_MEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    uint16_t points;        /* M */
    uint16_t window_length; /* samples of a frame; zeros follow up to 2 M */
    uint16_t mels, bins_per_step;
    uint8_t stages;
    uint8_t of_magnitudes;  /* logarithm of (filtered magnitudes + least), or of powers that are at least that */
    float least;
    const uint8_t *radices;
    const uint16_t *order;  /* (M,): where the n-th pair of samples goes */
    const float *window;    /* (window_length,) */
    const float *twiddles;  /* stage by stage, complex: (L, radix - 1), and before those of a general radix its roots */
    const float *rotations; /* (M / 2 + 1,) complex: exp(-pi i k / M) */
    const uint16_t *first, *count; /* (mels,): of the bins that a filter hears */
    const float *filters;          /* filter by filter */
    const float *factor, *offset;  /* (mels / bins_per_step,): a row is factor * log2(mel) + offset */
} edgekd_log_mel;

/* Where in the ring sample `n` of a frame lies; beyond `before` and `last`, between which there is sound, it is
 * reflected. */
static inline int edgekd_place(int n, int before, int last, int start, int ring) {
    int place = n < before ? 2 * before - n : n > last ? 2 * last - n : n;
    place += start; /* one sample beyond the frame's other end may be meant */
    if (place >= ring) place -= ring;
    return place < 0 ? place + ring : place;
}

/* The row (mels / bins_per_step,) of a frame. `samples` is a ring of `ring` samples, the frame begins at `start`;
 * `before` samples of the frame lie before the sound and `after` behind it: they are the sound reflected. `spectrum`:
 * 2 M + 2 numbers to work in. */
void edgekd_log_mel_row(const edgekd_log_mel *front_end, const int16_t *samples, int ring, int start, int before,
                        int after, float *spectrum, float *row);

/* The same in integers of 32 bits, for cores without an FPU. A frame times its window is shifted to so many `bits` that
 * nothing overflows, whatever is heard: quiet sound is as exact as loud sound. Products are those of 32 bits and 16,
 * rounded once, halves upwards; powers are exact, in 64 bits. */
typedef struct {
    uint16_t points, window_length, mels, bins_per_step;
    uint8_t stages, of_magnitudes;
    uint8_t bits;          /* of a magnitude, before the transform */
    uint8_t fraction_bits; /* of a row */
    uint8_t count_bits;    /* of the largest count, of powers */
    const uint8_t *radices;
    const uint16_t *order;     /* as above */
    const uint16_t *window;    /* (window_length,), in 1 / 65535 */
    const int16_t *twiddles;   /* in 2^-15, stage by stage: of an odd radix its roots, then (radix - 1, L - 1) */
    const int16_t *rotations;  /* in 2^-15, ((M - 1) / 2,) complex: exp(-pi i k / M), from k = 1 on */
    const uint16_t *logarithms; /* (65,): log2(1 + n / 64) in 2^-16 */
    const uint16_t *roots;      /* (97,): sqrt(1 + n / 32) in 2^-15, of magnitudes */
    const uint16_t *first;      /* the bins that a filter hears; of powers, that of the first filter, */
    const uint16_t *count;      /* and (mels + 1,): how many lie between two edges */
    const uint16_t *rising, *falling; /* (mels + 1,), in 2^-16 bins: how far the first bin is from the edge before it,
                                         and the last from that behind it */
    const uint16_t *up, *down;  /* (mels,): the slopes of a filter times 2^shift */
    const int8_t *shift;
    const uint16_t *filters;    /* of magnitudes, in 2^-16, filter by filter */
    int32_t least;              /* a logarithm, in 2^-16; of magnitudes, a number of 16 bits times 2^least_exponent */
    int8_t least_exponent;
    const int16_t *factor;      /* (mels / bins_per_step,), in 2^-15, and */
    const int32_t *offset;      /* in 2^-fraction_bits: a row is factor * logarithm + offset, in 2^-fraction_bits */
} edgekd_fixed_log_mel;

void edgekd_fixed_log_mel_row(const edgekd_fixed_log_mel *front_end, const int16_t *samples, int ring, int start,
                              int before, int after, int32_t *spectrum, int32_t *row);

#ifdef __cplusplus
}
#endif

#endif
