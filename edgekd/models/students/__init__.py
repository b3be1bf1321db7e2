"""Students: networks that map a normalised log-mel to logits and an early feature map. `table` lists them."""
