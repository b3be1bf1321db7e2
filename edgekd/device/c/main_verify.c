/* Does this board give what was found at export? Hears the recordings of golden.h in pieces of uneven sizes and compares
 * every score. Ends with 0 where all are the same, bit for bit, and with 4 where one is not. Among Arduinos, which have a
 * main of their own, and little flash, it is a function, and hears one recording. */
#ifdef ARDUINO
#define main edgekd_verify
#ifndef GOLDEN_CLIPS
#define GOLDEN_CLIPS 1
#endif
#endif

#include "edgekd.h"
#include "edgekd_report.h"
#include "golden.h"

static edgekd_t classifier;

static void say(const char *text, long number) {
    edgekd_report(text);
    edgekd_report_number(number);
}

int main(void) {
    static const uint16_t pieces[] = {1, 160, 37, 512, 1000, 3, 2047};
    int32_t scores[EDGEKD_CLASSES];
    int failed = 0;
    for (int clip = 0; clip < GOLDEN_CLIPS; clip++) {
        const int16_t *pcm = golden_pcm[clip];
        uint32_t left = EDGEKD_WINDOW_SAMPLES;
        int complete = 0, differ = 0;
        edgekd_init(&classifier);
        for (unsigned piece = 0; left; piece++) {
            uint32_t count = pieces[piece % (sizeof pieces / sizeof *pieces)];
            if (count > left) count = left;
            complete += edgekd_push(&classifier, pcm, count);
            pcm += count;
            left -= count;
        }
        edgekd_scores(&classifier, scores);
        for (int k = 0; k < EDGEKD_CLASSES; k++) differ += scores[k] != golden_scores[clip][k];
        failed += complete != 1 || differ;
        say("clip ", clip + 1);
        say(" of ", GOLDEN_CLIPS);
        say(": scores that differ ", differ);
        say(", windows ", complete);
        edgekd_report("\n");
    }
    edgekd_report(failed ? "this board does NOT agree\n" : "this board agrees\n");
    return failed ? 4 : 0;
}
