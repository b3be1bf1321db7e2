/* Classifies what comes in on standard input, 16-bit samples of one channel at EDGEKD_SAMPLE_RATE:
 *
 *     arecord -f S16_LE -r RATE -t raw | ./stream
 *
 * A line a window: the second at which it ends, its class, the score, and `heard` where that reaches the class's
 * threshold. On a board the loop is the same, and the samples come from the microphone's buffer (README.md). */
#include <stdio.h>

#include "edgekd.h"
#include "edgekd_classes.h"

static edgekd_t classifier;

int main(void) {
    static const char *const names[] = EDGEKD_CLASS_NAMES;
    static const int32_t heard_from[] = EDGEKD_HEARD_FROM;
    static int16_t pcm[EDGEKD_FRAME_HOP];
    int32_t scores[EDGEKD_CLASSES];
    unsigned long long heard = 0;
    size_t count;
    edgekd_init(&classifier);
    while ((count = fread(pcm, sizeof *pcm, EDGEKD_FRAME_HOP, stdin)) > 0) {
        heard += count;
        if (edgekd_push(&classifier, pcm, count)) {
            int best = 0;
            edgekd_scores(&classifier, scores);
            for (int k = 1; k < EDGEKD_CLASSES; k++)
                if (scores[k] > scores[best]) best = k;
            printf("%.1f %s %.3f%s\n", (double)heard / EDGEKD_SAMPLE_RATE, names[best], scores[best] / (double)EDGEKD_ONE,
                   scores[best] >= heard_from[best] ? " heard" : "");
            fflush(stdout);
        }
    }
    return 0;
}
