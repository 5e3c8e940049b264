from s3_jax.cli import command, train_prompts

if __name__ == "__main__":
    command.run(train_prompts.main)
