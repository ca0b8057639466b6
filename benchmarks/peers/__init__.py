"""Other servers for the same models: how they are installed, started and asked."""
