"""Entry point of `python -m s3_jax`, the same as the command `s3`."""

from s3_jax.cli.main import main

if __name__ == "__main__":
    main()
