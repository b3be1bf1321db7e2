"""What runs on the device. `edgekd_runner.py` is copied into every bundle as it is, so it imports nothing of edgekd."""
