"""Train heads from cached tensors: one pass over the data shows each batch to every head."""
