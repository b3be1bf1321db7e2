/* An audio classifier that hears 16-bit samples as they come and scores windows of them.
 *
 *     static edgekd_t classifier;
 *     int32_t scores[EDGEKD_CLASSES];
 *
 *     edgekd_init(&classifier);
 *     for (;;)
 *         if (edgekd_push(&classifier, pcm, count)) edgekd_scores(&classifier, scores);
 *
 * Windows of EDGEKD_WINDOW_SAMPLES begin every EDGEKD_HOP_SAMPLES. No memory is allocated, and none is used but the
 * edgekd_t and the stack.
 */
#ifndef EDGEKD_H
#define EDGEKD_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include "edgekd_model.h"

#if INT_MAX < 2147483647
#error "edgekd is for cores of 32 bits: here an int has fewer (AVR)"
#endif

#ifdef __cplusplus
extern "C" {
#endif

#if EDGEKD_FIXED_POINT /* of the log-mel; all else is in integers anyway */
typedef int32_t edgekd_level;
#define EDGEKD_ROW edgekd_fixed_log_mel_row
#else
typedef float edgekd_level;
#define EDGEKD_ROW edgekd_log_mel_row
#endif

typedef struct {
    uint32_t seen;  /* samples of this window; those before it count as none */
    uint32_t frame; /* the next one */
    uint8_t active;
#if EDGEKD_FRAMES_PER_STEP > 1
    edgekd_level sums[EDGEKD_BINS];
#endif
    uint32_t memory[EDGEKD_MEMORY_WORDS];
} edgekd_window;

typedef struct {
    uint32_t until_next; /* samples before the next window begins */
    uint32_t at;         /* where the next sample goes */
    int16_t samples[EDGEKD_FRAME_SAMPLES];
    edgekd_level spectrum[EDGEKD_SPECTRUM];
    edgekd_level row[EDGEKD_BINS];
    int32_t scores[EDGEKD_CLASSES];
    edgekd_window windows[EDGEKD_WINDOWS];
} edgekd_t;

extern const size_t edgekd_bytes; /* of an edgekd_t */

/* Forget all that was heard. */
void edgekd_init(edgekd_t *classifier);

/* Hear `count` samples, any number of them. Returns how many windows they complete: at most one of EDGEKD_HOP_SAMPLES. */
int edgekd_push(edgekd_t *classifier, const int16_t *pcm, size_t count);

/* What the latest complete window scored, in units of 1 / EDGEKD_ONE: probabilities, in the order of
 * EDGEKD_CLASS_NAMES. */
void edgekd_scores(const edgekd_t *classifier, int32_t scores[EDGEKD_CLASSES]);

#ifdef __cplusplus
}
#endif

#endif
