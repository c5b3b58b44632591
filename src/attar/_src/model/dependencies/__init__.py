"""Which channels of a captured program go together, so that they can be removed."""
