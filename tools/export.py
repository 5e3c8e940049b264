from s3_jax.cli import command, export

if __name__ == "__main__":
    command.run(export.main)
