from s3_jax.cli import annotate, command

if __name__ == "__main__":
    command.run(annotate.main)
