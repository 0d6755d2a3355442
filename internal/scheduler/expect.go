package scheduler

import "context"

// expect has a pod's status tell where it is to be bound (KEP-5278), while it waits there for volumes or devices: who adds and removes nodes counts on it, and a
// scheduler that begins anew keeps the place. The API takes it back with the binding, unassume if that does not come.
func (l *loop) expect(b *binding) {
	if b.pod.Expected {
		return
	}
	b.pod.Expected = true
	if b.object.Status.NominatedNodeName != b.node {
		l.write(b.pod.UID, func(ctx context.Context) { l.writeNomination(ctx, b.object, b.node) })
	}
}
