#!/usr/bin/env bash
# The cycle counter of QEMU's Cortex-M boards is always 0, and says that it is there.
#
# Expected: DWT_CYCCNT counts once it is enabled, or NOCYCCNT (bit 25 of DWT_CTRL) is set, as the architecture has it for
# a core without one, or the access faults.
# Seen (QEMU 7.2, mps2-an385, -an386 and -an500: Cortex-M3, M4, M7): after TRCENA and CYCCNTENA both registers read 0,
# the enable bit that was just written too. Nothing faults. SysTick counts: with -icount shift=0, where an instruction
# takes a nanosecond, one tick of these boards' 25 MHz is 40 instructions.
# Matters: a benchmark that is made for boards prints 0 cycles, or divides by it, and a loop that waits for a number of
# cycles never ends. Count with SysTick, and call the result instructions.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
wanted="qemu-system-arm=1:7.2+dfsg-7+deb12u18+b3 gcc-arm-none-eabi=15:12.2.rel1-1"
for package in $wanted; do
    if [ "$(dpkg-query -W -f '${Version}' "${package%%=*}" 2>/dev/null)" != "${package#*=}" ]; then
        apt-get install --quiet --yes --no-install-recommends "$package" >/dev/null
    fi
done
cat > count.c <<'C'
#include <stdint.h>
#define REGISTER(address) (*(volatile uint32_t *)(address))
static int semihosting(int operation, const void *argument) {
    register int number __asm__("r0") = operation;
    register const void *given __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(number) : "r"(given) : "memory");
    return number;
}
static void say(const char *what, uint32_t value) {
    char text[12] = "          \n";
    int at = 10;
    do text[--at] = "0123456789"[value % 10]; while (value /= 10);
    semihosting(4, what), semihosting(4, text + at);
}
void start(void) {
    const uint32_t end[2] = {0x20026, 0};
    REGISTER(0xE000EDFC) |= 1u << 24;     /* TRCENA */
    REGISTER(0xE0001FB0) = 0xC5ACCE55;    /* the lock of a Cortex-M7 */
    REGISTER(0xE0001004) = 0;
    REGISTER(0xE0001000) |= 1;            /* CYCCNTENA */
    REGISTER(0xE000E014) = 0xFFFFFF, REGISTER(0xE000E018) = 0, REGISTER(0xE000E010) = 5;
    for (volatile int i = 0; i < 100000; i++) {}
    say("DWT_CTRL ", REGISTER(0xE0001000));
    say("DWT_CYCCNT ", REGISTER(0xE0001004));
    say("SysTick ", 0xFFFFFF - REGISTER(0xE000E018));
    semihosting(0x20, end);
}
__attribute__((section(".vectors"), used)) const void *const vectors[16] = {(void *)0x20001000, (void *)start};
C
for board in mps2-an385:cortex-m3 mps2-an386:cortex-m4 mps2-an500:cortex-m7; do
    arm-none-eabi-gcc -mcpu="${board#*:}" -mthumb -O2 -nostdlib -Wl,-Ttext=0x200 -Wl,--section-start=.vectors=0 \
        -e start -o count.elf count.c
    said=$(timeout 60 qemu-system-arm -machine "${board%:*}" -nographic -monitor none -serial none -icount shift=0 \
        -semihosting-config enable=on,target=native -kernel count.elf 2>&1)
    echo "${board%:*}: $(echo "$said" | tr '\n' ' ')"
    echo "$said" | grep -qx 'DWT_CTRL 0'
    echo "$said" | grep -qx 'DWT_CYCCNT 0'
    test "$(echo "$said" | sed -n 's/SysTick //p')" -gt 10000
done
echo "as described"
