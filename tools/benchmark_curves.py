from s3_jax.cli import command
from s3_jax.cli.bench import curves

if __name__ == "__main__":
    command.run(curves.main)
