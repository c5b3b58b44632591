"""Reconstruction: codes, scales and biases after training, chosen by the outputs of blocks and of the network."""
