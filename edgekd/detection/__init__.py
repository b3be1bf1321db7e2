"""From recordings to tables of events: what to listen to, listening, and going on where one stopped."""
