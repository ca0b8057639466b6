"""The one error tree: what may go wrong, and what a caller may know of it.

ServingError
  + RequestError            the caller can fix it
    - InvalidRequest        400  a field is missing or breaks a rule
    - PromptTooLong         400  the prompt does not fit the model's context
    - Unauthorized          401  the key is missing or wrong
    - UnknownRoute          404  no such path
    - UnknownTask           404  no task of that name
    - UnknownModel          404  no model of that name
    - MethodNotAllowed      405  the path exists, but not for this method
    - BodyTooLarge          413  the body is over the limit
    - CannotDo              422  the model cannot do what the task asks
  + CapacityError           the same request may succeed later
    - NoWorker              503  no worker with a loaded model is connected
    - Overloaded            503  every worker's queue is full
    - WorkerLost            503  the worker was lost, and no other could go on with the task
    - DatabaseDown          503  the task's database does not answer
    - RowsChanged           503  the rows changed while the answer was made
    - UpstreamDown          503  the server behind an upstream model does not answer or broke off
    - Draining              503  the server is shutting down
    - TookTooLong           504  the task ran into its time limit
  + OutputError             the model did not do what was asked
    - OutputInvalid         502  the answer is not what the task promises
"""

from typing import ClassVar


class ServingError(Exception):
    """Base of every error raised on purpose.

    The class says what a caller may know: a stable `code`, the HTTP `status`, and whether the same
    request may be sent again. `retry_after_seconds` is set where the time is known.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RequestError(ServingError):
    """The request cannot be served as it stands."""

    code = "bad_request"
    status = 400


class InvalidRequest(RequestError):
    """A field of the request is missing, unknown or breaks a rule; the message names both."""

    code = "invalid_request"


class PromptTooLong(RequestError):
    """The prompt does not fit the model's context; the message holds both lengths in tokens."""

    code = "prompt_too_long"


class Unauthorized(RequestError):
    """The key is missing or wrong."""

    code = "unauthorized"
    status = 401


class UnknownRoute(RequestError):
    """No such path."""

    code = "unknown_route"
    status = 404


class UnknownTask(RequestError):
    """No worker knows a task of that name."""

    code = "unknown_task"
    status = 404


class UnknownModel(RequestError):
    """No worker serves a model of that name."""

    code = "unknown_model"
    status = 404


class MethodNotAllowed(RequestError):
    """The path exists, but not for this method."""

    code = "method_not_allowed"
    status = 405


class BodyTooLarge(RequestError):
    """The body is over the limit; the message holds the limit in bytes."""

    code = "body_too_large"
    status = 413


class CannotDo(RequestError):
    """The model cannot do what the task asks; the message names the parameter."""

    code = "cannot_do"
    status = 422


class CapacityError(ServingError):
    """Nobody can do the task now; the same request may succeed later."""

    code = "no_capacity"
    status = 503
    retryable = True


class NoWorker(CapacityError):
    """No worker with a loaded model is connected."""

    code = "no_worker"


class Overloaded(CapacityError):
    """Every worker that could do the task has a full queue."""

    code = "overloaded"


class WorkerLost(CapacityError):
    """The worker died or went silent while it held the task, and no other could go on with it."""

    code = "worker_lost"


class DatabaseDown(CapacityError):
    """The task's database does not answer."""

    code = "database_down"


class RowsChanged(CapacityError):
    """The rows changed in the database while the answer was made."""

    code = "rows_changed"


class UpstreamDown(CapacityError):
    """The server behind an upstream model does not answer, or broke off in the middle."""

    code = "upstream_down"


class Draining(CapacityError):
    """The server is shutting down and takes no new task."""

    code = "draining"


class TookTooLong(CapacityError):
    """The task ran into its time limit."""

    code = "took_too_long"
    status = 504


class OutputError(ServingError):
    """The model answered, but not with what the task promises."""

    code = "bad_output"
    status = 502
    retryable = True


class OutputInvalid(OutputError):
    """The answer is not of the form that the task promises."""

    code = "output_invalid"
