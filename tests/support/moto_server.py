"""moto's server, with a Step Functions that runs its state machines.

Its interpreter is as it is, but for this:

- Functions are invoked at the local Lambda (tests/support/lambda): the port of its Invoke API is in the function's name,
  `mongoferry-PORT`. Items of a Distributed Map are read from the server at MOTO_S3_ENDPOINT.
- Pauses before a retry take MOTO_RETRY_SCALE of their time. The definition stays what it is.
- A child of a Distributed Map that fails lets the Map fail, and stops the other children, as AWS does where no failure is
  tolerated. moto counts it and goes on.
- A child has a history of its own, and it is written to the file MOTO_HISTORIES when the child ends: a line of JSON each.
"""

import datetime
import functools
import json
import os
import re
import threading
import time
import types

import boto3
from botocore.config import Config

import moto.server
from moto.core.config import default_user_config
from moto.stepfunctions.parser.api import HistoryEventType, MapRunFailedEventDetails
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_map.item_reader.eval import resource_eval_s3
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration.distributed_iteration_component import (
    DistributedIterationComponent,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration.itemprocessor.distributed_item_processor_worker import (
    DistributedItemProcessorWorker,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.eval.event.event_manager import EventManager
from moto.stepfunctions.parser.asl.eval.program_state import ProgramError

writing = threading.Lock()


@functools.cache
def client(service, endpoint, key="key", secret="secret"):
    """Made once: a client takes longer to make than a small step runs."""
    config = Config(
        parameter_validation=False,
        retries={"total_max_attempts": 1},
        read_timeout=1000,
        max_pool_connections=100,
        s3={"addressing_style": "path"},
    )
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=config,
    )


class Functions:
    """Looks a lambda client up by the function's name."""

    @staticmethod
    def invoke(**parameters):
        port = re.search(r"mongoferry-(\d+)", parameters["FunctionName"]).group(1)
        with writing:
            of_function = client("lambda", f"http://127.0.0.1:{port}")
        return of_function.invoke(**parameters)


def items(**_):
    with writing:
        return client(
            "s3", os.environ["MOTO_S3_ENDPOINT"], os.environ["MOTO_S3_KEY"], os.environ["MOTO_S3_SECRET"]
        )


lambda_eval_utils.boto_client_for = lambda **_: Functions
resource_eval_s3.boto_client_for = items

scale = float(os.environ["MOTO_RETRY_SCALE"])
retrier_decl.time = types.SimpleNamespace(sleep=lambda seconds: time.sleep(seconds * scale))

evaluate = DistributedItemProcessorWorker._eval_job
run_map = DistributedIterationComponent._map_run


def evaluate_and_tell(self, env, job):
    env.event_manager = EventManager()
    evaluate(self, env, job)
    history = {
        "execution": env.states.context_object.context_object_data["Execution"]["Id"],
        "map": self._work_name,
        "item": job.job_index,
        "events": env.event_manager.get_event_history(),
    }
    with writing, open(os.environ["MOTO_HISTORIES"], "a") as file:
        file.write(json.dumps(history, default=str) + "\n")
    if isinstance(env.program_state(), ProgramError):
        error = StatesErrorName(typ=StatesErrorNameType.StatesExceedToleratedFailureThreshold)
        details = MapRunFailedEventDetails(
            error=error.error_name, cause="The specified tolerated failure threshold was exceeded"
        )
        failure = FailureEvent(
            env=env,
            error_name=error,
            event_type=HistoryEventType.MapStateFailed,
            event_details=EventDetails(mapRunFailedEventDetails=details),
        )
        job.job_output = FailureEventException(failure_event=failure)


def run_map_to_the_first_failure(self, env, eval_input):
    try:
        run_map(self, env, eval_input)
    except FailureEventException:
        for child in list(env._frames):
            child.set_stop(stop_date=datetime.datetime.now(tz=datetime.timezone.utc), cause=None, error=None)
        raise


DistributedItemProcessorWorker._eval_job = evaluate_and_tell
DistributedIterationComponent._map_run = run_map_to_the_first_failure
default_user_config["stepfunctions"] = {"execute_state_machine": True}

if __name__ == "__main__":
    moto.server.main()
