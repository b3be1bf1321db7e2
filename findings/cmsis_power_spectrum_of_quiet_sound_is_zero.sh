#!/usr/bin/env bash
# CMSIS-DSP's power spectrum in 32-bit fixed point is zero for sound that 16 bits hold well.
#
# Expected: q31 is there for what q15 cannot hold: the spectrum of 16-bit samples in 32 bits has its powers, to a few
# digits.
# Seen (cmsisdsp 1.10.3, its C library): arm_rfft_q31 of 512 samples divides by 512, and arm_cmplx_mag_squared_q31 gives
# 3.29: both are in its manual. Together noise at -61 dB of full scale (samples of +-30) has 0 in 3 of 4 bins and 1 or 2
# in the others, and at -70 dB in all of them. At -50 dB one bin of twelve is 0.
# Matters: a log-mel made of these two functions, as examples for boards without an FPU do, hears nothing below -60 dB,
# where birds far off are; the logarithm sees 0. The transform itself has the bits: square it in 64 bits (an
# int64_t sum for each filter), or shift a block up by its headroom first and subtract that from the logarithm.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 cmsisdsp==1.10.3
cd "$work"
venv/bin/python -I - <<'PY'
import cmsisdsp
import numpy as np

random, zeros = np.random.default_rng(0), {}
for deviation in (10, 30, 100, 300):
    samples = np.round(random.normal(0, deviation, 512)).astype("int16")
    transform = cmsisdsp.arm_rfft_instance_q31()
    assert cmsisdsp.arm_rfft_init_q31(transform, 512, 0, 1) == 0
    bins = np.array(cmsisdsp.arm_rfft_q31(transform, samples.astype("int32") << 16))[:514]
    powers = np.array(cmsisdsp.arm_cmplx_mag_squared_q31(bins))
    exact = np.abs(np.fft.rfft(samples / 32768)) ** 2 / 512**2 * 2**29
    wide = (bins.reshape(-1, 2).astype("int64") ** 2).sum(1) / 2**33
    zeros[deviation] = int((powers == 0).sum())
    print(deviation, "zero in", zeros[deviation], "of 257 bins;", powers[:4], "exactly", exact[:4].round(2))
    assert np.allclose(wide, exact, rtol=0.05, atol=0.01), "the transform has the bits"
assert zeros == {10: 257, 30: 196, 100: 22, 300: 2}
PY
echo "as described"
