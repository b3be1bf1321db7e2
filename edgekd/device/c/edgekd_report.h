/* Where the programs beside the classifier write: standard output, or a board's own. */
#ifndef EDGEKD_REPORT_H
#define EDGEKD_REPORT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void edgekd_report(const char *text);

/* A counter of instructions, under the emulator alone: a board needs none. */
void edgekd_count_start(void);
uint32_t edgekd_count(void);

static inline void edgekd_report_number(long number) {
    char text[24], *at = text + sizeof text;
    unsigned long rest = number < 0 ? 0ul - (unsigned long)number : (unsigned long)number;
    *--at = 0;
    do *--at = (char)('0' + rest % 10); while (rest /= 10);
    if (number < 0) *--at = '-';
    edgekd_report(at);
}

#ifdef __cplusplus
}
#endif

#endif
