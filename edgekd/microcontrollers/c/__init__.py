"""An integer network as sources of C, and what compiles and runs them here."""
