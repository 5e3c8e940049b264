from s3_jax.cli import command
from s3_jax.cli.bench import prompts

if __name__ == "__main__":
    command.run(prompts.main)
