from s3_jax.cli import command, score

if __name__ == "__main__":
    command.run(score.main)
