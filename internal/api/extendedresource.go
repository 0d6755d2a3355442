package api

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// ExtendedRequestName is what the request is called by which a pod's i-th container, init containers first, gets an extended resource as devices
// (KEP-5004): by the container's number, and the resource's among all that the container requests.
func ExtendedRequestName(i int, c *corev1.Container, resource corev1.ResourceName) string {
	return fmt.Sprintf("container-%d-request-%d", i, slices.Index(slices.Sorted(maps.Keys(c.Resources.Requests)), resource))
}
