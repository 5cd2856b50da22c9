//! From committed events to consumers: the feed and the sinks.
