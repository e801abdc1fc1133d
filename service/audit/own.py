"""What users are shown of their own events: everything, but not from where somebody else has acted on the account."""

from dataclasses import replace

from service.audit.trail import AuditEvent


def own(event: AuditEvent) -> AuditEvent:
    """An event for the user whom it is about: the address and the user agent of an admin are the admin's own affair."""
    return replace(event, ip=None, user_agent=None) if "by" in event.detail else event
