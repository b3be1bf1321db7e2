#!/usr/bin/env bash
# A short Ogg Vorbis file whose last page lacks the end-of-stream flag comes back with a piece cut out of its middle.
#
# A recorder that is switched off leaves no flag; RFC 3533 (section 6) has it in the last page of a stream.
# Expected: the same sound, perhaps with the surplus of its last block: the flag says only that nothing follows.
# Seen (soundfile 0.14.0 and 0.13.1, libsndfile 1.2.2): 4001 samples in one page of sound, which decode to 4096 before
# trimming. Without the flag, and with the page's checksum made anew, there are 4001 again: the 95 that are too many
# are taken off at the beginning of the last block, at sample 3840, and not at its end.
# Matters: a jump in the sound and a shift after it, in short clips, depending on how a file was ended; the length is
# right, so no check of lengths sees it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6 soundfile==0.14.0
cd "$work"
venv/bin/python -I - <<'PY'
import av
import numpy as np
import soundfile


def checksum(page):
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x104C11DB7 if value & 0x80000000 else 0)
    return value


soundfile.write("clip.ogg", 0.1 * np.random.default_rng(0).standard_normal(4001), 8000)
data = open("clip.ogg", "rb").read()
last = data.rindex(b"OggS")
page = bytearray(data[last:])
stored = int.from_bytes(page[22:26], "little")
page[22:26] = bytes(4)
assert checksum(page) == stored and page[5] & 4
page[5] &= ~4
page[22:26] = checksum(page).to_bytes(4, "little")
with open("open.ogg", "wb") as file:
    file.write(data[:last] + page)
ended, unended = soundfile.read("clip.ogg")[0], soundfile.read("open.ogg")[0]
with av.open("clip.ogg") as container:
    untrimmed = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
differing = np.flatnonzero(np.abs(ended - unended) > 1e-6)
print("lengths:", len(ended), len(unended), "untrimmed:", len(untrimmed), "equal up to", differing[0])
assert len(ended) == len(unended) == 4001 and len(untrimmed) == 4096
assert differing[0] == 3840
assert np.allclose(ended, untrimmed[:4001], atol=1e-6)
assert np.allclose(unended, np.concatenate([untrimmed[:3840], untrimmed[3840 + 95 :]]), atol=1e-6)
PY
