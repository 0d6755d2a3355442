package cluster

// Changed names a node that changed. Object says that the node itself did, and not only what runs there.
type Changed struct {
	Node   int32
	Object bool
}

// history is the list of changes by which others keep what they derived from the columns in step. It forgets its older half when it has grown
// past a few times the number of nodes: who is that far behind starts afresh, which is cheaper then.
type history struct {
	base  uint64 // how many were forgotten
	list  []Changed
	clock uint64
}

// note enters a change of node i. The clock makes an order of when nodes changed last, by which equals are told apart.
func (n *Nodes) note(i int, object bool) {
	n.clock++
	n.Touched[i] = n.clock
	n.list = append(n.list, Changed{int32(i), object})
	if len(n.list) > 4*len(n.Node)+4096 {
		half := len(n.list) / 2
		n.base += uint64(half)
		n.list = append(n.list[:0], n.list[half:]...)
	}
}

// Now is the position behind the last change.
func (n *Nodes) Now() uint64 { return n.base + uint64(len(n.list)) }

// Since returns the changes from a position on; false if they were forgotten or are so many that starting afresh is less work.
func (n *Nodes) Since(position uint64) ([]Changed, bool) {
	if position < n.base || n.Now()-position > uint64(2*len(n.Node)+64) {
		return nil, false
	}
	return n.list[position-n.base:], true
}
