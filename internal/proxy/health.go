package proxy

// Health is what a node answers to a load balancer that asks whether it should get a service's packets.
type Health struct {
	Namespace, Name string
	Port            uint16
	Local           int // endpoints on this node that are ready
}
