"""What was heard when: events of recordings, in the tables that people and their viewers keep, and which are found."""
