"""Errors are named facts with the contract's codes; they travel between processes whole."""

from __future__ import annotations

from typing import ClassVar


class CrmError(Exception):
    """What a caller may be told: a stable `code`, and a message that says what to do."""

    code: ClassVar[str] = "internal"

    @property
    def message(self) -> str:
        """The sentence for a person."""
        return str(self.args[0]) if self.args else self.code

    def __str__(self) -> str:
        return self.message


class EventRefused(CrmError):
    """One event is not acceptable; `code` is one of the contract's per-event codes."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message, code, field)
        self.code = code  # type: ignore[misc]  # per event, not per class
        self.field = field

    def __reduce__(self) -> tuple[type[EventRefused], tuple[str, str, str | None]]:
        return (EventRefused, (self.code, self.message, self.field))


class BrandNotFound(CrmError):
    """No brand has this id."""

    code = "unknown_brand"


class PlayerNotFound(CrmError):
    """The brand has no such player."""

    code = "player_not_found"


class ClustersNotFound(CrmError):
    """No player clusters have been trained for the brand."""

    code = "clusters_not_found"


class ClusterNotFound(CrmError):
    """The serving model of a brand has no cluster with this id."""

    code = "cluster_not_found"


class ClusterHasNoRule(CrmError):
    """No short rule selects about the players of a cluster."""

    code = "cluster_has_no_rule"


class ModelUnusable(CrmError):
    """A model cannot answer for live players; the message says why."""

    code = "model_unusable"


class ModelUnreadable(CrmError):
    """A stored model cannot be decoded or opened; the message says what is wrong with it."""

    code = "model_unreadable"


class InvalidRule(CrmError):
    """A segment rule cannot be read; `position` is the character (from 0) where, or None."""

    code = "invalid_rule"

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message, position)
        self.position = position

    def __str__(self) -> str:
        where = "" if self.position is None else f" (at character {self.position})"
        return self.message + where


class InvalidMapping(CrmError):
    """An import mapping cannot be used; the message names the key or column."""

    code = "invalid_mapping"


class InvalidMeasure(CrmError):
    """A brand's own measure cannot be used; the message names the measure and the key."""

    code = "invalid_measure"


class InvalidRange(CrmError):
    """Days that cannot be asked about: the message says which can."""

    code = "invalid_field"


class TooMuchWork(CrmError):
    """A question that would take too long to answer over HTTP; the message says what does it."""

    code = "too_much_work"


class FeatureNotFound(CrmError):
    """The running service has no feature of this name."""

    code = "feature_not_found"


class InvalidRates(CrmError):
    """The file of currency rates cannot be used; the message names the file and the line."""

    code = "invalid_rates"


class ShardsWarming(CrmError):
    """The owner of some virtual shards is being replaced; the caller may try again at once."""

    code = "warming"


class DatabaseAway(CrmError):
    """PostgreSQL does not answer; what was asked may be asked again."""

    code = "database_unavailable"


class InvalidJson(CrmError):
    """A request's body is not UTF-8 JSON of the shape that the route takes."""

    code = "invalid_json"


class TooManyEvents(CrmError):
    """A request holds more events than one may."""

    code = "too_many_events"


class TooLarge(CrmError):
    """A request's body is longer than it may be."""

    code = "too_large"


class SlowBody(CrmError):
    """A request's body stopped on its way."""

    code = "slow_body"


class VaultKeyUnusable(CrmError):
    """The vault's master key is missing or is not a key; the message names the file."""

    code = "vault_key_unusable"


class SealBroken(CrmError):
    """A sealed value was changed, was moved to another place, or is under another key."""

    code = "seal_broken"


class CommitUnknown(DatabaseAway):
    """The connection was lost during the commit: it may or may not have happened."""


class LogGap(CrmError):
    """The log of a shard lacks a sequence number: its features cannot be trusted."""

    code = "log_gap"


class BrandChanged(CrmError):
    """A brand that has events is configured otherwise than when they were taken in."""

    code = "brand_changed"


class ResizeRefused(CrmError):
    """The shard owners cannot be so many, or not now; nothing was changed."""

    code = "resize_refused"


class SegmentNotFound(CrmError):
    """No saved segment has this id."""

    code = "segment_not_found"


class SegmentNameTaken(CrmError):
    """Another segment of the brand that is not archived has this name."""

    code = "segment_name_taken"


class SegmentChanged(CrmError):
    """A segment is at another version than the one that the caller has read."""

    code = "segment_changed"


class SegmentArchived(CrmError):
    """An archived segment is not changed any more."""

    code = "segment_archived"


class SegmentInUse(CrmError):
    """What relies on a segment by its name would be left without it."""

    code = "segment_in_use"


class InvalidSegment(CrmError):
    """A segment cannot be saved like this; the message names the field."""

    code = "invalid_segment"


class InvalidList(CrmError):
    """An imported list names no player, or cannot be read; `lines` say where, and why."""

    code = "invalid_list"

    def __init__(self, message: str, lines: tuple[tuple[int, str], ...] = ()) -> None:
        super().__init__(message, lines)
        self.lines = lines


class UnknownFormat(CrmError):
    """A body is of a media type that the route does not read."""

    code = "unsupported_media_type"


class InvalidCursor(CrmError):
    """A cursor is not one that this list has given."""

    code = "invalid_cursor"


class InvalidKey(CrmError):
    """An Idempotency-Key is empty, too long or not printable ASCII."""

    code = "invalid_idempotency_key"


class KeyReused(CrmError):
    """An Idempotency-Key came with another request than the first time."""

    code = "idempotency_key_reused"


class ModelNotFound(CrmError):
    """No registered model has this id, or none serves."""

    code = "model_not_found"


class ModelFileNotFound(CrmError):
    """A registered model has no file of this name."""

    code = "model_file_not_found"


class ModelFileLost(CrmError):
    """A file of a registered model is not in the lake, or reads otherwise than it was written."""

    code = "model_file_lost"


class InvalidModel(CrmError):
    """What a training hands over cannot be registered; the message names the field."""

    code = "invalid_model"


class ModelNotBetter(CrmError):
    """A model does not beat its baseline, and nobody has said why it should serve all the same."""

    code = "model_not_better"


class InvalidReason(CrmError):
    """A promotion against the rule has no reason, or a reason may not be kept."""

    code = "invalid_reason"


class NoFormerModel(CrmError):
    """Nothing served before the model that serves: there is nothing to go back to."""

    code = "no_former_model"


class ServingChanged(CrmError):
    """Another model serves than the one that the caller has seen."""

    code = "serving_changed"


class RunsAway(CrmError):
    """MLflow does not take a run; nothing was registered, and it may be tried again."""

    code = "runs_unavailable"
