"""Reading events as they come: subscriptions, durable cursors, wake-ups, deliveries, the bus.

Beside the views: a consumer needs the log only. Nothing here takes the log's lock, so a slow or
dead consumer is nobody's concern but its own. Page: specs/consumers.md.
"""
