"""What keeps a worker from starting."""


class CannotLoad(Exception):
    """The model cannot be served from here; the message is one line for the person who asked for it."""
