"""A search by trials: a recipe with holes, filled by a sampler, run, judged, and kept in a storage."""
