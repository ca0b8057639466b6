"""The paths of a gateway: each takes a request to its dialect and a task to the bus."""
