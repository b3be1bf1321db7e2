/* What main_verify.c says goes to the console. */
#include <zephyr/sys/printk.h>

#include "../../examples/Verify/edgekd_report.h"

void edgekd_report(const char *text) { printk("%s", text); }
