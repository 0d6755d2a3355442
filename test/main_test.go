package test

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// TestMain lets as many tests be in parallel as like to be. What bounds them is the number of clusters (package cluster): with Go's own bound below
// that, the parts of a test whose cluster runs would wait for tests that wait for a cluster.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "256"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}
