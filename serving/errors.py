"""Everything serving can refuse, each with its HTTP status; the one place statuses are decided.

ServingError                 500  exit code 1
├── BadRequest               422  the caller can mend it
│   ├── MalformedBody        400  not JSON
│   ├── Unauthenticated      401  a key is needed
│   ├── Forbidden            403  the key may not do this
│   ├── UnknownPath          404  nothing is served there
│   ├── UnknownModel         404  another model is
│   ├── NoCache              404  this server keeps no answers
│   ├── NoShadow             404  no candidate runs beside what is served
│   ├── WrongMethod          405  something is, but not for this method
│   ├── SlowBody             408  the body did not come in time
│   ├── Conflict             409  somebody else changed it before
│   ├── TooLarge             413  body or batch beyond the limit
│   ├── WrongMedia           415  the body is of another type than the path takes
│   ├── TextTooLong          422  more tokens than the model reads, and cutting was not allowed
│   └── WrongInput           422  missing, empty, or of the wrong type
├── Unavailable              503  try again later, after retry_after_s
│   ├── Overloaded           429  the queue is full, or as many streams are open as may be
│   ├── RateLimited          429  more texts a second than the key may ask
│   ├── QuotaUsedUp          429  more texts a day than the key may ask
│   ├── RedisUnreachable     503  Redis, which this needs, does not answer
│   └── NotReady             503  still warming up, draining, or its keys or the model cannot be loaded
├── DeadlineExceeded         504  the answer would have come too late
├── EngineFailed             500  the model, or its canonicaliser, failed on this input
├── InternalError            500  a bug of the server's; its log says more
├── PackageError             500  the package cannot be served (start-up, never per request)
└── PortInUse                500  somebody listens there already (start-up)

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
    """The body is not JSON."""

    status = 400


class Unauthenticated(BadRequest):
    """A valid API key is needed."""

    status = 401


class Forbidden(BadRequest):
    """The API key may ask, but not do this."""

    status = 403


class SlowBody(BadRequest):
    """The body did not come in time."""

    status = 408


class UnknownPath(BadRequest):
    """Nothing is served at this path."""

    status = 404


class UnknownModel(BadRequest):
    """No model of this name or version is served here."""

    status = 404


class NoCache(BadRequest):
    """This server keeps no answers."""

    status = 404


class NoShadow(BadRequest):
    """No candidate runs beside what is served."""

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


class Conflict(BadRequest):
    """Somebody else has changed it since it was looked at."""

    status = 409


class WrongMedia(BadRequest):
    """The body is of another type than the path takes."""

    status = 415


class TextTooLong(BadRequest):
    """A text has more tokens than the model reads, and the caller does not want it cut."""


class WrongInput(BadRequest):
    """A field is missing, empty or of the wrong type."""


class Unavailable(ServingError):
    """Not now; the same request may succeed later."""

    status = 503

    def __init__(self, message: str, *, retry_after_s: float = 1.0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """More work waits, or more streams are open, than allowed."""

    status = 429


class RateLimited(Unavailable):
    """The API key asks more texts a second than it may."""

    status = 429


class QuotaUsedUp(Unavailable):
    """The API key has asked as many texts today as it may."""

    status = 429


class RedisUnreachable(Unavailable):
    """Redis does not answer, and this cannot be done without it."""


class NotReady(Unavailable):
    """Still warming up, draining before shut-down; or the file of keys, or this model, cannot be loaded."""


class DeadlineExceeded(ServingError):
    """The answer would have come later than the caller's deadline."""

    status = 504


class EngineFailed(ServingError):
    """The model, or the package's canonicaliser, raised on this input; alone, too."""


class InternalError(ServingError):
    """The server failed, which is a bug; its log says more."""


class PackageError(ServingError):
    """The model package cannot be served: damaged, of another schema, or unfit for this machine."""


class PortInUse(ServingError):
    """The address is taken."""


# What no request meets: it is raised before there is a server.
START_UP = (PackageError, PortInUse)
