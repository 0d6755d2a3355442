package addon

import "sync"

// Switches tell parts of the program whether their add-ons are enabled. They are, until something else is said.
type Switches struct {
	mu      sync.Mutex
	off     map[string]bool
	changed chan struct{}
}

// NewSwitches has everything on.
func NewSwitches() *Switches { return &Switches{off: map[string]bool{}, changed: make(chan struct{})} }

// Set says whether a part shall run.
func (s *Switches) Set(part string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off[part] == !on {
		return
	}
	s.off[part] = !on
	close(s.changed)
	s.changed = make(chan struct{})
}

// On says whether a part shall run, and gives what is closed when that may have changed.
func (s *Switches) On(part string) (on bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.off[part], s.changed
}
