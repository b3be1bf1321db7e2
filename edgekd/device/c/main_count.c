/* How many instructions does a hop of sound take, how many of them the log-mel, and how many the longest push of a
 * frame's hop? Linked with -Wl,--wrap of the function
 * that computes it; for the emulator, whose counter counts instructions. Windows are as far along as they are in an
 * endless stream: they have heard a whole one before anything is counted. */
#include "edgekd.h"
#include "edgekd_report.h"
#include "golden.h"

static edgekd_t classifier;
static uint32_t log_mel, rows, longest;

#if EDGEKD_FIXED_POINT
#define REAL __real_edgekd_fixed_log_mel_row
#define WRAP __wrap_edgekd_fixed_log_mel_row
typedef edgekd_fixed_log_mel tables;
#else
#define REAL __real_edgekd_log_mel_row
#define WRAP __wrap_edgekd_log_mel_row
typedef edgekd_log_mel tables;
#endif

void REAL(const tables *front_end, const int16_t *samples, int length, int at, int before, int after,
          edgekd_level *spectrum, edgekd_level *row);
void WRAP(const tables *front_end, const int16_t *samples, int length, int at, int before, int after,
          edgekd_level *spectrum, edgekd_level *row);

void WRAP(const tables *front_end, const int16_t *samples, int length, int at, int before, int after,
          edgekd_level *spectrum, edgekd_level *row) {
    uint32_t start = edgekd_count();
    REAL(front_end, samples, length, at, before, after, spectrum, row);
    log_mel += edgekd_count() - start;
    rows++;
}

static void say(const char *text, uint32_t number) {
    edgekd_report(text);
    edgekd_report_number((long)number);
    edgekd_report("\n");
}

int main(void) {
    uint32_t left = EDGEKD_HOP_SAMPLES, at = 0, total;
    edgekd_init(&classifier);
    edgekd_push(&classifier, golden_pcm[0], EDGEKD_WINDOW_SAMPLES);
    log_mel = rows = 0;
    edgekd_count_start();
    total = edgekd_count();
    while (left) {
        uint32_t count = left < EDGEKD_FRAME_HOP ? left : EDGEKD_FRAME_HOP;
        if (at + count > EDGEKD_WINDOW_SAMPLES) at = 0;
        uint32_t start = edgekd_count(), taken;
        edgekd_push(&classifier, golden_pcm[0] + at, count);
        taken = edgekd_count() - start;
        if (taken > longest) longest = taken;
        at += count;
        left -= count;
    }
    total = edgekd_count() - total;
    say("total ", total);
    say("log-mel ", log_mel);
    say("longest ", longest);
    say("frames ", rows);
    say("samples ", EDGEKD_HOP_SAMPLES);
    return 0;
}
