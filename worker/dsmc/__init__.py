"""The one gate to the external program: its arguments, its supervised run, its transcript, what it meant."""
