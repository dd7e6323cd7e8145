"""Has parliament look at every policy: those of template.yaml and those of infra/iam. Prints a line for each finding.

    policies.py TEMPLATE POLICY...
"""

import json
import pathlib
import re
import sys

import parliament

from expand import expand

# What stands for a reference: parliament looks at the form of a resource's ARN, not at whether it is there.
REFERENCES = {
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::AccountId": "123456789012",
    "AWS::StackName": "stack",
    "StatePrefix": "prefix",
    "StateBucket": "bucket",
    "StateBucketName": "bucket",
    "StateBucket.Arn": "arn:aws:s3:::bucket",
    "FunctionLog.Arn": "arn:aws:logs:us-east-1:123456789012:log-group:function:*",
    "Function.Arn": "arn:aws:lambda:us-east-1:123456789012:function:function",
    "Machine": "arn:aws:states:us-east-1:123456789012:stateMachine:machine",
    "Machine.Name": "machine",
    "StateKeyArn": "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000",
    "SecretKeyArns": "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000",
    "SecretArns": "arn:aws:secretsmanager:us-east-1:123456789012:secret:shop-abcdef",
    "ParameterArns": "arn:aws:ssm:us-east-1:123456789012:parameter/shop",
}
NOTHING = {"Ref": "AWS::NoValue"}

# What parliament says and is right as it is: the issue, a word of the finding, and why.
ACCEPTED = [
    # No interface is there yet when Lambda makes one, and parliament does not see that the second statement denies.
    ("RESOURCE_STAR", "ec2:CreateNetworkInterface"),
    # Lambda adds this key to every request of a function's code; it is in no list of a service's keys.
    ("UNKNOWN_CONDITION_FOR_ACTION", "lambda:SourceFunctionArn"),
    # These actions are for executions of EXPRESS machines and for map runs, too, which nobody asks for here.
    ("RESOURCE_MISMATCH", ":express:"),
    ("RESOURCE_MISMATCH", ":mapRun:"),
]


def resolve(value, known):
    """A policy without functions; of an Fn::If what comes with its condition, which is what grants more."""
    known = REFERENCES | known
    if isinstance(value, list):
        return [resolve(item, {}) for item in value if item != NOTHING]
    if not isinstance(value, dict):
        return value
    if "Ref" in value:
        return known[value["Ref"]]
    if "Fn::GetAtt" in value:
        return known[".".join(value["Fn::GetAtt"])]
    if "Fn::If" in value:
        return resolve(value["Fn::If"][1], {})
    if "Fn::Sub" in value:
        text, names = value["Fn::Sub"] if isinstance(value["Fn::Sub"], list) else (value["Fn::Sub"], {})
        known |= {name: resolve(item, {}) for name, item in names.items()}
        return re.sub(r"\$\{([^}]+)\}", lambda match: known[match.group(1)], text)
    return {name: resolve(item, {}) for name, item in value.items() if item != NOTHING}


def documents(value, where):
    """All policies in a part of a template, each with where it is."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from documents(item, f"{where}.{number}")
    elif isinstance(value, dict):
        for name, item in value.items():
            # Not who may assume a role: parliament wants resources in that, too.
            if name == "PolicyDocument":
                yield where, resolve(item, {})
            else:
                yield from documents(item, f"{where}.{name}")


def complaints(policies):
    """What parliament has against them, a line each; and what is accepted although nobody complains any more."""
    unheard = set(ACCEPTED)
    for where, policy in policies:
        for finding in parliament.analyze_policy_string(json.dumps(policy)).findings:
            text = f"{finding.detail}"
            accepted = [entry for entry in ACCEPTED if entry[0] == finding.issue and entry[1] in text]
            unheard -= set(accepted)
            if not accepted:
                yield f"{where}: {finding.issue}: {text}"
    for issue, word in sorted(unheard):
        yield f"policies.py accepts {issue} with {word}, which nobody says any more; remove it there"


if __name__ == "__main__":
    template, *files = [pathlib.Path(argument).resolve() for argument in sys.argv[1:]]
    policies = list(documents(expand(template)["Resources"], "template"))
    policies += [(file.name, json.loads(file.read_text())) for file in files]
    found = list(complaints(policies))
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found else 0)
