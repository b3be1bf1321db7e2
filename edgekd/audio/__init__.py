"""Recordings to waveforms: what a file holds, decoded, mixed to one channel, resampled, windowed."""
