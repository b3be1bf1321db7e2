#!/usr/bin/env bash
# GCC's vectoriser fuses a product and a sum although -ffp-contract=off forbids it, and the bits change.
#
# Expected: with -ffp-contract=off, or in -std=c99, which has it off, each product is rounded before it is added: that
# is what the option is for, and what makes two machines agree.
# Seen (Debian's cpp-12 12.2.0-14+deb12u1, x86-64): four statements that subtract and add in turn become one vfmaddsub
# at -O2 -mfma. Of 100,000 random quadruples three of four have a result of other bits than without -mfma. With
# -fno-tree-vectorize there is none. (On Cortex-M55 the same compiler makes vcmla of a complex product.)
# Matters: fixed results across processors, golden values of a library, and compensated sums rest on that option; the
# butterflies of a transform have just this pattern. Add -fno-tree-vectorize, or compare without -mfma.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
grep -qm1 '\bfma\b' /proc/cpuinfo || { echo "skipped: this processor has no FMA"; exit 0; }
apt-get download --quiet cpp-12=12.2.0-14+deb12u1 >/dev/null 2>&1
dpkg-deb -x cpp-12_*.deb root
cat > four.c <<'C'
void four(float *restrict o, const float *restrict a, const float *restrict b, const float *restrict c) {
    o[0] = a[0] * b[0] - c[0];
    o[1] = a[1] * b[1] + c[1];
    o[2] = a[2] * b[2] - c[2];
    o[3] = a[3] * b[3] + c[3];
}
C
cat > main.c <<'C'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
void four(float *restrict, const float *restrict, const float *restrict, const float *restrict);
int main(void) {
    float a[4], b[4], c[4], o[4];
    srand(1);
    for (int n = 0; n < 100000; n++) {
        for (int i = 0; i < 4; i++) a[i] = rand() / 1e9f, b[i] = rand() / 1e9f, c[i] = rand() / 1e9f;
        four(o, a, b, c);
        unsigned bits[4];
        memcpy(bits, o, sizeof bits);
        printf("%08x %08x %08x %08x\n", bits[0], bits[1], bits[2], bits[3]);
    }
    return 0;
}
C
compiler=root/usr/lib/gcc/x86_64-linux-gnu/12/cc1
for form in "plain:" "fma:-mfma" "apart:-mfma -fno-tree-vectorize"; do
    name=${form%%:*}
    # shellcheck disable=SC2086
    "$compiler" -quiet -O2 -std=c99 -ffp-contract=off ${form#*:} four.c -o "$name.s"
    cc -o "$name" main.c "$name.s"
    ./"$name" > "$name.txt"
    echo "$name: $(grep -c 'vfm' "$name.s" || true) fused, $(diff plain.txt "$name.txt" | grep -c '^>' || true) of 100000 differ"
done
grep -q vfmaddsub fma.s
! grep -q vfm apart.s
test "$(diff plain.txt fma.txt | grep -c '^>')" -gt 10000
cmp plain.txt apart.txt
echo "as described"
