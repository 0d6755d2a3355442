// Package explain is the answer to "why is my pod pending?": what the scheduler found out about a pod, node by node, with the figures behind
// every verdict. The scheduler fills it from its columns when asked; `skiff explain pod` prints it, and the API serves it as the subresource
// pods/explain.
package explain

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// States of a pod.
const (
	Scheduled = "Scheduled" // it has a node
	Binding   = "Binding"   // it has been given one, and that is being written
	Gated     = "Gated"
	Foreign   = "Foreign" // another scheduler's
	Done      = "Done"    // succeeded, failed or being deleted
	Pending   = "Pending"
)

// Pod is what there is to say about one pod.
type Pod struct {
	Namespace string      `json:"namespace"`
	Name      string      `json:"name"`
	State     string      `json:"state"`
	Node      string      `json:"node,omitempty"`    // Scheduled, Binding: where
	Message   string      `json:"message,omitempty"` // the last verdict, as the pod's condition says it
	Since     metav1.Time `json:"since"`             // when it came to the scheduler, or got its node
	Attempts  int         `json:"attempts,omitempty"`
	Tried     metav1.Time `json:"tried,omitzero"` // last
	Next      metav1.Time `json:"next,omitzero"`  // try at the latest
	Waits     string      `json:"waits,omitempty"`
	Helps     []string    `json:"helps,omitempty"` // which changes would make it be tried again

	Asked      []Amount    `json:"asked,omitempty"`
	Feasible   int         `json:"feasible"` // nodes that would do now
	Nodes      []Node      `json:"nodes,omitempty"`
	Nearest    string      `json:"nearest,omitempty"` // what is missing where least is
	Preemption *Preemption `json:"preemption,omitempty"`
}

// Amount of a resource, in its usual notation.
type Amount struct {
	Resource string `json:"resource"`
	Quantity string `json:"quantity"`
}

// Node is the verdict about one node.
type Node struct {
	Name    string   `json:"name"`
	Fits    bool     `json:"fits"`
	Score   int64    `json:"score,omitempty"`
	Plugin  string   `json:"plugin,omitempty"` // that refuses it
	Reasons []string `json:"reasons,omitempty"`
	Detail  string   `json:"detail,omitempty"` // the figure behind the reason
	Lacks   []Lack   `json:"lacks,omitempty"`  // also where another plug-in refuses the node first
	Pods    []string `json:"pods,omitempty"`   // that are in the way, a few of them
	More    bool     `json:"more,omitempty"`   // pods are in the way than these
	Final   bool     `json:"final"`            // it won't do even if all its pods left
}

// Lack is a resource of which a node has not enough left.
type Lack struct {
	Resource    string `json:"resource"`
	Asked       string `json:"asked"`
	Free        string `json:"free"`
	Allocatable string `json:"allocatable"`
	Missing     string `json:"missing"`
	Users       []User `json:"users,omitempty"`    // that have most of it
	TooSmall    bool   `json:"tooSmall,omitempty"` // the node would not have enough if it were empty
}

// User of a resource.
type User struct {
	Pod      string `json:"pod"` // namespace/name
	Quantity string `json:"quantity"`
	Waiting  bool   `json:"waiting,omitempty"` // it only holds the place, until others have left
}

// Preemption says who would have to go, or why nobody can.
type Preemption struct {
	Node    string   `json:"node,omitempty"`
	Victims []string `json:"victims,omitempty"`
	Why     string   `json:"why,omitempty"`
	Waiting bool     `json:"waiting,omitempty"` // the victims, of which those are named that are still there, have been told to go
}
