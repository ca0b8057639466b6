"""What computes a step: each executor runs rows of tokens on one kind of device."""
