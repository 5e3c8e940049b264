from s3_jax.cli import baselines, command

if __name__ == "__main__":
    command.run(baselines.main)
