package addon

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Health tells an object's health from its status, as `kubectl rollout status` and `kubectl wait` would. Objects that have nothing to become are Ready
// once they are there.
func Health(o *unstructured.Unstructured) (State, string) {
	if o.GetDeletionTimestamp() != nil {
		return Progressing, "is being deleted"
	}
	switch o.GetKind() {
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job":
		if behind(o) {
			return Progressing, "is not seen by its controller yet"
		}
	}
	switch o.GetKind() {
	case "Deployment":
		return deployment(o)
	case "StatefulSet":
		return statefulSet(o)
	case "DaemonSet":
		return daemonSet(o)
	case "ReplicaSet", "ReplicationController":
		return replicas(o, number(o, 1, "spec", "replicas"), "readyReplicas", "ready")
	case "Job":
		return job(o)
	case "Pod":
		return pod(o)
	case "CustomResourceDefinition":
		return byCondition(o, "Established")
	case "APIService":
		return byCondition(o, "Available")
	case "PersistentVolumeClaim":
		// One that waits for its first consumer is as ready as it gets by itself.
		if phase, _, _ := unstructured.NestedString(o.Object, "status", "phase"); phase == "Lost" {
			return Failed, "its volume is lost"
		}
	}
	return Ready, ""
}

func number(o *unstructured.Unstructured, absent int64, path ...string) int64 {
	n, found, err := unstructured.NestedInt64(o.Object, path...)
	if !found || err != nil {
		return absent
	}
	return n
}

// behind says that the status is of an older generation.
func behind(o *unstructured.Unstructured) bool {
	seen, found, _ := unstructured.NestedInt64(o.Object, "status", "observedGeneration")
	return found && seen < o.GetGeneration()
}

func replicas(o *unstructured.Unstructured, want int64, field, what string) (State, string) {
	if have := number(o, 0, "status", field); have < want {
		return Progressing, fmt.Sprintf("%d of %d replicas are %s", have, want, what)
	}
	return Ready, ""
}

func deployment(o *unstructured.Unstructured) (State, string) {
	if status, reason, message := condition(o, "Progressing"); status == "False" && reason == "ProgressDeadlineExceeded" {
		return Failed, message
	}
	want := number(o, 1, "spec", "replicas")
	if state, message := replicas(o, want, "updatedReplicas", "updated"); state != Ready {
		return state, message
	}
	return replicas(o, want, "availableReplicas", "available")
}

func statefulSet(o *unstructured.Unstructured) (State, string) {
	return replicas(o, number(o, 1, "spec", "replicas"), "readyReplicas", "ready")
}

func daemonSet(o *unstructured.Unstructured) (State, string) {
	if number(o, -1, "status", "observedGeneration") < 0 {
		return Progressing, "is not seen by its controller yet"
	}
	want := number(o, 0, "status", "desiredNumberScheduled")
	if have := number(o, 0, "status", "updatedNumberScheduled"); have < want {
		return Progressing, fmt.Sprintf("%d of %d nodes are updated", have, want)
	}
	if have := number(o, 0, "status", "numberAvailable"); have < want {
		return Progressing, fmt.Sprintf("it is available on %d of %d nodes", have, want)
	}
	return Ready, ""
}

func job(o *unstructured.Unstructured) (State, string) {
	if status, _, message := condition(o, "Failed"); status == "True" {
		return Failed, message
	}
	if status, _, _ := condition(o, "Complete"); status == "True" {
		return Ready, ""
	}
	if suspended, _, _ := unstructured.NestedBool(o.Object, "spec", "suspend"); suspended {
		return Ready, "is suspended"
	}
	return Progressing, "is not complete yet"
}

func pod(o *unstructured.Unstructured) (State, string) {
	switch phase, _, _ := unstructured.NestedString(o.Object, "status", "phase"); phase {
	case "Succeeded":
		return Ready, ""
	case "Failed":
		return Failed, "has failed"
	}
	return byCondition(o, "Ready")
}

func byCondition(o *unstructured.Unstructured, kind string) (State, string) {
	status, _, message := condition(o, kind)
	if status == "True" {
		return Ready, ""
	}
	if message == "" {
		message = "is not " + kind
	}
	return Progressing, message
}

func condition(o *unstructured.Unstructured, kind string) (status, reason, message string) {
	all, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range all {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			status, _ = m["status"].(string)
			reason, _ = m["reason"].(string)
			message, _ = m["message"].(string)
			return status, reason, message
		}
	}
	return "", "", ""
}

// Sum is an add-on's state, from its objects': the first one that has failed, or else that is on its way, gives the reason.
func Sum(applied []Applied) (State, string) {
	state, message := Ready, ""
	for _, a := range applied {
		switch {
		case a.Health == Failed:
			return Failed, a.String() + ": " + a.Message
		case a.Health == Progressing && state == Ready:
			state, message = Progressing, a.String()+": "+a.Message
		}
	}
	return state, message
}
