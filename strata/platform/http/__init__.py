"""The edge: what every request gets whatever it asks for (an id, a problem document, headers, a place in the metrics)."""
