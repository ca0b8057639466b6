"""From a checkpoint's folder to weights in memory: how much fits, at which size, and reading it once."""
