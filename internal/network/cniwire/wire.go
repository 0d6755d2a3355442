// Package cniwire is what the CNI plug-in and the agent say to each other over the agent's socket: one Request, one Reply, each a JSON
// value. It imports nothing, so that the plug-in, which a node starts once a pod, stays small.
package cniwire

import "encoding/json"

// Request is a CNI command: its environment and the configuration from its standard input.
type Request struct {
	Command     string          `json:"command"`
	ContainerID string          `json:"containerID"`
	Netns       string          `json:"netns"`
	IfName      string          `json:"ifName"`
	Args        string          `json:"args,omitempty"` // "K8S_POD_NAMESPACE=…;K8S_POD_NAME=…": whose container it is
	Config      json.RawMessage `json:"config"`
}

// Reply is what the plug-in prints.
type Reply struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  *Error          `json:"error,omitempty"`
}

// Error is CNI's form of an error; its codes are the specification's.
type Error struct {
	CNIVersion string `json:"cniVersion"`
	Code       uint   `json:"code"`
	Msg        string `json:"msg"`
	Details    string `json:"details,omitempty"`
}

// Codes of the specification, and one of our own.
const (
	CodeVersion      = 1  // the configuration's version is not supported
	CodeEnvironment  = 4  // a variable is missing or wrong
	CodeIO           = 5  // standard input could not be read
	CodeDecode       = 6  // the configuration is no JSON
	CodeConfig       = 7  // the configuration is wrong
	CodeTryLater     = 11 // a passing condition
	CodeNotAvailable = 50 // STATUS: no ADD can be served now
	CodeFailed       = 100
)

// Versions of the specification that plug-in and agent speak.
var Versions = []string{"0.4.0", "1.0.0", "1.1.0"}
