from s3_jax.cli import command, prepare

if __name__ == "__main__":
    command.run(prepare.main)
