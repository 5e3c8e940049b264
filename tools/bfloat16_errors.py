from s3_jax.cli import command
from s3_jax.cli.bench import bfloat16

if __name__ == "__main__":
    command.run(bfloat16.main)
