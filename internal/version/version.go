// Package version says what is running. It imports nothing, so that everything may import it.
package version

const (
	// Kubernetes is the API level served, as clients compare it.
	Kubernetes = "v1.37.2+skiff"
	// Runtime is what the embedded container runtime calls itself.
	Runtime = "containerd://2.4.2"
)

// Skiff is this program's own version; the build sets it.
var Skiff = "v0.1.0-dev"
