from s3_jax.cli import command, visualize

if __name__ == "__main__":
    command.run(visualize.main)
