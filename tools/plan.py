from s3_jax.cli import command, plan

if __name__ == "__main__":
    command.run(plan.main)
