package main

import (
	"fmt"
	"strings"
	"time"

	"skiff.dev/skiff/test/cluster"
)

// benchRollout updates a Deployment twenty times under load, and counts what is lost.
func benchRollout(b *bench) {
	const updates, rate = 20, 500
	c := cluster.Start(b)
	c.Apply(cluster.Shop)
	c.Kubectl("rollout", "status", "deployment/shop", "--timeout=60s")
	stop := c.Host().Load("http://"+strings.TrimSpace(c.Kubectl("get", "service", "shop", "-o", "jsonpath={.spec.clusterIP}")), rate)
	began := time.Now()
	for i := range updates {
		c.Kubectl("set", "env", "deployment/shop", fmt.Sprintf("UPDATE=%d", i))
		c.Kubectl("rollout", "status", "deployment/shop", "--timeout=60s")
	}
	took := time.Since(began)
	sent, failed := stop()
	report(fmt.Sprintf("%d rolling updates of 3 pods, each", updates), "s", took.Seconds()/updates)
	report("requests meanwhile", "", float64(sent))
	report("of which failed", "", float64(len(failed)))
}
