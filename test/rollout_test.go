package test

import (
	"fmt"
	"testing"

	"skiff.dev/skiff/test/cluster"
)

// TestRolloutsLoseNoRequest updates a Deployment under load. Its pods have no preStop hook: that nothing new is led to a pod before it is
// told to stop is Skiff's to see to.
func TestRolloutsLoseNoRequest(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	c.Apply(cluster.Shop)
	c.Kubectl("rollout", "status", "deployment/shop", "--timeout=3m")
	url := "http://" + serviceIP(c, "shop")
	cluster.Eventually(t, func() error { _, err := c.HTTP(url); return err })
	stop := c.Host().Load(url, 500)
	for i := range 4 {
		c.Kubectl("set", "env", "deployment/shop", fmt.Sprintf("UPDATE=%d", i))
		c.Kubectl("rollout", "status", "deployment/shop", "--timeout=3m")
	}
	sent, failed := stop()
	t.Logf("%d requests", sent)
	if len(failed) > 0 || sent < 100 {
		t.Errorf("%d of %d requests failed, the first: %v", len(failed), sent, failed[:min(len(failed), 10)])
	}
}
