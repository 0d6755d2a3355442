package cluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Shop is a Deployment and its Service to update under load. Its pods have no preStop hook.
const Shop = `
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
`

// Load sends a number of requests a second from the host, one half over connections that are kept, the other over new ones, until the returned
// function is called. That says how many were sent, and why some failed.
func (h *Host) Load(url string, rate int) (stop func() (sent int64, failed []error)) {
	ctx, cancel := context.WithCancel(context.Background())
	keep := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: h.Dial, MaxIdleConnsPerHost: 50}}
	anew := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: h.Dial, DisableKeepAlives: true}}
	var sent atomic.Int64
	var mu sync.Mutex
	var failed []error
	began := time.Now()
	one := func(cl *http.Client, kind string) {
		sent.Add(1)
		at := time.Since(began)
		if err := fetch(cl, url); err != nil {
			mu.Lock()
			failed = append(failed, fmt.Errorf("%s connection, asked at %.2f s, failed at %.2f s: %w", kind, at.Seconds(), time.Since(began).Seconds(), err))
			mu.Unlock()
		}
	}
	var all sync.WaitGroup
	all.Go(func() {
		tick := time.NewTicker(2 * time.Second / time.Duration(rate))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				all.Go(func() { one(keep, "kept") })
				all.Go(func() { one(anew, "new") })
			}
		}
	})
	return func() (int64, []error) {
		cancel()
		all.Wait()
		keep.CloseIdleConnections()
		return sent.Load(), failed
	}
}

func fetch(cl *http.Client, url string) error {
	resp, err := cl.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
