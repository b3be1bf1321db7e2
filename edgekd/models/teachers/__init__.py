"""Teachers: networks that map a waveform to logits and an early feature map. `table` lists them."""
