"""What `make aws-test` does with the account of the AWS that runs here, beside what SAM does. Runs in MiniStack's environment.

    account.py bucket NAME             makes a bucket
    account.py operator STACK POLICY   makes a user with the policy, filled in for the stack, and prints it with the outputs
"""

import json
import pathlib
import sys

import boto3


def outputs(stack):
    found = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]["Outputs"]
    return {output["OutputKey"]: output["OutputValue"] for output in found}


def operator(stack, policy):
    """A user that may do what the policy says, and nothing else."""
    of_stack = outputs(stack)
    machine = of_stack["StateMachineArn"]
    bucket, _, prefix = of_stack["State"].removeprefix("s3://").partition("/")
    for placeholder, value in {
        "123456789012": machine.split(":")[4],
        "us-east-1": machine.split(":")[3],
        "STATE-MACHINE": machine.split(":")[-1],
        "STATE-BUCKET": bucket,
        "STATE-PREFIX": prefix,
    }.items():
        policy = policy.replace(placeholder, value)
    iam = boto3.client("iam")
    name = f"{stack}-operator"
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="operator", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"outputs": of_stack, "key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["bucket", name]:
            boto3.client("s3").create_bucket(Bucket=name)
        case ["operator", stack, policy]:
            print(json.dumps(operator(stack, pathlib.Path(policy).read_text())))
        case _:
            sys.exit(__doc__)
