"""Moved to crm.domain.ports."""

from crm.domain.appending import Verdict as Verdict
from crm.domain.ports import *  # noqa: F403
