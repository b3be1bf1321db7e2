#!/usr/bin/env bash
# Debian's newlib for Arm prints %zu as "zu", the whole library as the small one, and then others' arguments.
#
# Expected: newlib's nano form leaves formats of C99 out, as its documents say; the whole library has them, since it is
# C99's: %zu prints a size.
# Seen (libnewlib-arm-none-eabi 3.3.0-1.3+deb12u1, gcc-arm-none-eabi 15:12.2.rel1-1, qemu-system-arm 7.2): without
# nano.specs too, printf("%zu %d", (size_t)8, 42) prints "zu 8". The letter is not known, so the size stays among the
# arguments, and each conversion after it takes the one before its own; a %s takes a number as an address. %jd and %td
# are the same. %hhd and %lld are known; with nano.specs neither is. The compiler warns of nothing. C99's formats are an
# option of newlib's build, --enable-newlib-io-c99-formats.
# Matters: a program that prints sizes works on this machine and where newlib was built with that option, and prints
# others' values with the distribution's. Print (unsigned long) with %lu.
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
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
int main(void) {
    printf("size: %zu %d\n", (size_t)8, 42);
    printf("largest: %jd %d\n", (intmax_t)8, 42);
    printf("difference: %td %d\n", (ptrdiff_t)8, 42);
    printf("small: %hhd %d\n", (signed char)8, 42);
    printf("long: %lld %d\n", 8LL, 42);
    return 0;
}
C
cat > vectors.c <<'C'
void _start(void);
__attribute__((section(".vectors"), used)) const void *const vectors[16] = {(void *)0x20010000, (void *)_start};
C
for name in whole nano; do
    specs=--specs=rdimon.specs
    if [ "$name" = nano ]; then specs="--specs=nano.specs $specs"; fi
    # shellcheck disable=SC2086
    arm-none-eabi-gcc -std=c99 -Wall -Wextra -Wformat=2 -Werror -mcpu=cortex-m3 -mthumb -O1 $specs \
        -Wl,--section-start=.vectors=0 -o say.elf say.c vectors.c
    timeout 60 qemu-system-arm -machine mps2-an385 -nographic -monitor none -serial none \
        -semihosting-config enable=on,target=native -kernel say.elf > "$name.txt"
    echo "$name: $(tr '\n' ';' < "$name.txt")"
done
cc -std=c99 -o say say.c
./say > here.txt
grep -qx 'size: 8 42' here.txt
for name in whole nano; do
    grep -qx 'size: zu 8' "$name.txt"
    grep -q '^largest: jd ' "$name.txt"
    grep -qx 'difference: td 8' "$name.txt"
done
grep -qx 'small: 8 42' whole.txt
grep -qx 'long: 8 42' whole.txt
grep -qx 'small: hd 8' nano.txt
grep -q '^long: ld ' nano.txt
echo "as described"
