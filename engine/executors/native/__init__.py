"""A fused step in C++ for CPUs: all of a model in one parallel region, weights packed for vectors."""
