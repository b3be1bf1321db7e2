/* What takes the place of a board's start-up code under QEMU: vectors, output and exit by semihosting, and SysTick as a
 * counter of instructions (qemu-system-arm -icount shift=0). */
#include <stdint.h>

#include "edgekd_report.h"

extern uint32_t emulator_stack_top[], emulator_bss_start[], emulator_bss_end[];
int main(void);
void emulator_reset(void);

static uint32_t wraps;

static int semihosting(int operation, const void *argument) {
    register int number __asm__("r0") = operation;
    register const void *given __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(number) : "r"(given) : "memory");
    return number;
}

void edgekd_report(const char *text) { semihosting(0x04, text); }

static void finish(uint32_t code) {
    const uint32_t block[2] = {0x20026, code}; /* the application ends, with this exit code */
    semihosting(0x20, block);
    for (;;) {}
}

static void fault(void) {
    edgekd_report("fault\n");
    finish(99);
}

#define SYSTICK ((volatile uint32_t *)0xE000E010) /* control, reload, current */

static void tick(void) { wraps++; }

void edgekd_count_start(void) {
    wraps = 0;
    SYSTICK[0] = 0;
    SYSTICK[1] = 0xFFFFFF;
    SYSTICK[2] = 0;
    SYSTICK[0] = 7;
    while (!SYSTICK[2]) {} /* it is loaded at the first tick */
}

uint32_t edgekd_count(void) { return wraps * 0x1000000u + (0xFFFFFF - SYSTICK[2]); }

void emulator_reset(void) {
#ifndef __ARM_FEATURE_UNALIGNED
    *(volatile uint32_t *)0xE000ED14 |= 1 << 3; /* CCR: words that lie at no whole word fault, as on a Cortex-M0+ */
#endif
#ifdef __ARM_FP
    *(volatile uint32_t *)0xE000ED88 |= 0xF << 20; /* CPACR: the FPU, and with it Helium */
    __asm__ volatile("dsb\n isb");
#endif
    for (uint32_t *word = emulator_bss_start; word < emulator_bss_end; word++) *word = 0;
    finish((uint32_t)main());
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    emulator_stack_top, (void *)emulator_reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
    (void *)fault, 0, 0, 0, (void *)fault, 0, 0, (void *)fault, (void *)tick,
};
