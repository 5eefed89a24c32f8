"""The errors a request can end with. Each knows its stable code; only the edge knows its HTTP status."""


class AppError(Exception):
    """Base of every error that is meant for the caller."""

    code = "error"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code


class BadRequestError(AppError):
    """The request cannot be understood."""

    code = "bad_request"


class UnauthenticatedError(AppError):
    """No valid identity, or an anonymous caller without the right."""

    code = "unauthenticated"


class MalformedCredentialError(UnauthenticatedError):
    """What was shown has no form of a credential. For the caller it is the same; only the metrics tell it apart."""


class TooManyAttemptsError(AppError):
    """The caller has failed to prove an identity too often; the credential was not looked at."""

    code = "too_many_attempts"

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("Too many attempts to prove an identity have failed. Try again later.")
        self.retry_after_seconds = retry_after_seconds


class RateLimitedError(AppError):
    """The caller has sent more requests than it may."""

    code = "rate_limited"

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("Too many requests. Try again later.")
        self.retry_after_seconds = retry_after_seconds


class ForbiddenError(AppError):
    """The caller can see the resource but may not do this."""

    code = "forbidden"


class NotFoundError(AppError):
    """Absent, or invisible to the caller: the two answers are equal to the byte."""

    code = "not_found"

    def __init__(self) -> None:
        super().__init__("There is no such resource, or you may not see it.")


class ConflictError(AppError):
    """The state of the resource does not allow this."""

    code = "conflict"


class PreconditionFailedError(AppError):
    """``If-Match`` names another revision."""

    code = "precondition_failed"

    def __init__(self) -> None:
        super().__init__("The resource has changed since the revision named in If-Match.")


class TooLargeError(AppError):
    """A limit on size is exceeded."""

    code = "too_large"


class UnsupportedMediaTypeError(AppError):
    """The body's content type is not the one this route takes."""

    code = "unsupported_media_type"


class UnavailableError(AppError):
    """Something the service depends on does not answer; trying again later may work."""

    code = "unavailable"


class InvalidError(AppError):
    """A value is not acceptable; ``pointer`` names it (RFC 6901 in a body, ``query.x`` elsewhere)."""

    code = "invalid"

    def __init__(self, detail: str, *, pointer: str, code: str = "value_error") -> None:
        super().__init__(detail)
        self.pointer = pointer
        self.reason = code
