from s3_jax.cli import command
from s3_jax.cli.bench import soak

if __name__ == "__main__":
    command.run(soak.main)
