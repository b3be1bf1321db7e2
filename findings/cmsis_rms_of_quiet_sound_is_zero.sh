#!/usr/bin/env bash
# CMSIS-DSP's rms and standard deviation of 16-bit sound are 0 below -45 dB of full scale.
#
# Expected: the rms of q15 samples is a q15 number, right to a step or two: 100 for samples of 100.
# Seen (cmsisdsp 1.10.3, its C library): the mean square is cut to 15 bits before the root. Samples of +-180 or less,
# -45 dB, have an rms and a deviation of 0; above it goes 181, 256, 313: samples of 200 have 181, and so do samples of
# 250. In q31 the same sound is right to a step of 16 bits.
# Matters: 16-bit recordings of a quiet place lie below that, so that a level meter, a gate or a normalisation by the
# deviation on a microcontroller sees digital silence, and divides by 0. Take arm_power_q15, which keeps all bits, and
# divide and take the root in 32 bits or more.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 cmsisdsp==1.10.3
cd "$work"
venv/bin/python -I - <<'PY'
import cmsisdsp
import numpy as np

levels = [50, 100, 180, 182, 200, 250, 300, 1000]
found = []
for level in levels:
    samples = np.tile(np.array([level, -level], "int16"), 128)
    rms, deviation = int(cmsisdsp.arm_rms_q15(samples)), int(cmsisdsp.arm_std_q15(samples))
    wide = float(cmsisdsp.arm_rms_q31(samples.astype("int32") << 16)) / 65536
    power = int(cmsisdsp.arm_power_q15(samples))
    found.append(rms)
    print(level, "rms", rms, "deviation", deviation, "rms in q31", wide, "from the power", (power / 256) ** 0.5)
    assert abs(wide - level) < 1 and power == 256 * level**2
    assert deviation == rms
assert found == [0, 0, 0, 181, 181, 181, 256, 991]
PY
