#!/usr/bin/env bash
# python-soundfile cannot read a FLAC file whose header leaves the length open, though libsndfile can.
#
# In the STREAMINFO block 0 total samples means "unknown" (RFC 9639, 8.2); an encoder that writes to a pipe leaves it
# so.
# Expected: such a file is read to its end, as the format's own decoder does.
# Seen (soundfile 0.14.0, libsndfile 1.2.2): `info` gives 9223372036854775807 frames, and reading the 4001 that are
# there raises "Internal psf_fseek() failed", since after each read soundfile seeks to where it stands. A subclass
# that says it cannot seek reads them.
# Matters: field recorders stream FLAC; an index that trusts `frames` plans windows for three million years.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 soundfile==0.14.0
cd "$work"
venv/bin/python -I - <<'PY'
import numpy as np
import soundfile

samples = np.random.default_rng(0).integers(-3000, 3000, 4001).astype("int16")
soundfile.write("clip.flac", samples, 8000)
data = bytearray(open("clip.flac", "rb").read())
assert data[:4] == b"fLaC" and int.from_bytes(data[21:26], "big") & 0xFFFFFFFFF == 4001
data[21] &= 0xF0
data[22:26] = bytes(4)
open("clip.flac", "wb").write(data)


class Forward(soundfile.SoundFile):
    def seekable(self):
        return False


print("frames:", soundfile.info("clip.flac").frames)
assert soundfile.info("clip.flac").frames == 2**63 - 1
try:
    with soundfile.SoundFile("clip.flac") as file:
        file.read(4001)
except soundfile.LibsndfileError as error:
    print("read:", error)
    assert "psf_fseek" in str(error)
else:
    raise SystemExit("it reads")
with Forward("clip.flac") as file:
    assert np.array_equal(file.read(4001, dtype="int16"), samples)
PY
