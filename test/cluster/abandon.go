package cluster

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// held is what tests have on the machine at the moment, oldest first: a run that is cut short calls none of the tests' own clean-ups.
var held struct {
	sync.Mutex
	ends      []*func()
	abandoned bool
}

// hold notes how something is ended should the run be cut short, and returns what to call when the test has ended it. Once the run is cut short
// it does not return.
func hold(end func()) (release func()) {
	held.Lock()
	if held.abandoned {
		held.Unlock()
		select {}
	}
	defer held.Unlock()
	mine := &end
	held.ends = append(held.ends, mine)
	return func() {
		held.Lock()
		defer held.Unlock()
		held.ends = slices.DeleteFunc(held.ends, func(e *func()) bool { return e == mine })
	}
}

// Abandon ends whatever tests hold, the latest first. It is for a run that is cut short, by Ctrl-C or its time limit; nothing can be started
// afterwards.
func Abandon() {
	held.Lock()
	held.abandoned = true
	ends := slices.Clone(held.ends)
	held.Unlock()
	for _, end := range slices.Backward(ends) {
		(*end)()
	}
}

// abandon removes the cluster without a test to report to.
func (c *Cluster) abandon() {
	c.mu.Lock()
	cmd, exited := c.cmd, c.exited
	c.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		<-exited
	}
	_ = c.takeAway()
	_ = os.RemoveAll(filepath.Dir(filepath.Dir(c.DataDir))) // the test's temporary folder
}
