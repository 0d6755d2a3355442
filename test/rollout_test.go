package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skiff.dev/skiff/test/cluster"
)

// TestRolloutsLoseNoRequest updates a Deployment under load. Its pods have no preStop hook: that nothing new is led to a pod before it is
// told to stop is Skiff's to see to.
func TestRolloutsLoseNoRequest(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	c.Apply(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 3
  strategy: {rollingUpdate: {maxUnavailable: 1, maxSurge: 1}}
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
        - name: web
          image: skiff.dev/web:1
          ports: [{containerPort: 8080}]
          readinessProbe: {httpGet: {path: /healthz, port: 8080}}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{port: 80, targetPort: 8080}]}
`)
	c.Kubectl("rollout", "status", "deployment/shop", "--timeout=60s")
	url := "http://" + serviceIP(c, "shop")
	cluster.Eventually(t, 10*time.Second, func() error { _, err := c.HTTP(url); return err })
	stop := requests(t, c.Host().Dial, url, 500)
	for i := range 4 {
		c.Kubectl("set", "env", "deployment/shop", fmt.Sprintf("UPDATE=%d", i))
		c.Kubectl("rollout", "status", "deployment/shop", "--timeout=60s")
	}
	sent, failed := stop()
	t.Logf("%d requests", sent)
	if failed > 0 || sent < 100 {
		t.Errorf("%d of %d requests failed", failed, sent)
	}
}

// requests sends a number of them a second, one half over connections that are kept, the other over new ones, until the returned function
// is called.
func requests(t *testing.T, dial func(context.Context, string, string) (net.Conn, error), url string, rate int) (stop func() (sent, failed int64)) {
	ctx, cancel := context.WithCancel(context.Background())
	var sent, failed atomic.Int64
	var all sync.WaitGroup
	keep := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 50}}
	anew := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	one := func(cl *http.Client) {
		sent.Add(1)
		resp, err := cl.Get(url)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %s", resp.Status)
			}
		}
		if err != nil && failed.Add(1) < 10 {
			t.Errorf("a request failed: %v", err)
		}
	}
	all.Go(func() {
		tick := time.NewTicker(2 * time.Second / time.Duration(rate))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				all.Go(func() { one(keep) })
				all.Go(func() { one(anew) })
			}
		}
	})
	return func() (int64, int64) {
		cancel()
		all.Wait()
		keep.CloseIdleConnections()
		return sent.Load(), failed.Load()
	}
}
