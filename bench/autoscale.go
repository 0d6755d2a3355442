package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/test/cluster"
)

// benchAutoscale measures how soon figures are there, and how soon load brings pods: from the moment the load generator is asked for, so its own start
// is in it.
func benchAutoscale(b *bench) {
	example, err := os.ReadFile(filepath.Join("examples", "autoscale.yaml"))
	if err != nil {
		b.Fatalf("run this from the repository's root: %v", err)
	}
	c := cluster.Start(b)
	ready := time.Now()
	for {
		if _, err := c.TryKubectl("top", "nodes"); err == nil {
			break
		}
		if time.Since(ready) > time.Minute {
			b.Fatal("there are no figures a minute after the start")
		}
		time.Sleep(50 * time.Millisecond)
	}
	report("Ready to the first answer of kubectl top nodes", "s", time.Since(ready).Seconds())
	c.Apply(strings.ReplaceAll(string(example), "stabilizationWindowSeconds: 15", "stabilizationWindowSeconds: 1"))
	c.Kubectl("rollout", "status", "deployment/burner", "--timeout=60s")
	var reactions []float64
	for range b.rounds {
		time.Sleep(10 * time.Second) // past what was measured while the last pods started
		c.Kubectl("scale", "deployment/load", "--replicas=1")
		asked := time.Now()
		available(b, c, func(n int32) bool { return n > 1 })
		reactions = append(reactions, time.Since(asked).Seconds())
		c.Kubectl("scale", "deployment/load", "--replicas=0")
		available(b, c, func(n int32) bool { return n == 1 })
	}
	report("load to a second pod available", "s", reactions...)
}

// available waits until enough pods of the burner are.
func available(b *bench, c *cluster.Cluster, enough func(int32) bool) {
	deployments := c.Client().AppsV1().Deployments(metav1.NamespaceDefault)
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		d, err := deployments.Get(context.Background(), "burner", metav1.GetOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if enough(d.Status.AvailableReplicas) {
			return
		}
		if time.Since(began) > 2*time.Minute {
			b.Fatalf("the autoscaler left %d pods for two minutes", d.Status.AvailableReplicas)
		}
	}
}
