"""Everything serving can refuse, each with its HTTP status; the one place statuses are decided.

ServingError                 500  exit code 1
├── BadRequest               422  the caller can mend it
│   ├── MalformedBody        400  not JSON, or not an object
│   ├── UnknownPath          404  nothing is served there
│   ├── WrongMethod          405  something is, but not for this method
│   ├── TooLarge             413  body or batch beyond the limit
│   └── WrongInput           422  missing, empty, or of the wrong type
├── Unavailable              503  try again later
│   ├── Overloaded           429  queue full; carries retry_after_s
│   └── NotReady             503  still warming up, or draining
├── DeadlineExceeded         504  the answer would have come too late
├── EngineFailed             500  the model failed on this input
└── PackageError             500  the package cannot be served (start-up, never per request)
    └── PortInUse                 (start-up) somebody listens there already

Every message says what was seen, what was expected and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class ServingError(Exception):
    """Base of all. `hint` is the way out, shown beside the message."""

    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadRequest(ServingError):
    """The caller sent something that can never be answered."""

    status = 422


class MalformedBody(BadRequest):
    """The body is not JSON, or not an object."""

    status = 400


class UnknownPath(BadRequest):
    """Nothing is served at this path."""

    status = 404


class WrongMethod(BadRequest):
    """The path takes other methods; `allow` names them."""

    status = 405

    def __init__(self, message: str, *, allow: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.allow = allow


class TooLarge(BadRequest):
    """The body, a text or the number of texts is beyond the limit."""

    status = 413


class WrongInput(BadRequest):
    """A field is missing, empty or of the wrong type."""


class Unavailable(ServingError):
    """Not now; the same request may succeed later."""

    status = 503


class Overloaded(Unavailable):
    """The queue holds more milliseconds of work than allowed."""

    status = 429

    def __init__(self, message: str, *, retry_after_s: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class NotReady(Unavailable):
    """Still warming up, or draining before shut-down."""


class DeadlineExceeded(ServingError):
    """The answer would have come later than the caller's deadline."""

    status = 504


class EngineFailed(ServingError):
    """The model raised on this input, alone as well as in a batch."""


class PackageError(ServingError):
    """The model package cannot be served: damaged, of another schema, or unfit for this machine."""


class PortInUse(ServingError):
    """The address is taken."""
