from s3_jax.cli import command, first_annotations

if __name__ == "__main__":
    command.run(first_annotations.main)
