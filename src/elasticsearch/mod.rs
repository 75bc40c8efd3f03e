//! The client for Elasticsearch that the receiver and the exporter share.
