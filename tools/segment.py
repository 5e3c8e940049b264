from s3_jax.cli import command, segment

if __name__ == "__main__":
    command.run(segment.main)
