package main

// benchTelemetry measures what it costs to measure a hundred pods, and what their last hour takes.
func benchTelemetry(b *bench) {
	const pkg = "./internal/telemetry"
	b.own(pkg, "Sample|Glance", "200x", quantity{"%core", "for a hundred pods", "% of a core", 1})
	b.own(pkg, "History", "1x", quantity{"MB", "an hour of a hundred pods", "MB", 1})
}
