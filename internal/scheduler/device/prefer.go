package device

import (
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
)

// Most is what Preferred comes to where each request gets the first of its alternatives; 0 if none has a choice, so that all nodes are alike.
func (n *Need) Most() (most int64) {
	choice := false
	for _, claim := range n.open {
		for k := range claim.Spec.Devices.Requests {
			if list := claim.Spec.Devices.Requests[k].FirstAvailable; len(list) > 0 {
				choice = choice || len(list) > 1
				most += resourcev1.FirstAvailableDeviceRequestMaxSize
			}
		}
	}
	if !choice {
		return 0
	}
	return most
}

// Preferred is how much those devices are what claims prefer, as upstream's score: the earlier in a request's list, the more.
func (n *Need) Preferred(list []Claimed) (much int64) {
	for _, c := range list {
		if c.Allocation == nil {
			continue
		}
		given := sets.New[string]()
		for k := range c.Allocation.Devices.Results {
			given.Insert(c.Allocation.Devices.Results[k].Request)
		}
		for k := range c.Claim.Spec.Devices.Requests {
			r := &c.Claim.Spec.Devices.Requests[k]
			for at := range r.FirstAvailable {
				if given.Has(resourceclaim.CreateSubRequestRef(r.Name, r.FirstAvailable[at].Name)) {
					much += int64(resourcev1.FirstAvailableDeviceRequestMaxSize - at)
				}
			}
		}
	}
	return much
}
