"""What a worker process is made of: the loop that serves gateways, and the models that it may serve."""
