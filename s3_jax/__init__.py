"""S3 video object segmentation (ICLR 2025) in JAX and Flax."""

__version__ = "0.1.0"
