"""Methods of compression on one module: each tuned to the same bytes, or to the same loss, and measured alike."""
