// Package score says how good a node is for a pod, as far as a node alone decides it; spreading and affinity between pods are package class's.
// Each plug-in is a file and bears upstream's name. Those about load give 0 to Best at once; the others give a raw figure that is compared
// among all feasible nodes.
package score

// Best is what a plug-in gives at most.
const Best = 100

// More is the score of a raw figure of which more is better, when the highest is known.
func More(raw, highest int64) int64 {
	if highest == 0 {
		return 0
	}
	return Best * raw / highest
}

// Fewer is the score of a raw figure of which less is better.
func Fewer(raw, highest int64) int64 { return Best - More(raw, highest) }
