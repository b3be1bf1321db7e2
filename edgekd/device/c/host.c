/* What takes the place of a board on a machine with an operating system. */
#include <stdio.h>

#include "edgekd_report.h"

void edgekd_report(const char *text) { fputs(text, stdout); }
