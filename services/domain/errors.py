"""The one error tree, named by what the caller should do.

LoupeError
├── RetryLater            transient: the same call may succeed later, nothing was lost
│   ├── BrokerUnavailable
│   ├── StoreUnavailable
│   ├── DatabaseUnavailable
│   ├── CacheUnavailable
│   ├── ModelUnavailable
│   ├── SourceUnavailable
│   ├── StorageFull
│   └── Overloaded
├── Rejected              never retry: quarantine the record, or tell the person, with the reason
│   ├── UnreadableImage
│   ├── ImageTooLarge
│   ├── MalformedRecord
│   ├── HashMismatch
│   ├── FrameCrashesModel
│   ├── UnknownProject
│   ├── UnknownObject
│   ├── NotEnoughImages
│   ├── Cancelled
│   └── BadRequest
└── StopProcess           the process cannot go on; fail it so that its supervisor restarts it
    ├── BadSettings
    ├── SizeLimitsDisagree
    ├── PoisonShareExceeded
    ├── CorruptModel
    ├── CannotFit
    └── MissingPart

Errors know nothing of HTTP or gRPC: each door owns one table from error to status.
"""

from __future__ import annotations


class LoupeError(Exception):
    """Base of all errors that Loupe raises on purpose.

    Args:
        message: a plain sentence for the person who reads it.
        details: ids and numbers that a program may need (also kept as `details`).
    """

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    @property
    def cause(self) -> str:
        """Stable name for metrics, dead letters and reports, for example `UnreadableImage`."""
        return type(self).__name__


class RetryLater(LoupeError):
    """Transient: wait, then do the same again."""


class BrokerUnavailable(RetryLater):
    """Kafka did not answer in time."""


class StoreUnavailable(RetryLater):
    """The object store did not answer in time."""


class DatabaseUnavailable(RetryLater):
    """The database did not answer in time or is locked."""


class CacheUnavailable(RetryLater):
    """Redis did not answer; callers go on without it."""


class ModelUnavailable(RetryLater):
    """The model is not loaded, or its server is restarting."""


class SourceUnavailable(RetryLater):
    """A camera gives no pictures now.

    Args:
        message: a plain sentence, without any password.
        state: the `CameraState` that it is in, for example `unreachable`.
    """

    def __init__(self, message: str, state: str = "unreachable", **details: object) -> None:
        super().__init__(message, state=state, **details)
        self.state = state


class StorageFull(RetryLater):
    """A disk, or a part of it that was set aside, takes no more; room may be made."""


class Overloaded(RetryLater):
    """A bounded queue is full; push back."""


class Rejected(LoupeError):
    """Will fail again however often it is tried."""


class UnreadableImage(Rejected):
    """The bytes are not an image that Loupe can decode."""


class ImageTooLarge(Rejected):
    """More pixels or bytes than the stated limit."""


class MalformedRecord(Rejected):
    """A Kafka record whose headers or payload cannot be understood."""


class HashMismatch(Rejected):
    """Stored bytes do not have the SHA-256 that their reference names."""


class FrameCrashesModel(Rejected):
    """The model server failed on this frame alone, repeatedly, while it judges others."""


class UnknownProject(Rejected):
    """No project, or no model version, of that name."""


class UnknownObject(Rejected):
    """The object store has nothing under that name."""


class NotEnoughImages(Rejected):
    """Too few normal photos to fit a detector."""


class Cancelled(Rejected):
    """A person called the work off."""


class BadRequest(Rejected):
    """A person's or program's input that makes no sense; the message says what would."""


class StopProcess(LoupeError):
    """Going on would do harm or cannot work."""


class BadSettings(StopProcess):
    """Settings that contradict each other; both are named."""


class SizeLimitsDisagree(StopProcess):
    """A record-size limit in one of five places is below the inline limit."""


class PoisonShareExceeded(StopProcess):
    """Too large a share of records could not be handled; something upstream is wrong."""


class CorruptModel(StopProcess):
    """A model folder whose hashes or golden outputs do not agree with its manifest."""


class CannotFit(StopProcess):
    """More asked than there is: inference units of a cluster, memory for a fit (`asked`, `offered`)."""


class MissingPart(StopProcess):
    """A part of the one-machine stack is not installed or was changed on disk."""
