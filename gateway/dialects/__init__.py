"""One pure file per protocol: bytes of a body to a Task, events to bytes of an answer."""
