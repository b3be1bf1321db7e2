"""What tests of several data sets share."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def damaged() -> Callable[[bytes, random.Random], bytes]:
    """`damaged(content, rng)`: a table after one to four accidents: other, lost or moved bytes, lines and fields."""

    def damage(content: bytes, rng: random.Random) -> bytes:
        for _ in range(rng.randint(1, 4)):
            at, accident = rng.randrange(len(content) + 1), rng.randrange(9)
            lines = content.split(b"\n")
            if accident == 0:
                content = content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
            elif accident == 1:
                content = content[:at]
            elif accident == 2:
                content = (
                    content[:at] + rng.choice([b"\0", b'"', b",", b"\r", b"\xff\xfe", b"-", b"../"]) + content[at:]
                )
            elif accident == 3:
                content = b"\n".join(rng.sample(lines, len(lines)))
            elif accident == 4:
                del lines[rng.randrange(len(lines))]
                content = b"\n".join(lines)
            elif accident == 5:
                content = content[:at] + b"9" * rng.choice([30, 300, 5_000, 200_000]) + content[at:]
            elif accident == 6:
                content = content.decode("latin-1").encode(rng.choice(["utf-16", "utf-8-sig", "utf-8"]))
            elif accident == 7:
                content = content.replace(b",", rng.choice([b";", b"\t", b",,", b"|"]))
            else:
                lines[rng.randrange(len(lines))] = b",".join(
                    rng.sample([b"nan", b"-1", b"1e999", b"", b"~x/a", b" "], 6)
                )
                content = b"\n".join(lines)
        return content

    return damage
