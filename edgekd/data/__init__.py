"""Recordings to labelled, split, decoded clips.

`load` recognises a data set's layout (`layouts/`) and gives a `ClipIndex` (`index`); `splits` deals its clips to three
sides, `clip_store` decodes them (`edgekd.audio`) once. `simulation/` makes sonar.
"""
