#!/usr/bin/env bash
# emlearn's mel spectrogram in C is that of the real part of the transform alone, and changes with the phase of a tone.
#
# Expected: a power spectrum is that of magnitudes, real and imaginary part, so a steady tone has the same mel energies
# wherever a frame begins.
# Seen (emlearn 0.23.2, eml_audio.h): eml_audio_melspectrogram hands the real part that eml_fft_forward leaves in its
# input to eml_audio_power_spectrogram, which squares its magnitude; the imaginary part, in the temporary buffer, is
# overwritten. A tone of 1 kHz at 16 kHz, whose bin is whole (32 of 512): begun as a cosine it has the energy that it
# should have in its mel bins, half-way half of it, begun as a sine a hundred-thousandth.
# Matters: features of the same sound change by up to 49 dB from frame to frame, and a classifier that was trained on
# librosa's mels, with htk=True as the header suggests, sees others on the board. Take eml_fft_forward and add the
# squares of both parts, then eml_audio_melspec.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-deps emlearn==0.23.2
cd "$work"
cat > mel.c <<'C'
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <math.h>
#include "eml_vector.h"
#include "eml_audio.h"
#define N 512
#define MELS 32

static float sines[N / 2], cosines[N / 2], sound[N], other[N], power[N], mels[MELS];

static void tone(double phase) {
    for (int n = 0; n < N; n++) sound[n] = (float)cos(2 * M_PI * 32 * n / N + phase);
}

static float largest(const float *values) {
    float found = 0;
    for (int i = 0; i < MELS; i++) if (values[i] > found) found = values[i];
    return found;
}

int main(void) {
    EmlFFT fft = {N / 2, sines, cosines};
    EmlAudioMel mel = {MELS, 0.0f, 8000.0f, N, 16000};
    if (eml_fft_fill(fft, N)) return 1;
    for (int eighth = 0; eighth < 3; eighth++) {
        double phase = M_PI / 4 * eighth;
        EmlVector all = {sound, N}, temporary = {other, N}, spectrum = {power, N / 2 + 1}, out = {mels, MELS};
        tone(phase);
        if (eml_audio_melspectrogram(mel, fft, all, temporary)) return 2;
        float theirs = largest(sound);
        tone(phase);
        for (int n = 0; n < N; n++) other[n] = 0;
        if (eml_signal_hann_apply(sound, N) || eml_fft_forward(fft, sound, other, N)) return 3;
        for (int k = 0; k <= N / 2; k++) power[k] = (sound[k] * sound[k] + other[k] * other[k]) / N;
        if (eml_audio_melspec(mel, spectrum, out)) return 4;
        printf("phase %d/4 pi: theirs %g, of both parts %g\n", eighth, theirs, largest(mels));
    }
    return 0;
}
C
headers=$(echo venv/lib/python3*/site-packages/emlearn)
cc -std=gnu99 -O1 -w -I"$headers" -o mel mel.c -lm
./mel | tee said.txt
venv/bin/python -I - <<'PY'
import re

rows = [tuple(map(float, re.findall(r"theirs (\S+), of both parts (\S+)", line)[0])) for line in open("said.txt")]
(cosine, whole), (between, _), (sine, _) = rows
assert all(abs(both - whole) < 0.01 * whole for _, both in rows), "the energy does not depend on the phase"
assert abs(cosine - whole) < 0.01 * whole and 0.4 * whole < between < 0.6 * whole and sine < 1e-4 * whole
PY
echo "as described"
