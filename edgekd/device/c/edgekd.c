#include "edgekd.h"

#include <string.h>

#define LENGTH EDGEKD_FRAME_SAMPLES

const size_t edgekd_bytes = sizeof(edgekd_t);

void edgekd_init(edgekd_t *classifier) { memset(classifier, 0, sizeof *classifier); }

void edgekd_scores(const edgekd_t *classifier, int32_t scores[EDGEKD_CLASSES]) {
    memcpy(scores, classifier->scores, sizeof classifier->scores);
}

/* Where a frame begins, in samples of its window: before it, where frames are centred. */
static int32_t frame_start(uint32_t frame) {
    return (int32_t)(frame * EDGEKD_FRAME_HOP) - (EDGEKD_CENTRED ? LENGTH / 2 : 0);
}

/* Samples of the window that have to be there for a frame. */
static uint32_t frame_needs(uint32_t frame) {
    int32_t start = frame_start(frame), end = start + LENGTH;
    if (end > EDGEKD_WINDOW_SAMPLES) end = EDGEKD_WINDOW_SAMPLES;
    return (uint32_t)(1 - start > end ? 1 - start : end);
}

static void begin(edgekd_window *window) {
    window->seen = window->frame = 0;
    window->active = 1;
    edgekd_network_start(&edgekd_model_network, window->memory);
}

/* To the nearest integer, halves upwards. */
#if EDGEKD_FIXED_POINT
static int8_t rounded(int32_t value) {
    int bits = edgekd_model_log_mel.fraction_bits;
    value = (value + (1 << (bits - 1))) >> bits;
    return (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
}
#else
static int8_t rounded(float value) {
    return (int8_t)(value <= -128.0f ? -128 : value >= 127.0f ? 127 : (int32_t)(value + 128.5f) - 128);
}
#endif

/* A row of the log-mel: returns 1 when it completes the window. */
static int hear_row(edgekd_t *classifier, edgekd_window *window) {
    const edgekd_level *row = classifier->row;
    int8_t *entry;
    window->frame++;
#if EDGEKD_FRAMES_PER_STEP > 1
    for (int i = 0; i < EDGEKD_BINS; i++) window->sums[i] += row[i];
    if (window->frame % EDGEKD_FRAMES_PER_STEP) return 0;
    row = window->sums;
#endif
    entry = edgekd_network_entry(&edgekd_model_network, window->memory);
    for (int i = 0; i < EDGEKD_BINS; i++) entry[i] = rounded(row[i]);
#if EDGEKD_FRAMES_PER_STEP > 1
    memset(window->sums, 0, sizeof window->sums);
#endif
    return edgekd_network_step(&edgekd_model_network, window->memory);
}

/* All frames whose last sample has just come. A frame that lies inside of several windows is computed once. */
static int hear_frames(edgekd_t *classifier) {
    int complete = 0, shared = 0;
    for (int i = 0; i < EDGEKD_WINDOWS; i++) {
        edgekd_window *window = &classifier->windows[i];
        while (window->active && window->seen == frame_needs(window->frame)) {
            int32_t start = frame_start(window->frame), after = start + LENGTH - EDGEKD_WINDOW_SAMPLES;
            uint32_t back = window->seen - (uint32_t)start;
            int inside = start >= 0 && after <= 0;
            if (!(inside && shared))
                EDGEKD_ROW(&edgekd_model_log_mel, classifier->samples, LENGTH,
                           (int)((classifier->at + 2 * LENGTH - back) % LENGTH), start < 0 ? -start : 0,
                           after > 0 ? after : 0, classifier->spectrum, classifier->row);
            shared = inside;
            if (hear_row(classifier, window)) {
                edgekd_network_scores(&edgekd_model_network, window->memory, classifier->scores);
                window->active = 0;
                complete++;
            } else if (window->frame == EDGEKD_FRAMES) {
                window->active = 0;
            }
        }
    }
    return complete;
}

/* Samples until something has to be done. */
static uint32_t quiet(const edgekd_t *classifier) {
    uint32_t least = LENGTH - classifier->at;
    if (classifier->until_next < least) least = classifier->until_next;
    for (int i = 0; i < EDGEKD_WINDOWS; i++) {
        const edgekd_window *window = &classifier->windows[i];
        uint32_t left = window->active ? frame_needs(window->frame) - window->seen : least;
        if (left < least) least = left;
    }
    return least;
}

int edgekd_push(edgekd_t *classifier, const int16_t *pcm, size_t count) {
    int complete = 0;
    while (count) {
        uint32_t taken;
        if (!classifier->until_next) {
            int i = 0;
            while (classifier->windows[i].active) i++;
            begin(&classifier->windows[i]);
            classifier->until_next = EDGEKD_HOP_SAMPLES;
        }
        taken = quiet(classifier);
        if (taken > count) taken = (uint32_t)count;
        memcpy(classifier->samples + classifier->at, pcm, taken * sizeof *pcm);
        pcm += taken;
        count -= taken;
        classifier->until_next -= taken;
        classifier->at += taken;
        if (classifier->at == LENGTH) classifier->at = 0;
        for (int i = 0; i < EDGEKD_WINDOWS; i++)
            if (classifier->windows[i].active) classifier->windows[i].seen += taken;
        complete += hear_frames(classifier);
    }
    return complete;
}
