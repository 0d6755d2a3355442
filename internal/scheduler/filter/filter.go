// Package filter says on which nodes a pod may run, as far as a node alone decides it; rules about other pods are package class's. Each
// plug-in is a file, bears upstream's name, and gives upstream's reason.
//
// A plug-in is prepared once a class of pods: what it works out there is not worked out again for every node. Plug-ins read the columns and
// change nothing.
package filter

import "skiff.dev/skiff/internal/scheduler/cluster"

// Refusal is why a node won't do. It is shared: not to be changed.
type Refusal struct {
	Reasons []string
	Final   bool // even if every pod left the node
}

// Check says why node i won't do, nil if it will.
type Check func(i int) *Refusal

// Plugin is one filter.
type Plugin struct {
	Name string
	// Prepare returns the check for a pod, nil if every node will do.
	Prepare func(p *cluster.Pod, n *cluster.Nodes) Check
	// Helps are the changes after which a node this plug-in refused might do.
	Helps cluster.Change
}

// Static plug-ins look at the node alone, in upstream's order; the first that refuses a node gives the reason.
var Static = [...]Plugin{
	{"NodeName", nodeName, cluster.Added},
	{"NodeUnschedulable", nodeUnschedulable, cluster.Added | cluster.Schedulable},
	{"TaintToleration", taintToleration, cluster.Added | cluster.Taints},
	{"NodeAffinity", enforcedAffinity, cluster.Added | cluster.Labels},
	{"NodeAffinity", nodeAffinity, cluster.Added | cluster.Labels},
}

// Last is the one that upstream asks when all others let a node pass, those about other pods too. It also looks at the node alone.
var Last = Plugin{"NodeDeclaredFeatures", nodeDeclaredFeatures, cluster.Added | cluster.Features}

// Positions in Static of the plug-ins by which spreading decides whether a node counts, and of those that pass every node that is not marked.
const (
	Unschedulable = 1
	Taints        = 2
	Affinity      = 4
)

// Positions in Load of the plug-ins that package class asks by itself.
const (
	Ports = 0
	Room  = 1
)

// Load plug-ins look at what runs on a node too; they follow the static ones.
var Load = [...]Plugin{
	{"NodePorts", nodePorts, cluster.Added | cluster.Freed},
	{"NodeResourcesFit", nodeResourcesFit, cluster.Added | cluster.Capacity | cluster.Freed},
	{"VolumeRestrictions", withVolumes(volumeRestrictions), cluster.Added | cluster.Freed | cluster.Stored},
	{"NodeVolumeLimits", withVolumes(nodeVolumeLimits), cluster.Added | cluster.Freed | cluster.Stored},
	{"VolumeBinding", withVolumes(volumeBinding), cluster.Added | cluster.Labels | cluster.Stored},
	{"VolumeZone", withVolumes(volumeZone), cluster.Added | cluster.Labels | cluster.Stored},
}
