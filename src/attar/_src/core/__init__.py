"""The bottom layer: errors, registries, specs, schemes and compressed tensors, in numpy alone."""
