"""S3 video object segmentation (ICLR 2025) in JAX and Flax."""
