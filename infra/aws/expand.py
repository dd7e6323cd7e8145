"""Prints template.yaml as CloudFormation sees it: SAM's types expanded, the definition of the state machine inlined.

Linters look at nothing inside SAM's types, nor into a file that a template names. Runs in the environment that
infra/aws/install.sh makes; asks AWS for nothing.

    expand.py TEMPLATE
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse


class NoManagedPolicies:
    """The template names none; if one comes, it is to be looked at by hand."""

    def load(self):
        return {}


def expand(path):
    """The template at this path, as CloudFormation sees it."""
    template = yaml_parse(path.read_text())
    definitions = {}
    for name, resource in template["Resources"].items():
        properties = resource.get("Properties", {})
        # SAM takes both from a bucket alone, where `sam deploy` puts them.
        if resource["Type"] == "AWS::Serverless::Function":
            properties["CodeUri"] = "s3://bucket/code.zip"
        if resource["Type"] == "AWS::Serverless::StateMachine":
            definitions[name] = (path.parent / properties["DefinitionUri"]).read_text()
            properties["DefinitionUri"] = "s3://bucket/definition.json"
    parameters = {name: parameter.get("Default", "") for name, parameter in template["Parameters"].items()}
    expanded = Translator(NoManagedPolicies(), Parser()).translate(template, parameters)
    for name, definition in definitions.items():
        properties = expanded["Resources"][name]["Properties"]
        del properties["DefinitionS3Location"]
        properties["DefinitionString"] = json.dumps(json.loads(definition))
    return expanded


if __name__ == "__main__":
    json.dump(expand(pathlib.Path(sys.argv[1]).resolve()), sys.stdout, indent=2)
