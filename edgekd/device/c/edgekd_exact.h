/* To be included before all else where there are floating-point numbers: no product is fused with a sum, whatever the
 * compiler is told, so that all processors round alike. GCC's vectoriser fuses where -ffp-contract=off forbids it. */
#ifndef EDGEKD_EXACT_H
#define EDGEKD_EXACT_H

#ifdef __FAST_MATH__
#error "edgekd: compile this file without -ffast-math (and -Ofast), which changes the log-mel"
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off", "no-tree-vectorize") /* it ignores the other */
#else
#pragma STDC FP_CONTRACT OFF
#endif

#endif
