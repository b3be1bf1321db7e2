#!/usr/bin/env bash
# clock() of a program under QEMU's semihosting is the processor time of QEMU itself, not the time of the board.
#
# Expected: with -icount an instruction takes a fixed number of nanoseconds of the board's time, every clock of the
# board follows it, and a run is the same each time; so clock(), by the semihosting call SYS_CLOCK, counts that too.
# Seen (QEMU 7.2, mps2-an385, newlib's rdimon): from 1 ns an instruction to 64, SysTick counts 64 times as much for the
# same loop, and clock() about the same: what QEMU took here. SYS_ELAPSED, whose frequency is 1 GHz, is this machine's
# clock since QEMU began.
# Matters: a benchmark for boards that falls back on clock() gives figures of this machine, other ones when it is busy,
# though it asked for counted instructions. Count with SysTick or a timer of the board.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
wanted="qemu-system-arm=1:7.2+dfsg-7+deb12u18+b3 gcc-arm-none-eabi=15:12.2.rel1-1"
wanted="$wanted libnewlib-arm-none-eabi=3.3.0-1.3+deb12u1"
for package in $wanted; do
    if [ "$(dpkg-query -W -f '${Version}' "${package%%=*}" 2>/dev/null)" != "${package#*=}" ]; then
        apt-get install --quiet --yes --no-install-recommends "$package" >/dev/null
    fi
done
cat > time.c <<'C'
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#define SYSTICK ((volatile uint32_t *)0xE000E010)
static void work(long times) { for (volatile long i = 0; i < times; i++) {} }
int main(void) {
    SYSTICK[1] = 0xFFFFFF, SYSTICK[2] = 0, SYSTICK[0] = 5;
    while (!SYSTICK[2]) {}
    uint32_t begun = SYSTICK[2];
    work(100000);
    printf("ticks %lu\n", (unsigned long)(begun - SYSTICK[2]));
    clock_t start = clock();
    work(60000000);
    printf("clock %ld\n", (long)(clock() - start));
    return 0;
}
C
cat > vectors.c <<'C'
void _start(void);
__attribute__((section(".vectors"), used)) const void *const vectors[16] = {(void *)0x20010000, (void *)_start};
C
arm-none-eabi-gcc -std=c99 -Wall -Werror -mcpu=cortex-m3 -mthumb -O1 --specs=rdimon.specs \
    -Wl,--section-start=.vectors=0 -o time.elf time.c vectors.c
measure() {
    timeout 300 qemu-system-arm -machine mps2-an385 -nographic -monitor none -serial none -icount "shift=$1,sleep=off" \
        -semihosting-config enable=on,target=native -kernel time.elf > "$1.txt"
    echo "$((1 << $1)) ns an instruction: $(tr '\n' ' ' < "$1.txt")"
}
number() { sed -n "s/$2 //p" "$1.txt"; }
measure 0
measure 6
ticks=$(($(number 6 ticks) / $(number 0 ticks)))
test "$ticks" -ge 60
test "$ticks" -le 68
test "$(number 0 clock)" -ge 5
test "$(number 6 clock)" -le $((8 * $(number 0 clock)))
echo "as described"
