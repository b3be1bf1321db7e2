#!/usr/bin/env bash
# A Cortex-M55's Helium takes subnormal floats for zero whatever FPSCR says; the same core's scalar code does not.
#
# Expected: FPSCR.FZ, which is 0 after reset, decides for both, since vectors and scalars share the registers, so a loop
# gives the same bits with intrinsics and without.
# Seen (QEMU 7.2, mps3-an547, gcc-arm-none-eabi 12.2; FPSCR 0x00040000, so FZ is 0): the product of 1e-30 and 1e-10 is
# 0x000116c2, a subnormal, by VMUL.F32 of single registers, and 0x00000000 by VMUL.F32 of vectors. A subnormal that comes
# in is taken for zero, too: 1e-40 times 1e10 is 0. QEMU computes vectors with the architecture's standard FPSCR value
# (flush to zero, default NaN, to nearest) and not with the register. On the emulator alone; no board was at hand.
# Matters: "the same arithmetic" in vectors and in scalars is not the same below 1.2e-38. Floor levels before logarithms
# and ratios of quiet sound well above that.
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
cat > flush.c <<'C'
#include <arm_mve.h>
static int semihosting(int operation, const void *argument) {
    register int number __asm__("r0") = operation;
    register const void *given __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(number) : "r"(given) : "memory");
    return number;
}
static void say(const char *what, uint32_t value) {
    char text[10] = "00000000\n";
    for (int at = 7; at >= 0; at--, value >>= 4) text[at] = "0123456789abcdef"[value & 15];
    semihosting(4, what), semihosting(4, text);
}
static uint32_t bits(float value) {
    union { float value; uint32_t bits; } both = {value};
    return both.bits;
}
static volatile float tiny = 1e-30f, small = 1e-10f, subnormal = 1e-40f, large = 1e10f;
static void measure(void) {
    const uint32_t end[2] = {0x20026, 0};
    uint32_t fpscr;
    __asm__ volatile("vmrs %0, fpscr" : "=r"(fpscr));
    say("fpscr ", fpscr);
    say("scalars out ", bits(tiny * small));
    say("vectors out ", bits(vgetq_lane_f32(vmulq_f32(vdupq_n_f32(tiny), vdupq_n_f32(small)), 0)));
    say("scalars in ", bits(subnormal * large));
    say("vectors in ", bits(vgetq_lane_f32(vmulq_f32(vdupq_n_f32(subnormal), vdupq_n_f32(large)), 0)));
    semihosting(0x20, end);
}
__attribute__((naked)) void start(void) {
    __asm__ volatile("ldr r0, =0xE000ED88\n ldr r1, [r0]\n orr r1, r1, #0xF00000\n str r1, [r0]\n dsb\n isb\n b measure");
}
__attribute__((section(".vectors"), used)) const void *const vectors[16] = {(void *)0x20004000, (void *)start};
__attribute__((used)) static void (*const kept)(void) = measure;
C
arm-none-eabi-gcc -mcpu=cortex-m55 -mthumb -mfloat-abi=hard -O2 -nostdlib -Wl,-Ttext=0x01000000 \
    -Wl,-Tdata=0x20000000 -Wl,--section-start=.vectors=0 -e start -o flush.elf flush.c
said=$(timeout 60 qemu-system-arm -machine mps3-an547 -nographic -monitor none -serial none \
    -semihosting-config enable=on,target=native -kernel flush.elf 2>&1)
echo "$said"
test "$said" = "fpscr 00040000
scalars out 000116c2
vectors out 00000000
scalars in 0da24227
vectors in 00000000"
echo "as described"
