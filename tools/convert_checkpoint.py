from s3_jax.cli import command, convert

if __name__ == "__main__":
    command.run(convert.main)
