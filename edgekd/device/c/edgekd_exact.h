/* To be included before all else where there are floating-point numbers: no product is fused with a sum, and none is done
 * in another order or with more digits, so that all processors round alike. GCC's vectoriser fuses where
 * -ffp-contract=off forbids it. Clang does not let -ffp-contract=fast be taken back: build without that. */
#ifndef EDGEKD_EXACT_H
#define EDGEKD_EXACT_H

#include <float.h>

#ifdef __FAST_MATH__
#error "edgekd: compile this file without -ffast-math (and -Ofast), which changes the log-mel"
#endif
#if FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16 /* 16: numbers of 16 bits are taken as they are, too */
#error "edgekd: floats have more digits here, which changes the log-mel: compile this file with -msse2 -mfpmath=sse"
#endif

#if defined(__clang__)
#pragma clang fp contract(off) reassociate(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off", "no-tree-vectorize", "no-associative-math", "no-reciprocal-math")
#else
#pragma STDC FP_CONTRACT OFF
#endif

#endif
