from s3_jax.cli import command
from s3_jax.cli.bench import data

if __name__ == "__main__":
    command.run(data.main)
