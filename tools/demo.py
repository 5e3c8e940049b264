from s3_jax.cli import command, demo

if __name__ == "__main__":
    command.run(demo.main)
