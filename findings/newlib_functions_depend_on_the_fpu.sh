#!/usr/bin/env bash
# expf, logf and others of newlib give other bits on a Cortex-M4 than on a Cortex-M3, also with -ffp-contract=off.
#
# Expected: one version of a library, built by one compiler, says the same of the same float on two cores: IEEE 754
# fixes every operation, and -ffp-contract=off says that none is fused with another.
# Seen (libnewlib-arm-none-eabi 3.3.0-1.3+deb12u1, gcc-arm-none-eabi 15:12.2.rel1-1, qemu-system-arm 7.2): the option
# is for one's own sources. The library for cores with an FPU was built with products and sums fused (hundreds of vfma
# in its libm.a), that for cores without one cannot be: of 20,000 arguments 10 to 101, by function, have a result of
# other bits, by one or two in the last place. sqrtf is one operation, and the same. The Cortex-M4 without its FPU
# (-mfloat-abi=soft) agrees with the Cortex-M3.
# Matters: a decibel, a softmax or a window that is computed with it differs by core, so golden values of one board fail
# on another. Compare with a tolerance, or bring functions of one's own.
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
cat > say.c <<'C'
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
int main(void) {
    uint32_t state = 1;
    for (int i = 0; i < 20000; i++) {
        volatile float x;
        state = state * 1664525u + 1013904223u;
        x = (float)(state >> 8) / 16777216.0f * 40.0f + 1e-3f;
        const float said[] = {expf(x), logf(x), log10f(x), cosf(x), sqrtf(x)};
        uint32_t bits[5];
        memcpy(bits, said, sizeof bits);
        for (int k = 0; k < 5; k++) printf("%08lx%c", (unsigned long)bits[k], k < 4 ? ' ' : '\n');
    }
    return 0;
}
C
cat > start.c <<'C'
void _start(void);
void begin(void) {
#ifdef __ARM_FP
    *(volatile unsigned *)0xE000ED88 |= 0xF << 20; /* the FPU */
    __asm__ volatile("dsb\n isb");
#endif
    _start();
}
__attribute__((section(".vectors"), used)) const void *const vectors[16] = {(void *)0x20010000, (void *)begin};
C
on() {
    name=$1 board=$2
    shift 2
    arm-none-eabi-gcc -std=c99 -O2 -ffp-contract=off -mthumb "$@" --specs=rdimon.specs -Wl,--section-start=.vectors=0 \
        -o "$name.elf" say.c start.c -lm
    timeout 300 qemu-system-arm -machine "$board" -nographic -monitor none -serial none \
        -semihosting-config enable=on,target=native -kernel "$name.elf" > "$name.txt"
    test "$(wc -l < "$name.txt")" -eq 20000
}
on m3 mps2-an385 -mcpu=cortex-m3
on m4 mps2-an386 -mcpu=cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16
on soft mps2-an386 -mcpu=cortex-m4 -mfloat-abi=soft
cmp m3.txt soft.txt
library=$(arm-none-eabi-gcc -mthumb -mcpu=cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16 -print-file-name=libm.a)
arm-none-eabi-objdump -d "$library" > libm.txt
test "$(grep -cE 'vfn?m[as]' libm.txt)" -gt 100
python3 -I - <<'PY'
three, four = ([line.split() for line in open(name)] for name in ("m3.txt", "m4.txt"))
for place, name in enumerate(("expf", "logf", "log10f", "cosf", "sqrtf")):
    steps = [abs(int(a[place], 16) - int(b[place], 16)) for a, b in zip(three, four, strict=True)]
    differ = sum(map(bool, steps))
    print(f"{name}: {differ} of {len(steps)} differ, by {max(steps)} in the last place at most")
    assert differ == 0 if name == "sqrtf" else differ
PY
echo "as described"
