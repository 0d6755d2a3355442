package test

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
	"testing"
	"time"

	"skiff.dev/skiff/test/cluster"
	"skiff.dev/skiff/test/operator"
)

// cleanUpTime is how long before the run's time limit the clusters are removed: at the limit itself Go ends the program on the spot.
const cleanUpTime = time.Minute

// TestMain runs the operator, in the processes that are one. Otherwise it lets as many tests be in parallel as like to be. What bounds them is the number of clusters (package cluster): with Go's own bound below
// that, the parts of a test whose cluster runs would wait for tests that wait for a cluster.
func TestMain(m *testing.M) {
	if os.Getenv(operator.PortVariable) != "" {
		os.Exit(operator.Main())
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "256"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	go abandonWhenCutShort()
	os.Exit(m.Run())
}

// abandonWhenCutShort removes the clusters on Ctrl-C and shortly before the time limit, and ends the run.
func abandonWhenCutShort() {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	var limit <-chan time.Time
	if all, err := time.ParseDuration(flag.Lookup("test.timeout").Value.String()); err == nil && all > 0 {
		limit = time.After(max(all-cleanUpTime, all/2))
	}
	select {
	case s := <-interrupted:
		fmt.Fprintf(os.Stderr, "%s: removing the tests' clusters\n", s)
	case <-limit:
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
		fmt.Fprintln(os.Stderr, "the time limit (-timeout) is near: removing the tests' clusters")
	}
	cluster.Abandon()
	os.Exit(1)
}
