"""Everything that speaks ZeroMQ: gateways bind, workers dial, envelopes of `contract` travel between them."""
