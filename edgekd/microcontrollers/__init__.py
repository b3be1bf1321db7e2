"""What takes an int8 student to a microcontroller: its form in integers alone, and that in C."""
