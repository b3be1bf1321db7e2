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

/* The row (mels / bins_per_step,) of a frame. `samples` is a ring of `ring` samples, the frame begins at `start`;
 * `before` samples of the frame lie before the sound and `after` behind it: they are the sound reflected. `spectrum`:
 * 2 M + 2 numbers to work in. */
void edgekd_log_mel_row(const edgekd_log_mel *front_end, const int16_t *samples, int ring, int start, int before,
                        int after, float *spectrum, float *row);

#ifdef __cplusplus
}
#endif

#endif
