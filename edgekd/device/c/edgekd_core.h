/* What these sources ask of the core and of its compiler. */
#ifndef EDGEKD_CORE_H
#define EDGEKD_CORE_H

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "edgekd is for cores whose words have their lowest byte first"
#endif

#if defined(__GNUC__)
#define APART __attribute__((noinline)) /* inlined, loops would run out of registers, or cost those of others theirs */
#else
#define APART
#endif

/* Cores as the Cortex-M0+ read no words but at multiples of 4, and have no product of 64 bits. */
#if defined(__thumb__) && !defined(__thumb2__)
#define EDGEKD_SMALL_CORE 1
#else
#define EDGEKD_SMALL_CORE 0
#endif

#endif
